"""Scores from the table of a benchmark.

Each function of the space has one score. If the table has separate measurements
of several sequences of the same function, the first one is used for all.

Shapes: N architectures, L tokens, F functions of the space.
"""

import dataclasses

import jax
import numpy as np

from nao_jax.evaluators import Evaluator, Keep, Progress, forget
from nao_jax.spaces.space import Space


@dataclasses.dataclass(frozen=True, eq=False)
class Table(Evaluator):
  """Evaluator that looks scores up; it has no state.

  Attributes:
    space: the search space, which numbers the rows of the table.
    scores: float [F], higher is better; NaN where nothing was measured.
  """

  space: Space
  scores: np.ndarray

  @property
  def best(self) -> float:
    """The best score."""
    return float(np.nanmax(self.scores))

  @property
  def enough(self) -> float:
    """The score that ends a search."""
    return self.best

  def within(self, allowed: np.ndarray) -> "Table":
    """Returns the table without the scores outside `allowed`, bool [F]."""
    scores = np.where(allowed, self.scores, np.nan)
    return dataclasses.replace(self, scores=scores)

  def lookup(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the scores of tokens [..., L], [...].

    An architecture that was not measured gets the worst score of the table.
    """
    number = self.space.number(tokens)
    scores = self.scores[number]
    unknown = np.isnan(scores) | (number < 0)
    return np.where(unknown, np.nanmin(self.scores), scores)

  def incumbents(
    self, tokens: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the best row of tokens [N, L] so far, int [N], and its score.

    Of equal scores it is the first. The third result says that all scores are
    of the last fidelity, as `Fidelities.incumbents` does.
    """
    scores = self.lookup(tokens)
    best = np.maximum.accumulate(scores)
    first = np.where(
      np.r_[True, scores[1:] > best[:-1]], np.arange(len(scores)), 0
    )
    at = np.maximum.accumulate(first)
    return at, scores[at], np.ones(len(at), bool)

  def score(
    self,
    state: tuple,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[tuple, np.ndarray]:
    """Looks up the scores of the pool; implements `Evaluator.score`."""
    del key, round_, progress, keep
    return state, self.lookup(tokens).astype(np.float32)
