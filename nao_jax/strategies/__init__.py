"""Strategies, which learn from scores and propose architectures.

Shapes: N architectures in the pool, L tokens, M proposals.
"""

from collections.abc import Callable, Set
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nao_jax import lazy
from nao_jax.controller.ascent import ObjectiveWeights
from nao_jax.objectives import CostConstraint

__getattr__, __dir__ = lazy.submodules(__name__, __path__)


class Observations(NamedTuple):
  """Architectures and scores that a strategy learns from.

  Attributes:
    tokens: int32 [N, L], the pool, oldest first.
    scores: float [N], finite, higher is better.
    known: `space.keys` of all architectures that were ever in the pool; they
      must not be proposed again.
    constraint: the cost constraint; None if only the score counts.
  """

  tokens: np.ndarray
  scores: np.ndarray
  known: Set[bytes]
  constraint: CostConstraint | None = None

  @property
  def order(self) -> np.ndarray:
    """Indices of the pool's members, best first, int [N]."""
    if self.constraint is None:
      return np.argsort(-self.scores, kind="stable")
    return self.constraint.order(self.tokens, self.scores)

  def allows(self, tokens: np.ndarray) -> np.ndarray:
    """Returns which of int32 [n, L] the cost constraint allows, bool [n]."""
    if self.constraint is None:
      return np.ones(len(tokens), bool)
    return self.constraint.allows(tokens)

  def costs(self) -> np.ndarray | None:
    """Returns the targets of a controller that estimates costs.

    Returns:
      Scaled costs of the pool, float32 [N]; None if the ascent needs no costs.
    """
    if self.constraint is None or not self.constraint.uses_cost_gradient:
      return None
    return np.float32(self.constraint.scaled(self.tokens, self.tokens))

  def weights(self, key: jax.Array, seeds: int) -> ObjectiveWeights | None:
    """Returns the weights of the ascent's objective for each seed.

    In a multi-objective search the weights of score and cost are random for
    every seed, so that proposals spread over the front (Paria et al. 2020).

    Args:
      key: consumed.
      seeds: K, number of seeds.

    Returns:
      Weights and limits [K]; None if the ascent follows the score alone.
    """
    if self.constraint is None or not self.constraint.uses_cost_gradient:
      return None
    weight = np.ones(seeds)
    if self.constraint.multi_objective:
      weight = generator(key).uniform(size=seeds)
    limited = self.constraint.limit < np.inf
    limit = self.constraint.scaled_limit(self.tokens) if limited else 0.0
    excess = self.constraint.penalty if limited else 0.0
    columns = weight, 1 - weight, np.full(seeds, excess), np.full(seeds, limit)
    return ObjectiveWeights(*map(np.float32, columns))


class Proposal(NamedTuple):
  """M new architectures and their origins.

  Attributes:
    tokens: int32 [M, L].
    parents: int32 [M], index in the pool of the architecture that a proposal
      was made from; -1 without a parent.
    step_sizes: float32 [M], step along the predictor's gradient; 0 without one.
    report: statistics of the proposals, for reports: {name: value}.
  """

  tokens: np.ndarray
  parents: np.ndarray
  step_sizes: np.ndarray
  report: dict


def proposal(tokens: np.ndarray, parents: np.ndarray | None = None) -> Proposal:
  """Returns proposals without step sizes and without a report."""
  count = len(tokens)
  none = np.full(count, -1) if parents is None else np.asarray(parents)
  return Proposal(
    tokens, none.astype(np.int32), np.zeros(count, np.float32), {}
  )


def generator(key: jax.Array) -> np.random.Generator:
  """Returns a generator of random numbers on the host; consumes the key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)))


class Strategy(Protocol):
  """Interface of the strategies of `loop.run`; states are trees of arrays.

  By default a strategy has no state and learns nothing.
  """

  def init(self, key: jax.Array) -> Any:
    """Returns the state before the first round; consumes the key."""
    del key
    return ()

  def tell(
    self,
    state: Any,
    key: jax.Array,
    observed: Observations,
    progress: Callable[[str, int, int], None],
    keep: Callable[[Any, int], None],
  ) -> tuple[Any, dict]:
    """Learns from the scores.

    Args:
      state: from `init`, from the round before, or one that this round passed
        to `keep`, from which it resumes.
      key: consumed.
      observed: the observations of the search.
      progress: called with the progress of the work.
      keep: called with a state from which the work can resume, and with the
        number of steps done since the last time.

    Returns:
      The new state and statistics of the fit, for reports: {name: value}.
    """
    del key, observed, progress, keep
    return state, {}

  def ask(
    self, state: Any, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[Any, Proposal]:
    """Proposes at most `limit` architectures, all new and different.

    All of them satisfy `observed.allows`.

    Args:
      state: from `tell`.
      key: consumed.
      observed: the observations that `tell` received.
      limit: the most architectures to propose.

    Returns:
      The new state and the proposals.
    """
