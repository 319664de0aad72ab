"""Evaluators, which turn architectures into scores.

Shapes: N architectures in the pool, L tokens.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from nao_jax import lazy

EVALUATORS = ("shared", "scratch")

__getattr__, __dir__ = lazy.submodules(__name__, __path__)

# Called with the phase, the units of work done, the units of the whole phase
# and, optionally, a note and the size of a unit; see progress.Progress.
Progress = Callable[..., None]

# Called with a state from which the same call can resume (see
# `Evaluator.score`) and with the number of steps done since the last time.
Keep = Callable[[Any, int], None]


class Evaluator(Protocol):
  """Interface of the evaluators of `loop.run`; states are trees of arrays.

  By default an evaluator has no state.
  """

  def init(self, key: jax.Array) -> Any:
    """Returns the state before the first round; consumes the key."""
    del key
    return ()

  def replicate(self, state: Any) -> Any:
    """Places a restored state on the devices where `score` needs it.

    By default it returns the state as it is, on the host.
    """
    return state

  def score(
    self,
    state: Any,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep,
  ) -> tuple[Any, np.ndarray]:
    """Scores the pool.

    Args:
      state: from `init`, from the round before, or one that this round passed
        to `keep`; from the latter the round resumes and ends as if it had never
        been interrupted. Its arrays may be donated to the new state.
      key: the key of the whole search, the same in every round.
      tokens: int32 [N, L], the pool.
      round_: number of this round, from 0.
      progress: called with the progress of the round.
      keep: called with every state from which the round can resume; its arrays
        stay valid until the next call of `keep` or `progress`.

    Returns:
      The new state and the scores, float32 [N]; higher is better.
    """


def forget(state: Any, steps: int) -> None:
  """Ignores a state; the default where no state has to be kept."""
  del state, steps
