"""Scores from a function of your own.

Shapes: N architectures in the pool, M that were ever scored, B in a call, L
tokens.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError
from nao_jax.evaluators import Keep, Progress, forget
from nao_jax.runs.environment import of_the_caller

# Tokens int32 [B, L] to scores [B], higher is better.
Scores = Callable[[np.ndarray], npt.ArrayLike]


class Scored(NamedTuple):
  """The state: every architecture that was scored.

  Attributes:
    tokens: int32 [M, L].
    scores: float32 [M].
  """

  tokens: np.ndarray
  scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Function:
  """An evaluator that asks a function once for each architecture.

  Attributes:
    scores: the function; an architecture has one score, whenever it is asked.
    batch: B; a last batch is filled up, so that the function sees one shape
      and compiles once, and what is scored is remembered after every batch.
      With 0, all that are new come in one call.
  """

  scores: Scores
  batch: int = 0

  def init(self, key: jax.Array) -> Scored:
    """Nothing is scored; the key is not needed."""
    del key
    return Scored(np.zeros((0, 0), np.int32), np.zeros(0, np.float32))

  def replicate(self, state: Scored) -> Scored:
    """The state stays on the host."""
    return state

  def score(
    self,
    state: Scored,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[Scored, np.ndarray]:
    """The scores of the pool, int32 [N, L]: float32 [N]; see `Evaluator`."""
    del key, round_
    known = _table(state)
    new = tokens[[row.tobytes() not in known for row in tokens]]
    size = self.batch or max(len(new), 1)
    for start in range(0, len(new), size):
      progress("score pool", start, len(new))
      part = new[start : start + size]
      state = Scored(
        np.concatenate([state.tokens.reshape(-1, part.shape[1]), part]),
        np.concatenate([state.scores, self._ask(part)]),
      )
      keep(state, len(part))
    progress("score pool", len(new), len(new))
    known = _table(state)
    return state, np.array([known[row.tobytes()] for row in tokens])

  def _ask(self, tokens: np.ndarray) -> np.ndarray:
    count = len(tokens)
    asked = np.resize(tokens, (self.batch or count, tokens.shape[1]))
    with of_the_caller():
      scores = np.asarray(self.scores(asked), np.float32)
    if scores.shape != (len(asked),):
      raise UserError(
        f"the function of scores gave an array {list(scores.shape)} for "
        f"{len(asked)} architectures; it must give one number for each, "
        f"{[len(asked)]}"
      )
    return scores[:count]


def _table(state: Scored) -> dict[bytes, np.float32]:
  rows = (row.tobytes() for row in state.tokens)
  return dict(zip(rows, state.scores, strict=True))
