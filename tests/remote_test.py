"""Trainings on a Ray cluster: two nodes on this machine."""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import re
import signal
import socket
import sqlite3
import sys
import time

import jax
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.evaluators import executors, worker
from nao_jax.evaluators.dispatch import LOSSES, Dispatch
from nao_jax.evaluators.executors import ExecutorConfig
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs.trials import Trial, Trials
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.strategies.uniform import Uniform
from tests import drivers, ray_cluster
from tests.tiny_candidates import SPACE, TinyCandidates

if importlib.util.find_spec("ray") is None:
  pytest.skip("ray is not installed", allow_module_level=True)
# Twelve architectures, no two alike.
ROWS = np.unique(SPACE.sample(jax.random.key(0), 20), axis=0)[:12]


@pytest.fixture(scope="module")
def cluster():
  """The address of two nodes, and what removes the second one."""
  with ray_cluster.started() as found:
    yield found


def _scores(candidates, where, folder, rows=ROWS, progress=lambda *_: None):
  trials = Trials(folder / "trials.sqlite", SPACE.name, {})
  with executors.opened(where, candidates) as executor:
    evaluator = FromScratch(SPACE, executor, trials)
    state = evaluator.init(None)
    return evaluator.score(state, None, rows, 0, progress)[1], trials


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  folder = tmp_path_factory.mktemp("local")
  candidates = TinyCandidates(str(folder))
  return _scores(candidates, executors.LOCAL, tmp_path_factory.mktemp("file"))[
    0
  ]


@pytest.fixture
def candidates(tmp_path):
  folder = tmp_path / "begun"
  folder.mkdir()
  return TinyCandidates(str(folder))


def test_scores_are_the_local_ones_though_a_node_is_lost(
  cluster, candidates, expected, tmp_path, caplog
):
  address, remove = cluster
  removed = []

  def progress(*told):
    # Both nodes train.
    busy = sum(candidates.begun().values()) - told[1] >= 2
    if told[1] and busy and not removed:
      remove()
      removed.append(True)

  where = ExecutorConfig("ray", address)
  where.check("scratch")
  slow = dataclasses.replace(candidates, seconds=0.3)
  scores, _ = _scores(slow, where, tmp_path, progress=progress)
  np.testing.assert_array_equal(scores, expected)
  times = candidates.begun().values()
  assert len(times) == len(ROWS)
  assert max(times) == 2
  assert "a training lost its machine and waits again" in caplog.text


def test_who_kills_three_workers_or_raises_three_times_counts_as_failed(
  cluster, candidates, expected, tmp_path, caplog
):
  rows = ROWS[:6]
  deadly, broken = map(sum, rows[[1, 4]].tolist())
  bad = dataclasses.replace(candidates, deadly=deadly, broken=broken)
  where = ExecutorConfig("ray", cluster[0])
  scores, trials = _scores(bad, where, tmp_path, rows)
  failed = [sum(row) in (deadly, broken) for row in rows.tolist()]
  assert [trials.get(row) == Trial(None, ()) for row in rows] == failed
  worst = expected[:6][~np.array(failed)].min()
  np.testing.assert_array_equal(scores, np.where(failed, worst, expected[:6]))
  begun = [candidates.begun()[" ".join(map(str, row))] for row in rows]
  # Ray may take some for the loss of a machine, if it hears of the end late.
  assert [3 <= times < 13 for times in begun] == failed
  assert {begun[row] for row in np.flatnonzero(~np.array(failed))} == {1}
  assert "out of memory, says the test" in caplog.text


@dataclasses.dataclass(frozen=True)
class Patient(Uniform):
  """Waits in a fit until a training begins; gives up after a while."""

  candidates: TinyCandidates = None

  def tell(self, *arguments):
    before, end = len(self.candidates.begun()), time.monotonic() + 20
    while len(self.candidates.begun()) == before:
      assert time.monotonic() < end
      time.sleep(0.05)
    return super().tell(*arguments)


@pytest.fixture
def signals():
  """Collects the signals by which Ray would end this process."""
  seen = []
  before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
  yield seen
  signal.signal(signal.SIGTERM, before)


