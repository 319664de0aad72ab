"""Scores of several fidelities: cheap ones for all, dearer ones for the best.

Every architecture has a score of the first fidelity. From time to time the best
of those that only reached one fidelity is promoted: it is evaluated at the next
one, too. Short trainings favour small architectures, so free signals may help
to choose the best: it is then the one with the highest mean rank. A search sees
one list of scores, in which architectures rank by the fidelity they reached,
then by their scores there.

Shapes: N architectures, L tokens, M fidelities.
"""

import dataclasses

import jax
import numpy as np
import scipy

from nao_jax.evaluators import Evaluator, Keep, Progress, forget
from nao_jax.evaluators.table import Table
from nao_jax.spaces.space import Space
from nao_jax.strategies.proxies import Proxy


@dataclasses.dataclass(frozen=True, eq=False)
class Fidelities(Evaluator):
  """Evaluator that looks scores of several fidelities up; it has no state.

  Promotions depend on the order of the pool alone, to which members must only
  be added.

  Attributes:
    tables: the M tables of one space, from the cheapest on.
    promotions: pairs of a number of architectures, after which one is promoted,
      and the number of the fidelity that it gets, from 1; in their order.
    proxies: signals by which promotions rank architectures beside the scores.
  """

  tables: tuple[Table, ...]
  promotions: tuple[tuple[int, int], ...]
  proxies: tuple[Proxy, ...] = ()

  @property
  def space(self) -> Space:
    """The search space."""
    return self.tables[0].space

  @property
  def scores(self) -> np.ndarray:
    """Scores of all fidelities, [M, F]."""
    return np.stack([table.scores for table in self.tables])

  @property
  def best(self) -> float:
    """The best score of the last fidelity."""
    return self.tables[-1].best

  @property
  def enough(self) -> float:
    """The score that ends a search: none, as all of the budget is for use."""
    return np.inf

  def within(self, allowed: np.ndarray) -> "Fidelities":
    """Returns the tables without the scores outside `allowed`, bool [F]."""
    tables = tuple(table.within(allowed) for table in self.tables)
    return dataclasses.replace(self, tables=tables)

  def score(
    self,
    state: tuple,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[tuple, np.ndarray]:
    """Looks scores up and merges them; implements `Evaluator.score`.

    Scores of a lower fidelity keep their distances, below all of the next one.
    """
    del key, round_, progress, keep
    scores = self._looked_up(tokens)
    levels = self._reached(scores, self._signals(tokens))
    merged, above = scores[-1].copy(), np.inf
    for level in range(len(scores))[::-1]:
      if (own := levels == level).any():
        values = scores[level, own]
        shift = above - values.max() if above < np.inf else 0
        merged[own] = values + shift
        above = np.nextafter(np.float32(merged[own].min()), np.float32(-1e38))
    return state, merged.astype(np.float32)

  def incumbents(
    self, tokens: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the best architecture after each evaluation, and its score.

    Args:
      tokens: int32 [N, L], in the order of their evaluation.

    Returns:
      Rows, int [N]; scores of the fidelity that the row reached by then; and
      whether it is the last fidelity, bool [N].
    """
    rows, values, final = [], [], []
    scores, signals = self._looked_up(tokens), self._signals(tokens)
    for count in range(1, len(tokens) + 1):
      levels = self._reached(scores[:, :count], signals[:, :count])
      own = scores[levels, np.arange(count)]
      # Of equal ones the first.
      best = np.lexsort((np.arange(count), -own, -levels))[0]
      rows.append(best)
      values.append(own[best])
      final.append(levels[best] == len(scores) - 1)
    return np.array(rows), np.array(values), np.array(final)

  def _looked_up(self, tokens: np.ndarray) -> np.ndarray:
    """Returns all scores, [M, N]; also those not reached."""
    return np.stack([table.lookup(tokens) for table in self.tables])

  def _signals(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the proxies of architectures, [P, N]."""
    values = [proxy.values(self.space, tokens) for proxy in self.proxies]
    return np.array(values).reshape(len(values), len(tokens))

  def _reached(self, scores: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """Returns the fidelity that each architecture reached, int [N]."""
    levels = np.zeros(scores.shape[1], int)
    for count, level in self.promotions:
      rows = np.flatnonzero(levels[:count] == level - 1)
      if count <= len(levels) and len(rows):
        ranked = np.stack([scores[level - 1, rows], *signals[:, rows]])
        best = np.argmax(scipy.stats.rankdata(ranked, axis=1).sum(0))
        levels[rows[best]] = level
    return levels
