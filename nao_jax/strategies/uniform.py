"""Random search: the baseline of everything."""

from collections.abc import Callable, Set
import dataclasses

import jax
import numpy as np

from nao_jax.objectives import Demand
from nao_jax.spaces.space import Space
from nao_jax.strategies import Proposal, Seen, proposal

# In a space that is nearly used up, give up after this many empty draws.
MAX_DRAWS = 100
# With a limit a draw has so many architectures at least.
LEAST_DRAWN = 256


def sample_new(
  space: Space,
  key: jax.Array,
  count: int,
  known: Set[bytes],
  demand: Demand | None = None,
) -> np.ndarray:
  """Draws different architectures that are not known yet.

  Args:
    space: where to draw.
    key: consumed.
    count: how many are wanted.
    known: `space.keys` of what not to draw.
    demand: what it does not allow is drawn again.

  Returns:
    int32 [M, L]; fewer than `count` only if the space, or what is allowed of
    it, is all but used up.
  """
  limited = demand is not None and demand.limit < np.inf
  size = max(count, LEAST_DRAWN) if limited else count
  found: dict[bytes, np.ndarray] = {}
  for draw in range(MAX_DRAWS):
    if len(found) >= count:
      break
    rows = np.asarray(space.sample(jax.random.fold_in(key, draw), size))
    if limited:
      rows = rows[demand.allows(rows)]
    for name, row in zip(space.keys(rows), rows, strict=True):
      if name not in known:
        found.setdefault(name, row)
  rows = list(found.values())[:count]
  return np.array(rows, np.int32).reshape(-1, space.length)


@dataclasses.dataclass(frozen=True)
class Uniform:
  """Proposes random architectures, whatever the scores."""

  space: Space

  def init(self, key: jax.Array) -> tuple:
    """There is no state."""
    del key
    return ()

  def tell(
    self,
    state: tuple,
    key: jax.Array,
    seen: Seen,
    progress: Callable[[str, int, int], None],
    keep: Callable[[tuple, int], None],
  ) -> tuple[tuple, dict]:
    """See `Strategy`."""
    del key, seen, progress, keep
    return state, {}

  def ask(
    self, state: tuple, key: jax.Array, seen: Seen, limit: int
  ) -> tuple[tuple, Proposal]:
    """See `Strategy`."""
    return state, proposal(
      sample_new(self.space, key, limit, seen.known, seen.demand)
    )