def test_workers_go_on_while_an_asynchronous_search_fits_its_controller(
  cluster, candidates, tmp_path, signals
):
  trials = Trials(tmp_path / "trials.sqlite", SPACE.name, {})
  config = SearchConfig(
    pool_size=6, rounds=1, new_per_round=4, extend=True, asynchronous=True
  )
  where = ExecutorConfig("ray", cluster[0], trial_workers=1)
  slow = dataclasses.replace(candidates, seconds=0.2)
  with executors.opened(where, slow) as executor:
    os.kill(os.getpid(), signal.SIGTERM)
    pool = loop.run(
      SPACE,
      FromScratch(SPACE, executor, trials),
      jax.random.key(0),
      config,
      strategy=Patient(SPACE, candidates),
    )
  assert not np.isnan(pool.scores[:, -1]).any()
  assert candidates.begun().keys() == {
    " ".join(map(str, row)) for row in pool.tokens
  }
  assert max(candidates.begun().values()) == 1
  assert signals == [signal.SIGTERM]


def test_a_worker_with_other_code_is_refused():
  there = worker.conditions(0)
  there["code"] = there["code"] | {"jaxlib": "0.1"}
  differs = worker.Worker(None).prepare(there)
  assert differs.startswith("jaxlib is ")
  assert "and 0.1 here; install the same there" in differs


@pytest.mark.parametrize(
  ("executor", "name", "value", "message"),
  [
    ("slurm", "executor", "slurm", "allowed: lo"),
    ("local", "trial_gpus", 1.0, "acts only with"),
    ("ray", "trial_gpus", 2.0, "allowed"),
    ("ray", "trial_cpus", 0.0, "allowed"),
    ("ray", "trial_cpus", 1.5, ".*whole"),
    ("ray", "ray_address", "here", "allowed: HOST:PORT"),
  ],
)
def test_what_cannot_work_is_refused(executor, name, value, message):
  config = ExecutorConfig(**{"executor": executor} | {name: value})
  with pytest.raises(UserError, match=f"`executor.{name}={value}`: {message}"):
    config.check("scratch")


def test_shared_weights_are_not_trained_on_a_cluster():
  with pytest.raises(UserError, match="only with `evaluator=scratch`"):
    ExecutorConfig("ray").check("shared")


def test_without_ray_the_way_to_install_it_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(
    UserError, match=r"the package ray; pip install nao_jax\["
  ):
    ExecutorConfig("ray").check("scratch")


def test_an_address_where_nobody_listens_is_refused_at_once():
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UserError, match=f"ray_address={address}`: nothing"):
      ExecutorConfig("ray", address).check("scratch")


def test_trials_that_fit_on_no_machine_are_refused(cluster, candidates):
  where = ExecutorConfig("ray", cluster[0], trial_cpus=3.0)
  with (
    pytest.raises(UserError, match=r"trial_cpus=3` .*no machine .*1 CPUs"),
    executors.opened(where, candidates),
  ):
    pass


def test_a_search_whose_driver_was_killed_ends_as_the_local_one(
  cluster, digits_folder, tmp_path
):
  flags = {
    "preset": "digits_scratch",
    "data_dir": digits_folder,
    "strategy": "random",
    "nodes": 2,
    "channels": 4,
    "epochs": 1,
    "pool_size": 3,
    "new_per_round": 1,
    "rounds": 1,
    "finalists": 0,
    "final_cells": 0,
  }
  start = functools.partial(drivers.start, "search_cnn", short=False)
  # On one device, as a worker trains: the program for four rounds otherwise,
  # which at this learning rate shows in the accuracy after some steps.
  local = start(tmp_path / "local", flags | {"devices": 1})
  flags |= {"executor": "ray", "ray_address": cluster[0]}
  process = start(tmp_path / "ray", flags)
  log = ""
  for line in process.stderr:
    log += line
    if "candidate 1 of 3" in line:
      process.kill()
  process.communicate()
  assert process.returncode == -signal.SIGKILL, log
  _, log = drivers.finish(start(tmp_path / "ray", flags))
  assert re.search(r"[1-3] of [34] candidates were trained before", log)
  drivers.finish(local)
  best, again = (
    json.loads((tmp_path / name / "best.json").read_text())
    for name in ("local", "ray")
  )
  assert again == best
  assert _trials(tmp_path / "ray") == _trials(tmp_path / "local")


def _trials(workdir):
  with contextlib.closing(sqlite3.connect(workdir / "trials.sqlite")) as file:
    return file.execute("select * from trials order by architecture").fetchall()


# What is done about failures, without a cluster.


