"""Strategies: they are told what was scored, and asked for what to score next.

Shapes: N architectures in the pool, L tokens, M proposals.
"""

from collections.abc import Callable, Set
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nao_jax import lazy
from nao_jax.controller.ascent import Aim
from nao_jax.objectives import Demand

__getattr__, __dir__ = lazy.submodules(__name__, __path__)


class Seen(NamedTuple):
  """What a search knows.

  Attributes:
    tokens: int32 [N, L], the pool, oldest first.
    scores: float [N], finite, higher is better.
    known: `space.keys` of all that ever was in the pool: not worth proposing.
    demand: what is asked beside the score; nothing if None.
  """

  tokens: np.ndarray
  scores: np.ndarray
  known: Set[bytes]
  demand: Demand | None = None

  @property
  def order(self) -> np.ndarray:
    """Members of the pool, best first: int [N]."""
    if self.demand is None:
      return np.argsort(-self.scores, kind="stable")
    return self.demand.order(self.tokens, self.scores)

  def allows(self, tokens: np.ndarray) -> np.ndarray:
    """Which of int32 [n, L] may be proposed, if they are new: bool [n]."""
    if self.demand is None:
      return np.ones(len(tokens), bool)
    return self.demand.allows(tokens)

  def costs(self) -> np.ndarray | None:
    """What a controller that estimates costs learns, float32 [N]; or None."""
    if self.demand is None or not self.demand.steers:
      return None
    return np.float32(self.demand.scaled(self.tokens, self.tokens))

  def aim(self, key: jax.Array, seeds: int) -> Aim | None:
    """What the ascent follows from each seed; None for the score alone.

    In a trade every seed weighs score against cost in a way of its own, so
    that proposals spread over the front (Paria et al. 2020). The key is
    consumed.
    """
    if self.demand is None or not self.demand.steers:
      return None
    weight = np.ones(seeds)
    if self.demand.trade:
      weight = generator(key).uniform(size=seeds)
    limited = self.demand.limit < np.inf
    limit = self.demand.scaled_limit(self.tokens) if limited else 0.0
    excess = self.demand.penalty if limited else 0.0
    columns = weight, 1 - weight, np.full(seeds, excess), np.full(seeds, limit)
    return Aim(*map(np.float32, columns))


class Proposal(NamedTuple):
  """New architectures and where they come from; M of them.

  Attributes:
    tokens: int32 [M, L].
    parents: int32 [M], which of the pool they were made from; -1 for none.
    step_sizes: float32 [M], along the predictor's gradient; 0 for none.
    report: what the strategy decided, for people: {name: value}.
  """

  tokens: np.ndarray
  parents: np.ndarray
  step_sizes: np.ndarray
  report: dict


def proposal(tokens: np.ndarray, parents: np.ndarray | None = None) -> Proposal:
  """Proposals that no gradient led to, without a report."""
  count = len(tokens)
  none = np.full(count, -1) if parents is None else np.asarray(parents)
  return Proposal(
    tokens, none.astype(np.int32), np.zeros(count, np.float32), {}
  )


def generator(key: jax.Array) -> np.random.Generator:
  """Random numbers on the host; consumes the key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)))


class Strategy(Protocol):
  """What `search.run` works with; the state is a tree of arrays."""

  def init(self, key: jax.Array) -> Any:
    """The state before the first round; consumes the key."""

  def tell(
    self,
    state: Any,
    key: jax.Array,
    seen: Seen,
    progress: Callable[[str, int, int], None],
    keep: Callable[[Any, int], None],
  ) -> tuple[Any, dict]:
    """Learns from what was scored.

    Args:
      state: from `init`, from the round before, or one that this round kept;
        from that it goes on.
      key: consumed.
      seen: what the search knows.
      progress: told how far it is.
      keep: given a state to go on from, and the steps to it.

    Returns:
      The new state, and what was learnt, for people: {name: value}.
    """

  def ask(
    self, state: Any, key: jax.Array, seen: Seen, limit: int
  ) -> tuple[Any, Proposal]:
    """Proposes at most `limit` architectures, none known and no two alike.

    All of them are what `seen` allows.

    Args:
      state: from `tell`.
      key: consumed.
      seen: what `tell` was told.
      limit: how many are wanted.

    Returns:
      The new state and the proposals.
    """
