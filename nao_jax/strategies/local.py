"""Local search: move to the first better neighbour; at a peak, start anew.

White et al. 2021 found it the baseline to beat on small benchmarks.

Shapes: N architectures in the pool, L tokens.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from nao_jax.spaces.space import Space
from nao_jax.strategies import Proposal, Seen, generator, proposal
from nao_jax.strategies.uniform import sample_new


class Climb(NamedTuple):
  """Where the search stands.

  Attributes:
    tokens: int32 [L].
    climbing: bool [], whether it stands anywhere yet.
  """

  tokens: np.ndarray
  climbing: np.ndarray


@dataclasses.dataclass(frozen=True)
class Local:
  """Proposes neighbours that were not seen, in random order.

  It starts from the best of the first pool. Asked for several at a time it
  moves to the best of them, not to the first. At a peak it moves to a random
  architecture and proposes nothing else. It needs a pool that none leaves.

  Attributes:
    space: the architectures.
  """

  space: Space

  def init(self, key: jax.Array) -> Climb:
    """Nowhere; see `Strategy`."""
    del key
    return Climb(np.zeros(self.space.length, np.int32), np.bool_(False))

  def tell(
    self,
    state: Climb,
    key: jax.Array,
    seen: Seen,
    progress: Callable[[str, int, int], None],
    keep: Callable[[Climb, int], None],
  ) -> tuple[Climb, dict]:
    """Moves to better neighbours, if there are any; see `Strategy`."""
    del key, progress, keep
    if not state.climbing:
      return Climb(seen.tokens[np.argmax(seen.scores)], np.bool_(True)), {}
    scores = dict(zip(self.space.keys(seen.tokens), seen.scores, strict=True))
    here = state.tokens
    while (better := self._step(here, scores)) is not None:
      here = better
    return Climb(here, np.bool_(True)), {}

  def _step(self, here, scores) -> np.ndarray | None:
    """The best neighbour that was scored, if it is better."""
    rows = np.concatenate([here[None], self.space.neighbours(here)])
    values = [scores.get(name, -np.inf) for name in self.space.keys(rows)]
    best = int(np.argmax(values))
    return rows[best] if values[best] > values[0] else None

  def ask(
    self, state: Climb, key: jax.Array, seen: Seen, limit: int
  ) -> tuple[Climb, Proposal]:
    """See `Strategy`."""
    order_key, start_key = jax.random.split(key)
    rows = self.space.neighbours(state.tokens)
    rows = generator(order_key).permutation(rows[seen.allows(rows)])
    new, known = [], set(seen.known)
    for row, name in zip(rows, self.space.keys(rows), strict=True):
      if name not in known and len(new) < limit:
        known.add(name)
        new.append(row)
    if new:
      return state, proposal(np.array(new, np.int32))
    # A peak: nothing around it is new.
    start = sample_new(self.space, start_key, 1, known, seen.demand)
    if len(start):
      state = Climb(start[0], np.bool_(True))
    return state, proposal(start)