@pytest.fixture
def dispatch(tmp_path):
  trials = Trials(tmp_path / "trials.sqlite", SPACE.name, {})
  made = Dispatch()
  made.enqueue(list(ROWS[:4]), np.zeros(2, np.float32), trials)
  return made, trials


def test_what_broke_off_waits_behind_the_others(dispatch):
  made, _ = dispatch
  first = made.next()
  made.failed(first, "a reason")
  rest = [made.next() for _ in range(4)]
  assert rest[-1].key == first.key
  assert made.next() is None
  assert (made.running, made.waiting) == (4, 0)


def test_lost_machines_do_not_count_as_failures_but_not_for_ever(dispatch):
  made, trials = dispatch
  made.done(made.next(), Trial(1.0, (0.5, 1.0)))
  for _ in range(LOSSES - 1):
    # More of them in succession than may break off.
    for _ in range(3):
      made.lost(made.next(), "preempted")
  assert not any(trials.get(row) for row in ROWS[1:4])
  last = made.next()
  made.failed(last, "no memory")
  while (task := made.next()).key != last.key:
    made.done(task, Trial(1.0, (0.5, 1.0)))
  made.lost(task, "preempted")
  assert trials.get(last.tokens).lost


def test_machines_that_go_one_after_the_other_end_the_search(dispatch):
  made, trials = dispatch
  made.done(made.next(), Trial(1.0, (0.5, 1.0)))

  def lose_all():
    while task := made.next():
      made.lost(task, "preempted")

  with pytest.raises(UserError, match=r"lost their machines.*preempted"):
    lose_all()
  assert not any(trials.get(row) for row in ROWS[1:4])


def test_where_nothing_ends_the_search_does_and_nobody_is_marked(dispatch):
  made, trials = dispatch

  def fail_all():
    while task := made.next():
      made.failed(task, "no disk")

  with pytest.raises(UserError, match=r"3 candidates were given up.*no disk"):
    fail_all()
  assert not any(trials.get(row) for row in ROWS[:4])


def test_one_success_is_enough_to_mark_those_that_fail(dispatch):
  made, trials = dispatch
  tasks = [made.next() for _ in range(4)]
  for _ in range(3):
    made.failed(tasks[0], "no memory")
    made.next()
  assert trials.get(ROWS[0]) is None
  made.done(tasks[1], Trial(1.0, (0.5, 1.0)))
  assert trials.get(ROWS[0]).lost
  assert set(made.updates(0.1)) == {tasks[0].key, tasks[1].key}


def test_a_trial_that_appeared_meanwhile_is_news_and_not_run(dispatch):
  made, trials = dispatch
  trial = Trial(1.0, (0.5, 1.0))
  trials.add(ROWS[0], trial)
  assert made.next().key == ROWS[1].tobytes()
  assert made.updates(0.1) == {ROWS[0].tobytes(): trial}


def test_what_is_in_training_is_not_handed_out_again(dispatch):
  made, trials = dispatch
  made.next()
  made.enqueue(list(ROWS[:2]), np.zeros(2, np.float32), trials)
  assert made.next().key == ROWS[1].tobytes()
  assert made.next() is None


def test_one_that_failed_is_marked_though_others_ended_elsewhere(dispatch):
  made, trials = dispatch
  failing = made.next()
  for row in ROWS[1:4]:
    trials.add(row, Trial(1.0, (0.5, 1.0)))
  made.failed(failing, "no memory")
  made.failed(made.next(), "no memory")
  made.failed(made.next(), "no memory")
  assert made.next() is None
  assert trials.get(ROWS[0]).lost
  assert made.running == made.waiting == 0


def test_a_machine_that_breaks_all_it_gets_does_not_use_up_the_queue(tmp_path):
  trials, made = Trials(tmp_path / "trials.sqlite", SPACE.name, {}), Dispatch()
  rows = SPACE.canonical(np.asarray(SPACE.sample(jax.random.key(3), 30)))
  made.enqueue(list(np.unique(rows, axis=0)), np.zeros(2, np.float32), trials)
  made.done(made.next(), Trial(1.0, (0.5, 1.0)))

  def fail_all():
    while task := made.next():
      made.failed(task, "no disk")

  with pytest.raises(UserError, match=r"8 candidates broke off one .*no disk"):
    fail_all()
  failed = [trial for row in rows if (trial := trials.get(row)) and trial.lost]
  assert not failed
