"""Scores from a table of all architectures: a benchmark, looked up.

An evaluation is one function. Where the table has several sequences of one
function, each measured by itself, the first sequence speaks for all of them.

Shapes: N architectures, L tokens, F functions of the space.
"""

import dataclasses

import jax
import numpy as np

from nao_jax.evaluators import Keep, Progress, forget
from nao_jax.spaces.space import Space


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """An evaluator without a state.

  Attributes:
    space: the architectures; its `functions` are the rows.
    scores: float [F], higher is better; NaN where nothing was measured.
  """

  space: Space
  scores: np.ndarray

  @property
  def best(self) -> float:
    """The best score."""
    return float(np.nanmax(self.scores))

  def within(self, allowed: np.ndarray) -> "Table":
    """The table with scores of the functions that bool [F] allows only."""
    scores = np.where(allowed, self.scores, np.nan)
    return dataclasses.replace(self, scores=scores)

  def lookup(self, tokens: np.ndarray) -> np.ndarray:
    """The scores of [..., L]; what was not measured has the worst one."""
    scores = self.scores[self.space.functions.number(tokens)]
    return np.where(np.isnan(scores), np.nanmin(self.scores), scores)

  def init(self, key: jax.Array) -> tuple:
    """There is no state."""
    del key
    return ()

  def replicate(self, state: tuple) -> tuple:
    """There is no state."""
    return state

  def score(
    self,
    state: tuple,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[tuple, np.ndarray]:
    """The scores of the pool, int32 [N, L]: float32 [N]."""
    del key, round_, progress, keep
    return state, self.lookup(tokens).astype(np.float32)
