"""Regularized evolution (Real et al. 2019): the oldest dies, not the worst.

It goes by the order of the pool, which none may leave.
"""

from collections.abc import Callable
import dataclasses

import jax
import numpy as np

from nao_jax.spaces.space import Space
from nao_jax.strategies import Proposal, Seen, generator, proposal
from nao_jax.strategies.uniform import sample_new

# A parent whose children are all known is left for another after so many.
_TRIES = 20


@dataclasses.dataclass(frozen=True)
class Evolution:
  """Proposes children of the best of a few, drawn from the newest.

  Attributes:
    space: the architectures.
    population: how many of the pool may be parents, the newest ones.
    tournament: how many of them are drawn, of which the best is the parent.
  """

  space: Space
  population: int = 20
  tournament: int = 5

  def init(self, key: jax.Array) -> tuple:
    """There is no state: the pool knows the order of birth."""
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
    birth_key, stranger_key = jax.random.split(key)
    rng = generator(birth_key)
    known, rows, parents = set(seen.known), [], []
    worth = seen.scores if seen.demand is None else -np.argsort(seen.order)
    for number in range(limit):
      own = jax.random.fold_in(stranger_key, number)
      parent, child = self._birth(rng, own, seen, known, worth)
      if child is None:  # The space is used up.
        break
      known.update(self.space.keys(child[None]))
      rows.append(child)
      parents.append(parent)
    tokens = np.array(rows, np.int32).reshape(-1, self.space.length)
    return state, proposal(tokens, np.array(parents, np.int32))

  def _birth(
    self, rng, key, seen, known, worth
  ) -> tuple[int, np.ndarray | None]:
    """A new child and its parent; or a stranger, if all children are known."""
    for _ in range(_TRIES):
      parent = self._parent(rng, worth)
      child = _mutate(rng, self.space, seen.tokens[parent])
      new = known.isdisjoint(self.space.keys(child[None]))
      if new and seen.allows(child[None])[0]:
        return parent, child
    strangers = sample_new(self.space, key, 1, known, seen.demand)
    return -1, strangers[0] if len(strangers) else None

  def _parent(self, rng, worth) -> int:
    oldest = max(len(worth) - self.population, 0)
    drawn = rng.integers(oldest, len(worth), self.tournament)
    return int(drawn[np.argmax(worth[drawn])])


def _mutate(rng, space: Space, tokens: np.ndarray) -> np.ndarray:
  """Changes one token: each position is as likely, then each other token."""
  rows = space.neighbours(tokens)
  position = np.argmax(rows != tokens, axis=-1)
  chosen = rng.choice(np.unique(position))
  return rows[rng.choice(np.flatnonzero(position == chosen))]
