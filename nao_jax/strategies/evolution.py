"""Regularized evolution (Real et al. 2019), which removes the oldest member.

Age is the order of the pool, so there is no state, and no member may be removed
from the pool.
"""

import dataclasses

import jax
import numpy as np

from nao_jax.spaces.space import Space
from nao_jax.strategies import (
  Observations,
  Proposal,
  Strategy,
  generator,
  proposal,
)
from nao_jax.strategies.uniform import sample_new

# Number of parents to try until a child is new.
_TRIES = 20


@dataclasses.dataclass(frozen=True)
class Evolution(Strategy):
  """Proposes children of tournament winners among the newest members.

  Attributes:
    space: the search space.
    population: number of newest members of the pool that may be parents.
    tournament: number of members drawn, the best of which is the parent.
  """

  space: Space
  population: int = 20
  tournament: int = 5

  def ask(
    self, state: tuple, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[tuple, Proposal]:
    """Implements `Strategy.ask`."""
    birth_key, draw_key = jax.random.split(key)
    rng = generator(birth_key)
    born, rows, parents = set(), [], []
    utility = (
      observed.scores
      if observed.constraint is None
      else -np.argsort(observed.order)
    )
    for number in range(limit):
      own_key = jax.random.fold_in(draw_key, number)
      parent, child = self._child(rng, own_key, observed, born, utility)
      if child is None:  # The space is exhausted.
        break
      born.update(self.space.keys(child[None]))
      rows.append(child)
      parents.append(parent)
    tokens = np.array(rows, np.int32).reshape(-1, self.space.length)
    return state, proposal(tokens, np.array(parents, np.int32))

  def _child(
    self, rng, key, observed, born, utility
  ) -> tuple[int, np.ndarray | None]:
    """Returns the index of a parent, and a new child.

    If no new child is found, it returns -1 and a new random architecture; None
    in its place if the space is exhausted.
    """
    for _ in range(_TRIES):
      parent = self._parent(rng, utility)
      child = _mutate(rng, self.space, observed.tokens[parent])
      (name,) = self.space.keys(child[None])
      new = name not in observed.known and name not in born
      if new and observed.allows(child[None])[0]:
        return parent, child
    known = observed.known | born
    drawn = sample_new(self.space, key, 1, known, observed.constraint)
    return -1, drawn[0] if len(drawn) else None

  def _parent(self, rng, utility) -> int:
    oldest = max(len(utility) - self.population, 0)
    drawn = rng.integers(oldest, len(utility), self.tournament)
    return int(drawn[np.argmax(utility[drawn])])


def _mutate(rng, space: Space, tokens: np.ndarray) -> np.ndarray:
  """Changes one token, drawing a position first, then its new token."""
  rows = space.neighbours(tokens)
  position = np.argmax(rows != tokens, axis=-1)
  chosen = rng.choice(np.unique(position))
  return rows[rng.choice(np.flatnonzero(position == chosen))]
