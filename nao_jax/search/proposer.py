"""Proposals after the rounds, from trainings of finalists.

Shared weights separate good architectures from bad ones, but hardly tell good
ones apart; trainings from scratch do. So the strategy learns from trainings
alone; what the shared scores are worth is the choice of the first finalists.
Learning from both as one list of scores kept proposals among the kinds of cells
that the shared weights prefer.

Shapes: A architectures of the pool, N trained ones, L tokens.
"""

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np

from nao_jax import pool as pools
from nao_jax.objectives import CostConstraint
from nao_jax.pool import Pool
from nao_jax.runs.progress import Progress
from nao_jax.search.state import Journal
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, Proposal, Strategy, proposal
from nao_jax.strategies.uniform import sample_new


@dataclasses.dataclass(frozen=True)
class Proposer:
  """Makes proposals from trainings; each call learns anew.

  Attributes:
    strategy: learns and proposes.
    space: the search space, whose tokens the pool has.
    key: source of all randomness.
    constraint: cost constraint of the search.
  """

  strategy: Strategy
  space: Space
  key: jax.Array
  constraint: CostConstraint | None = None

  def propose(
    self,
    pool: Pool,
    trained: dict[int, float],
    round_: int,
    limit: int,
    progress: Progress,
  ) -> tuple[Pool, list[int]]:
    """Proposes architectures without a training.

    They are random ones if the strategy finds none.

    Args:
      pool: the pool in the tokens of `space`.
      trained: {row: merit} of those trained from scratch, at least one; see
        `finalists.Trainings.merits`.
      round_: number of the round, which follows those of the search.
      limit: the most proposals.
      progress: called with the progress of the work.

    Returns:
      The pool with the proposals that were not in it, and the rows of all
      proposals.
    """
    rows = np.array(sorted(trained))
    observed = Observations(
      pool.tokens[rows],
      np.float32([trained[row] for row in rows]),
      set(self.space.keys(pool.tokens[rows])),
      self.constraint,
    )
    keys = jax.random.split(jax.random.fold_in(self.key, round_), 3)
    state: Any = self.strategy.init(keys[0])
    state, _ = self.strategy.tell(
      state, keys[1], observed, progress, Journal().keep
    )
    _, found = self.strategy.ask(state, keys[2], observed, limit)
    if not len(found.tokens):
      known, limits = observed.known, self.constraint
      found = proposal(sample_new(self.space, keys[2], limit, known, limits))
    return self._joined(pool, found, round_, rows)

  def _joined(
    self, pool: Pool, found: Proposal, round_: int, rows: np.ndarray
  ) -> tuple[Pool, list[int]]:
    """Adds proposals to the pool if they are not in it; see `propose`."""
    places = {key: row for row, key in enumerate(self.space.keys(pool.tokens))}
    proposed = self.space.keys(found.tokens)
    new = np.array([key not in places for key in proposed], bool)
    fresh = found._replace(
      tokens=found.tokens[new],
      parents=found.parents[new],
      step_sizes=found.step_sizes[new],
    )
    added = itertools.count(len(pool.tokens))
    return pools.extend(pool, fresh, round_ - 1, rows), [
      places[key] if key in places else next(added) for key in proposed
    ]
