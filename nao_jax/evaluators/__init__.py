"""Evaluators: tokens in, scores out.

Shapes: N architectures in the pool, L tokens.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from nao_jax import lazy

EVALUATORS = ("shared", "scratch")

__getattr__, __dir__ = lazy.submodules(__name__, __path__)

# Called with the phase, the work done, all of the phase's work and, if there is
# more to say, a note and what a unit of the work is made of; see
# progress.Progress.
Progress = Callable[..., None]

# Called with a state from which the same call goes on, see `Evaluator.score`,
# and with the steps that were done since the last time.
Keep = Callable[[Any, int], None]


class Evaluator(Protocol):
  """What `search.run` works with; the state is a tree of arrays."""

  def init(self, key: jax.Array) -> Any:
    """The state before the first round; consumes the key."""

  def replicate(self, state: Any) -> Any:
    """Places a state that was restored where `score` wants it."""

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
      state: from `init`, from the round before, or one that this round kept;
        from that it goes on, and ends as if it had never been interrupted.
        Its arrays may be gone afterwards, as the new state takes their place.
      key: of the whole search, the same in every round.
      tokens: int32 [N, L], the pool.
      round_: number of this round, from 0.
      progress: told how far it is.
      keep: given the state whenever it is one to go on from; its arrays stay
        until the next call of `keep` or `progress`.

    Returns:
      The new state and the scores, float32 [N]; higher is better.
    """


class Asynchronous(Evaluator, Protocol):
  """An evaluator that a search without waiting works with."""

  def score_most(
    self,
    state: Any,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep,
    *,
    late: int,
  ) -> tuple[Any, np.ndarray]:
    """As `score`, but it does not wait for all.

    Args:
      state: see `score`; also one in which candidates are in training.
      key: see `score`.
      tokens: see `score`.
      round_: see `score`.
      progress: see `score`.
      keep: see `score`.
      late: it ends when so many architectures, or fewer, have no score.

    Returns:
      The new state and the scores, float32 [N]; NaN for those to come.
    """


def forget(state: Any, steps: int) -> None:
  """Keeps nothing."""
  del state, steps
