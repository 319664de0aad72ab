"""Proposals after the rounds, from trainings of finalists.

Shared weights separate good architectures from bad ones, but hardly tell good
ones apart; trainings from scratch do. So the strategy learns from trainings
alone; what the shared scores are worth is the choice of the first finalists.
Learning from both as one list of scores kept proposals among the kinds of cells
that the shared weights prefer.

Shapes: A architectures of the pool, N trained ones, L tokens.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from nao_jax import pool as pools
from nao_jax.objectives import CostConstraint
from nao_jax.pool import Pool
from nao_jax.runs.progress import Progress
from nao_jax.search.state import Journal
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, Strategy


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
    """Proposes architectures that have no training yet.

    Args:
      pool: the pool in the tokens of `space`.
      trained: {row: score} of trainings from scratch, at least one.
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
    places = {key: row for row, key in enumerate(self.space.keys(pool.tokens))}
    proposed = self.space.keys(found.tokens)
    new = np.array([key not in places for key in proposed], bool)
    grown = pools.extend(
      pool,
      found._replace(
        tokens=found.tokens[new],
        parents=found.parents[new],
        step_sizes=found.step_sizes[new],
      ),
      round_ - 1,
      rows,
    )
    fresh = iter(range(len(pool.tokens), len(grown.tokens)))
    return grown, [
      next(fresh) if key not in places else places[key] for key in proposed
    ]
