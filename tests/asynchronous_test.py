"""Searches that propose before all of a round is scored."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from benchmarks.simulated import Times, simulate
from nao_jax import pool as pools
from nao_jax import settings
from nao_jax.errors import UserError
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs.trials import Trials
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.strategies import proposal
from nao_jax.strategies.uniform import Uniform
from tests.stand_ins import Killed
from tests.tiny_candidates import SPACE, TinyCandidates

WORKERS = 10
TIMES = Times(stragglers=0.1)
CONFIG = SearchConfig(
  pool_size=30, rounds=4, new_per_round=15, extend=True, asynchronous=True
)


@pytest.fixture(scope="module")
def simulated():
  return simulate(WORKERS, CONFIG, TIMES, 0)


def test_a_round_closes_when_as_many_are_left_as_may_be_late(simulated):
  pool, _ = simulated
  left = [
    np.sum(np.isnan(pool.scores[pool.origins <= round_, round_]))
    for round_ in range(CONFIG.rounds + 1)
  ]
  assert left == [CONFIG.pending_limit] * CONFIG.rounds + [0]


def test_who_is_late_has_a_score_in_a_later_round_that_never_changes(simulated):
  pool, _ = simulated
  assert len(pool.tokens) == 30 + 4 * 15
  for row, origin in zip(pool.scores, pool.origins, strict=True):
    scored = ~np.isnan(row)
    first = np.argmax(scored)
    assert first >= origin
    assert scored[first:].all()
    assert len(set(row[first:])) == 1


def test_workers_wait_less(simulated):
  config = dataclasses.replace(CONFIG, asynchronous=False)
  _, waiting = simulate(WORKERS, config, TIMES, 0)
  _, executor = simulated
  assert executor.before_last > 0.95 > 0.7 > waiting.before_last
  assert executor.clock < waiting.clock


def test_a_pool_of_one_size_keeps_who_is_late():
  config = dataclasses.replace(CONFIG, extend=False, new_per_round=10)
  pool, _ = simulate(WORKERS, config, TIMES, 1)
  assert len(pool.members) == config.pool_size
  left = pool.scores[~pool.alive]
  assert (~np.isnan(left)).any(1).all()
  assert not np.isnan(pool.scores[pool.alive, -1]).any()


def test_scored_members_stand_in_the_order_of_their_first_scores():
  tokens = SPACE.sample(jax.random.key(0), 4)
  pool = pools.start(tokens[:0], tokens, rounds=2)
  pool = pools.record(pool, np.float32([1, np.nan, 3, 4]), 0)
  assert pool.scored(0).tolist() == [0, 2, 3]
  pool = pools.extend(
    pool, proposal(tokens[:1], np.int32([1])), 0, pool.scored(0)
  )
  assert pool.parents[-1] == 2
  pool = pools.record(pool, np.float32([1, 2, 3, 4, np.nan]), 1)
  assert pool.scored(1).tolist() == [0, 2, 3, 1]


def test_a_killed_search_goes_on_and_trains_nobody_a_third_time(
  tmp_path, monkeypatch
):
  config = SearchConfig(
    pool_size=8, rounds=2, new_per_round=4, extend=True, asynchronous=True
  )
  folder = tmp_path / "begun"
  folder.mkdir()
  candidates = TinyCandidates(str(folder))

  def run(workdir):
    trials = Trials(tmp_path / "trials.sqlite", SPACE.name, {})
    evaluator = FromScratch(SPACE, Local(candidates), trials)
    return loop.run(
      SPACE,
      evaluator,
      jax.random.key(0),
      config,
      strategy=Uniform(SPACE),
      workdir=workdir,
    )

  epoch, calls = TinyCandidates.epoch, []

  def killed(self, *arguments):
    calls.append(arguments)
    if len(calls) == 21:
      raise Killed
    return epoch(self, *arguments)

  with monkeypatch.context() as patch:
    patch.setattr(TinyCandidates, "epoch", killed)
    with pytest.raises(Killed):
      run(tmp_path / "run")
  pool = run(tmp_path / "run")
  assert not np.isnan(pool.scores[:, -1]).any()
  assert len(candidates.begun()) == len(pool.tokens) == 16
  assert max(candidates.begun().values()) <= 2


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"asynchronous": False, "max_pending": 0.3},
      "`max_pending=0.3`: acts only with `asyn",
    ),
    ({"max_pending": 0.0}, "`max_pending=0.0`: allowed: above 0"),
    (
      {"max_pending": 2.0},
      r"`max_pending=2.0`: of `pool_size=30` .* give at most 1\.866, ",
    ),
    (
      {"max_pending": 0.01, "pool_size": 2},
      "2 must have a score when a round closes; give a larger pool",
    ),
  ],
)
def test_what_cannot_work_is_refused(changes, message):
  with pytest.raises(UserError, match=message):
    settings.validate(dataclasses.replace(CONFIG, **changes), CONFIG)


@pytest.mark.parametrize("new_per_round", [3, 7, 11, 29])
def test_the_advised_share_is_accepted(new_per_round):
  config = dataclasses.replace(
    CONFIG, pool_size=30, new_per_round=new_per_round, max_pending=99.0
  )
  with pytest.raises(UserError) as refused:
    settings.validate(config, CONFIG)
  advised = re.search(r"at most ([\d.]+), ", str(refused.value))[1]
  config = dataclasses.replace(config, max_pending=float(advised))
  settings.validate(config, CONFIG)


def test_an_evaluator_that_scores_all_at_once_is_refused():
  with pytest.raises(UserError, match="`asynchronous=True`: the evaluator"):
    loop.run(SPACE, lambda tokens: tokens.sum(1), jax.random.key(0), CONFIG)
