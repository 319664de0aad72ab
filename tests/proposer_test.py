"""Proposals from trainings of finalists, by the strategies that ship."""

import dataclasses

import jax
import numpy as np
import pytest

from nao_jax import pool as pools
from nao_jax.search.proposer import Proposer
from nao_jax.strategies.choice import STRATEGIES, strategy
from nao_jax.strategies.uniform import sample_new
from nao_jax.tasks import image_presets
from tests.stand_ins import nothing
from tests.tiny_candidates import SPACE

DIGITS = image_presets.PRESETS["digits"]
CONFIG = dataclasses.replace(
  DIGITS,
  controller=dataclasses.replace(DIGITS.controller, embedding=4, hidden=8),
  fit=dataclasses.replace(DIGITS.fit, epochs=2, batch=2),
  nao=dataclasses.replace(DIGITS.nao, top_k=15, max_step_size=2, held_out=0),
  plus=dataclasses.replace(DIGITS.plus, steps=1, pretraining=1, passes=1),
  semi=dataclasses.replace(DIGITS.semi, unlabelled=20, epochs=1, repeats=1),
)


@pytest.mark.parametrize("rows", [(3,), (2, 5, 7, 11)])
@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_proposes_what_has_no_training(name, rows):
  """The shared scores say the opposite of the trainings."""
  tokens = sample_new(SPACE, jax.random.key(0), 12, set())
  pool = pools.start(tokens[:0], tokens, 1)
  pool = pools.record(pool, -np.arange(12.0), 0)
  trained = {row: 0.1 * row for row in rows}
  config = dataclasses.replace(CONFIG, strategy=name)
  proposer = Proposer(strategy(config, SPACE), SPACE, jax.random.key(1))
  grown, found = proposer.propose(pool, trained, 3, 4, nothing)
  # Few decode to a new one after two epochs.
  assert 0 < len({*found}) == len(found) <= 4
  assert not {*found} & {*trained}
  # What was in the pool is not added to it a second time.
  keys = SPACE.keys(grown.tokens)
  assert len({*keys}) == len(keys) == 12 + sum(row >= 12 for row in found)
  assert (grown.origins[12:] == 3).all()
  assert np.isnan(grown.scores[12:]).all()
  assert {*grown.parents[12:].tolist()} <= {-1, *trained}
