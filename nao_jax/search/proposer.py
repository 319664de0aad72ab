"""Proposals after the rounds, from trainings of finalists.

Shared weights separate good architectures from bad ones, but hardly tell good
ones apart; trainings from scratch do, and are expensive. So the strategy learns
from both as one list of scores: those of trainings where there are any, and
below them the others in the order of their scores.

Shapes: A architectures of the pool, N observed ones, L tokens.
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
  """Makes proposals from scores of two kinds; each call learns anew.

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

  def extended(
    self,
    pool: Pool,
    trained: dict[int, float],
    round_: int,
    limit: int,
    progress: Progress,
  ) -> Pool:
    """Returns the pool with proposals, which are not scored.

    Args:
      pool: the pool in the tokens of `space`.
      trained: {row: score} of trainings from scratch, at least one.
      round_: number of the round, which follows those of the search.
      limit: the most proposals.
      progress: called with the progress of the work.
    """
    rows, scores = merged(pool.scores[:, -1], trained)
    observed = Observations(
      pool.tokens[rows],
      scores,
      set(self.space.keys(pool.tokens)),
      self.constraint,
    )
    keys = jax.random.split(jax.random.fold_in(self.key, round_), 3)
    state: Any = self.strategy.init(keys[0])
    state, _ = self.strategy.tell(
      state, keys[1], observed, progress, Journal().keep
    )
    _, proposed = self.strategy.ask(state, keys[2], observed, limit)
    return pools.extend(pool, proposed, round_ - 1, rows)


def merged(
  shared: np.ndarray, trained: dict[int, float]
) -> tuple[np.ndarray, np.ndarray]:
  """Merges scores of shared weights and of trainings from scratch.

  The best of those without a training gets the worst score of a training; the
  others keep their distances to it.

  Args:
    shared: float32 [A], NaN where there is none.
    trained: {row: score}.

  Returns:
    Rows that have a score of either kind, int [N], and scores, float32 [N].
  """
  scores = shared.copy()
  own = list(trained)
  scores[own] = np.nan
  scores += min(trained.values()) - np.nanmax(scores, initial=-np.inf)
  scores[own] = list(trained.values())
  rows = np.flatnonzero(~np.isnan(scores))
  return rows, np.float32(scores[rows])
