"""Scores from a function that the caller provides.

Shapes: N architectures in the pool, M architectures with a score, B
architectures in a call, L tokens.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError
from nao_jax.evaluators import Evaluator, Keep, Progress, forget
from nao_jax.runs.environment import of_the_caller

# Tokens int32 [B, L] to scores [B], higher is better.
Scores = Callable[[np.ndarray], npt.ArrayLike]


class Scored(NamedTuple):
  """State of the evaluator: the last pool, and what was scored since.

  An architecture that has left the pool does not come back.

  Attributes:
    tokens: int32 [M, L].
    scores: float32 [M].
  """

  tokens: np.ndarray
  scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Function(Evaluator):
  """Evaluator that calls a function once for each architecture.

  Attributes:
    scores: the function; the score of an architecture must not depend on the
      time of the call.
    batch: B; the last batch is padded, so that all calls have the same shape
      and the function compiles once; scores are saved after every batch. With
      0, all new architectures are scored in one call.
  """

  scores: Scores
  batch: int = 0

  def init(self, key: jax.Array) -> Scored:
    """Returns a state without scores; the key is not used."""
    del key
    return Scored(np.zeros((0, 0), np.int32), np.zeros(0, np.float32))

  def score(
    self,
    state: Scored,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[Scored, np.ndarray]:
    """Scores the architectures of the pool that were never scored.

    Implements `Evaluator.score`.

    Raises:
      UserError: the function did not return one number per architecture.
    """
    del key, round_
    wanted, known = _keys(tokens), _table(state)
    new = tokens[[key not in known for key in wanted]]
    size = self.batch or max(len(new), 1)
    for start in range(0, len(new), size):
      progress("score pool", start, len(new))
      part = new[start : start + size]
      state = Scored(
        np.concatenate([state.tokens.reshape(-1, part.shape[1]), part]),
        np.concatenate([state.scores, self._call(part)]),
      )
      keep(state, len(part))
      known.update(_table(Scored(part, state.scores[-len(part) :])))
    progress("score pool", len(new), len(new))
    scores = np.float32([known[key] for key in wanted])
    return Scored(tokens, scores), scores

  def _call(self, tokens: np.ndarray) -> np.ndarray:
    count = len(tokens)
    rows = np.resize(tokens, (self.batch or count, tokens.shape[1]))
    with of_the_caller():
      scores = np.asarray(self.scores(rows), np.float32)
    if scores.shape != (len(rows),):
      raise UserError(
        f"the function of scores gave an array {list(scores.shape)} for "
        f"{len(rows)} architectures; it must give one number for each, "
        f"{[len(rows)]}"
      )
    return scores[:count]


def _table(state: Scored) -> dict[bytes, float]:
  return dict(zip(_keys(state.tokens), state.scores.tolist(), strict=True))


def _keys(tokens: np.ndarray) -> list[bytes]:
  rows = np.ascontiguousarray(tokens)
  return rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel().tolist()
