"""Random search, the baseline of every other strategy."""

from collections.abc import Set
import dataclasses

import jax
import numpy as np

from nao_jax.objectives import CostConstraint
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, Proposal, Strategy, proposal

# The most draws in a space that is nearly exhausted.
MAX_DRAWS = 100
# The least number of architectures in a draw if costs are limited.
LEAST_DRAWN = 256


def sample_new(
  space: Space,
  key: jax.Array,
  count: int,
  known: Set[bytes],
  constraint: CostConstraint | None = None,
) -> np.ndarray:
  """Draws distinct new architectures.

  Args:
    space: the search space.
    key: consumed.
    count: number of architectures to draw.
    known: `space.keys` of architectures not to draw.
    constraint: cost constraint that the architectures must satisfy.

  Returns:
    int32 [M, L]; M is below `count` only if the space, or the part of it that
    is allowed, is nearly exhausted.
  """
  limited = constraint is not None and constraint.limit < np.inf
  size = max(count, LEAST_DRAWN) if limited else count
  found: dict[bytes, np.ndarray] = {}
  for draw in range(MAX_DRAWS):
    if len(found) >= count:
      break
    rows = np.asarray(space.sample(jax.random.fold_in(key, draw), size))
    if limited:
      rows = rows[constraint.allows(rows)]
    for name, row in zip(space.keys(rows), rows, strict=True):
      if name not in known:
        found.setdefault(name, row)
  rows = list(found.values())[:count]
  return np.array(rows, np.int32).reshape(-1, space.length)


@dataclasses.dataclass(frozen=True)
class Uniform(Strategy):
  """Proposes random architectures, regardless of scores."""

  space: Space

  def ask(
    self, state: tuple, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[tuple, Proposal]:
    """Implements `Strategy.ask`."""
    return state, proposal(
      sample_new(self.space, key, limit, observed.known, observed.constraint)
    )
