"""Pools of searches that propose at random."""

from collections.abc import Iterator

import numpy as np

from nao_jax import pool as pools
from nao_jax.pool import Pool
from nao_jax.strategies import Proposal

ROUNDS, LENGTH = 4, 3


def course(seed: int) -> Iterator[Pool]:
  """Yields the pools of a search, round by round."""
  rng = np.random.default_rng(seed)

  def tokens(count):
    return rng.integers(1, 9, (count, LENGTH)).astype(np.int32)

  pool = pools.start(tokens(1), tokens(rng.integers(3, 6)), ROUNDS)
  for round_ in range(ROUNDS):
    scores = rng.random(len(pool.members)).astype(np.float32)
    # Those that are still in training have no score.
    scores[rng.random(len(scores)) < 0.3] = np.nan
    pool = pools.record(pool, scores, round_)
    yield pool
    count = rng.integers(0, 3)
    proposal = Proposal(
      tokens(count),
      rng.integers(-1, 3, count).astype(np.int32),
      rng.integers(0, 3, count).astype(np.float32),
      {},
    )
    rows = pool.members
    pool = pools.replace_worst(
      pool, proposal, round_, rows, rng.permutation(len(rows))
    )
