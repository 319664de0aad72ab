"""Local search with restarts, a strong baseline (White et al. 2021).

The search moves to the first better neighbour; at a local optimum it restarts
from a random architecture.

Shapes: N architectures in the pool, L tokens.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, Proposal, generator, proposal
from nao_jax.strategies.uniform import sample_new


class Climb(NamedTuple):
  """State of the local search.

  Attributes:
    tokens: int32 [L], the current architecture.
    climbing: bool [], whether there is a current architecture.
  """

  tokens: np.ndarray
  climbing: np.ndarray


@dataclasses.dataclass(frozen=True)
class Local:
  """Proposes unknown neighbours of the current architecture, in random order.

  The search starts from the best architecture of the first pool. If several
  neighbours are proposed at a time, it moves to the best of them, not to the
  first better one. At a local optimum it moves to a random architecture, which
  is the only proposal. It needs a pool from which no member is removed.

  Attributes:
    space: the search space.
  """

  space: Space

  def init(self, key: jax.Array) -> Climb:
    """Returns a state without a current architecture; the key is not used."""
    del key
    return Climb(np.zeros(self.space.length, np.int32), np.bool_(False))

  def tell(
    self,
    state: Climb,
    key: jax.Array,
    observed: Observations,
    progress: Callable[[str, int, int], None],
    keep: Callable[[Climb, int], None],
  ) -> tuple[Climb, dict]:
    """Moves to better neighbours while there are any.

    Implements `Strategy.tell`.
    """
    del key, progress, keep
    if not state.climbing:
      return Climb(
        observed.tokens[np.argmax(observed.scores)], np.bool_(True)
      ), {}
    scores = dict(
      zip(self.space.keys(observed.tokens), observed.scores, strict=True)
    )
    here = state.tokens
    while (better := self._step(here, scores)) is not None:
      here = better
    return Climb(here, np.bool_(True)), {}

  def _step(self, here, scores) -> np.ndarray | None:
    """Returns the best neighbour that has a score, if it is better."""
    rows = np.concatenate([here[None], self.space.neighbours(here)])
    values = [scores.get(name, -np.inf) for name in self.space.keys(rows)]
    best = int(np.argmax(values))
    return rows[best] if values[best] > values[0] else None

  def ask(
    self, state: Climb, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[Climb, Proposal]:
    """Implements `Strategy.ask`."""
    order_key, start_key = jax.random.split(key)
    rows = self.space.neighbours(state.tokens)
    rows = generator(order_key).permutation(rows[observed.allows(rows)])
    new, known = [], set(observed.known)
    for row, name in zip(rows, self.space.keys(rows), strict=True):
      if name not in known and len(new) < limit:
        known.add(name)
        new.append(row)
    if new:
      return state, proposal(np.array(new, np.int32))
    # A local optimum: all its neighbours are known.
    start = sample_new(self.space, start_key, 1, known, observed.constraint)
    if len(start):
      state = Climb(start[0], np.bool_(True))
    return state, proposal(start)
