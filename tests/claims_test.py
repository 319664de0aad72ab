"""Searches that share a file of trials divide the trainings."""

import contextlib
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from nao_jax.evaluators import dispatch
from nao_jax.evaluators.dispatch import Dispatch
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs import claims
from nao_jax.runs.trials import Trial, Trials
from tests.stand_ins import Killed, nothing
from tests.tiny_candidates import SPACE, TinyCandidates

ROWS = np.unique(SPACE.canonical(SPACE.sample(jax.random.key(0), 12)), axis=0)
ROW, DAY = [1, 2, 3], 24 * 3600.0
TRIAL = Trial(0.75, (0.5, 0.75))
NO_LIMITS = np.full(2, -np.inf, np.float32)
MINE, ANOTHERS = (None, True), (None, False)


@pytest.fixture
def file(tmp_path):
  return tmp_path / "trials.sqlite"


@pytest.fixture(autouse=True)
def ends(monkeypatch):
  """Ends the beats of a test with it."""
  made, init = [], Trials.__init__
  monkeypatch.setattr(
    Trials, "__init__", lambda self, *of: made.append(self) or init(self, *of)
  )
  yield
  for trials in made:
    trials.release()


@pytest.fixture
def clock(monkeypatch):
  """Wall clock and monotonic clock, which go on when a test says so."""
  now = {"time": 1e9, "monotonic": 1e3}
  for name in now:
    monkeypatch.setattr(time, name, lambda name=name: now[name])
  return now


@pytest.fixture
def impatient(monkeypatch):
  monkeypatch.setattr(claims, "POLL", 0.01)


def _opened(file, space="x"):
  """An owner of claims; in a test each stands for a process of its own."""
  return Trials(file, space, {})


def _change(file, command, *values):
  with contextlib.closing(sqlite3.connect(file)) as database, database:
    return database.execute(command, values).fetchall()


def _watch(trials, clock, seconds):
  """Asks for a claim about once a second; returns how long it was another's."""
  for second in range(seconds):
    if trials.claim(ROW) != ANOTHERS:
      return second
    clock["monotonic"] += claims.POLL
  return seconds


def test_what_one_claims_is_its_own_until_it_has_a_trial(file):
  one, other = _opened(file), _opened(file)
  assert one.claim(ROW) == one.claim(ROW) == MINE
  assert other.claim(ROW) == ANOTHERS
  assert other.claim([3, 2, 1]) == MINE
  assert _opened(file, "another space").claim(ROW) == MINE
  one.add(ROW, TRIAL)
  assert other.get(ROW) == TRIAL
  assert one.claim(ROW) == (TRIAL, False)


def test_what_is_given_up_is_free(file, clock):
  one, other = _opened(file), _opened(file)
  for row in (ROW, [3, 2, 1]):
    one.claim(row)
  one.release(ROW)
  assert other.claim(ROW) == MINE
  other.release([3, 2, 1])
  assert other.claim([3, 2, 1]) == ANOTHERS
  one.release()
  clock["monotonic"] += claims.POLL
  assert other.claim([3, 2, 1]) == MINE
  assert one.claim(ROW) == ANOTHERS


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_followed_at_once(file, reaped):
  ends = "import os; from nao_jax.runs.trials import Trials;"
  ends += f"print(Trials({str(file)!r}, 'x', {{}}).claim({ROW}), flush=True);"
  ends += "os.kill(os.getpid(), 9)"
  with subprocess.Popen(
    [sys.executable, "-c", ends], stdout=subprocess.PIPE, text=True
  ) as killed:
    # All that it printed, until it was killed.
    assert killed.stdout.read() == f"{MINE}\n"
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
      assert killed.wait() == -9
    assert _change(file, "select process from claims") == [(killed.pid,)]
    assert _opened(file).claim(ROW) == MINE


@pytest.mark.parametrize(
  "machine", ["another machine", None], ids=["elsewhere", "stopped here"]
)
def test_a_silent_owner_is_followed_after_a_bounded_time(file, clock, machine):
  one, other = _opened(file), _opened(file)
  one.claim(ROW)
  if machine:
    _change(file, "update claims set machine = ?, process = 1", machine)
  assert _watch(other, clock, 1000) == claims._LAPSE / claims.POLL
  # Who comes back late finds that it has lost the claim.
  assert one.claim(ROW) == ANOTHERS


def test_an_owner_that_beats_keeps_its_claim(file, clock):
  one, other = _opened(file), _opened(file)
  one.claim(ROW)
  for _ in range(3):
    assert _watch(other, clock, 60) == 60
    one._claims.beat()


def test_beats_come_by_themselves_while_something_is_claimed(file, monkeypatch):
  monkeypatch.setattr(claims, "_BEAT", 0.01)
  beats = queue.Queue()
  one, before = _opened(file), _beating()
  # Claims that other tests left beat, too.
  monkeypatch.setattr(
    claims.Claims, "beat", lambda self: self is one._claims and beats.put(0)
  )
  for row in (ROW, [3, 2, 1]):
    one.claim(row)
  for _ in range(3):
    beats.get(timeout=60)
  (thread,) = _beating() - before
  one.add(ROW, TRIAL)
  assert thread.is_alive()
  one.release()
  thread.join(60)
  assert thread not in _beating()


def _beating():
  return {x for x in threading.enumerate() if "_beat_until" in x.name}


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_the_wall_clock_decides_nothing(file, clock, jump):
  one, other = _opened(file), _opened(file)
  one.claim(ROW)
  assert other.claim(ROW) == ANOTHERS
  clock["time"] += jump
  assert _watch(other, clock, 1000) == claims._LAPSE / claims.POLL


def test_a_leap_of_the_monotonic_clock_takes_no_claim(file, clock):
  one, other = _opened(file), _opened(file)
  one.claim(ROW)
  for _ in range(3):
    assert _watch(other, clock, 10) == 10
    clock["monotonic"] += DAY
    assert _watch(other, clock, 10) == 10
    one._claims.beat()


def test_a_claim_is_looked_at_once_a_second(file, clock, monkeypatch):
  one, other = _opened(file), _opened(file)
  one.claim(ROW)
  assert other.claim(ROW) == ANOTHERS
  looks, open_ = [], Trials._open
  monkeypatch.setattr(
    Trials, "_open", lambda self: looks.append(1) or open_(self)
  )
  for _ in range(100):
    assert other.claim(ROW) == ANOTHERS
    clock["monotonic"] += 0.1
  assert 8 <= len(looks) <= 10


def test_files_of_earlier_versions_and_ours_serve_both(file):
  # The statements of 0.2.0.
  old = """create table if not exists trials (
    space text not null, architecture text not null, protocol text not null,
    score real, curve text not null, failed integer not null,
    primary key (space, architecture, protocol))"""
  _change(file, old)
  one, other = _opened(file), _opened(file)
  assert one.claim(ROW) == MINE
  _change(file, old)
  _change(
    file,
    "insert or ignore into trials (space, architecture, protocol, score, curve,"
    " failed) values (?, ?, ?, ?, ?, ?)",
    *("x", "1 2 3", one._key[1], 0.75, "[0.5, 0.75]", 0),
  )
  assert other.claim(ROW) == (TRIAL, False)
  one.add(ROW, Trial(0.1, (0.1, 0.1)))
  assert one.get(ROW) == TRIAL


def test_a_claim_that_cannot_be_written_loses_no_training(
  file, monkeypatch, caplog
):
  monkeypatch.setattr("nao_jax.runs.trials._SECONDS_TO_WAIT", 0.0)
  one = _opened(file)
  with contextlib.closing(sqlite3.connect(file)) as database:
    database.execute("begin immediate")
    assert one.claim(ROW) == MINE
    assert "a claim is not written" in caplog.text
    one.release()
  one.add(ROW, TRIAL)
  assert one.get(ROW) == TRIAL


@pytest.mark.parametrize("value", [None, b"\xff", -1, 2**62, 0.5, "x" * 999])
def test_claims_of_any_content_end_in_no_traceback(file, value):
  one, columns = _opened(file), ("machine", "process", "owner", "beats")
  for column in columns:
    one.claim(ROW)
    with contextlib.suppress(sqlite3.IntegrityError):
      _change(file, f"update claims set {column} = ?", value)
    other = _opened(file)
    assert other.claim(ROW) in (MINE, ANOTHERS)
    assert all(len(name) < 100 for name in other.elsewhere([ROW]))
    other.add(ROW, TRIAL)
    _change(file, "delete from trials")


# Searches.


def _run(candidates, file):
  """Trains all rows with an executor; returns their trials."""
  trials, local = Trials(file, SPACE.name, {}), Local(candidates)
  state = local.init(ROWS[0])
  for _ in local.run(state, list(ROWS), NO_LIMITS, trials, nothing):
    pass
  return [trials.get(row) for row in ROWS]


def test_searches_at_once_train_each_candidate_once(
  tmp_path, file, impatient, monkeypatch
):
  """One of them breaks off in its third training, which another makes."""
  epoch, ended, ran = TinyCandidates.epoch, [], threading.local()

  def counted(self, tokens, states, epochs, between):
    ran.calls = getattr(ran, "calls", 0) + 1
    if self.seconds == 0.01 and ran.calls == 6:
      raise Killed
    found = epoch(self, tokens, states, epochs, between)
    if epochs[0]:
      ended.append(tuple(tokens[0]))
    return found

  monkeypatch.setattr(TinyCandidates, "epoch", counted)
  found = queue.Queue()

  def search(seconds):
    candidates = TinyCandidates(str(tmp_path / "begun"), seconds)
    with contextlib.suppress(Killed):
      found.put(_run(candidates, file))

  (tmp_path / "begun").mkdir()
  threads = [
    threading.Thread(target=search, args=(seconds,))
    for seconds in (0.01, 0.02, 0.03, 0.04)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(ended) == sorted(map(tuple, ROWS))
  first, *others = [found.get_nowait() for _ in range(found.qsize())]
  assert None not in first
  assert others in (2 * [first], 3 * [first])
  assert not _change(file, "select * from claims")


def test_what_another_trains_comes_last_and_is_waited_for(
  tmp_path, file, monkeypatch
):
  one = Trials(file, SPACE.name, {})
  one.claim(ROWS[0])
  told, order, epoch = [], [], TinyCandidates.epoch

  def noted(self, tokens, *arguments):
    order.append(tuple(tokens[0]))
    return epoch(self, tokens, *arguments)

  def wait(seconds):
    assert seconds == claims.POLL
    one.add(ROWS[0], TRIAL)

  monkeypatch.setattr(TinyCandidates, "epoch", noted)
  monkeypatch.setattr(time, "sleep", lambda seconds: seconds and wait(seconds))
  evaluator = FromScratch(
    SPACE, Local(TinyCandidates(str(tmp_path))), Trials(file, SPACE.name, {})
  )
  state = evaluator.init(jax.random.key(0))
  monkeypatch.setattr(claims, "POLL", 1e-6)
  _, scores = evaluator.score(
    state, None, ROWS[:3], 0, lambda *at: told.append(at[3])
  )
  assert scores[0] == 0.75
  assert set(order) == set(map(tuple, ROWS[1:3]))
  waits = "0 running, 1 waiting, 1 trained by process "
  assert any(note.startswith(waits) for note in told)
  assert "trained by" not in told[-1]


def test_who_trains_is_named_if_nothing_is_left_to_train(
  tmp_path, file, monkeypatch
):
  one = Trials(file, SPACE.name, {})
  one.claim(ROWS[0])
  told = []

  def told_or_trained(*at):
    told.append(at[3])
    if "trained by process" in told[-1]:
      one.add(ROWS[0], TRIAL)

  monkeypatch.setattr(claims, "POLL", 1e-6)
  evaluator = FromScratch(
    SPACE, Local(TinyCandidates(str(tmp_path))), Trials(file, SPACE.name, {})
  )
  state = evaluator.init(jax.random.key(0))
  _, scores = evaluator.score(state, None, ROWS[:1], 0, told_or_trained)
  assert scores == [0.75]
  assert "1 trained by process " in "".join(told)


def test_a_round_may_close_without_what_another_trains(
  tmp_path, file, impatient
):
  one = Trials(file, SPACE.name, {})
  one.claim(ROWS[1])
  trials = Trials(file, SPACE.name, {})
  evaluator = FromScratch(SPACE, Local(TinyCandidates(str(tmp_path))), trials)
  state, scores = evaluator.score_async(
    evaluator.init(jax.random.key(0)), None, ROWS, 0, nothing, max_pending=1
  )
  assert np.flatnonzero(np.isnan(scores)).tolist() == [1]
  one.release()
  # What is left in training between two rounds is nobody's.
  _, scores = evaluator.score_async(
    state, None, ROWS, 1, nothing, max_pending=3
  )
  assert np.isnan(scores).sum() <= 1
  assert not _change(file, "select * from claims")


def test_a_cluster_waits_for_others_and_lets_them_go_on(file, impatient):
  one, trials = (Trials(file, SPACE.name, {}) for _ in range(2))
  one.claim(ROWS[0])
  made = Dispatch()
  made.close()
  made.enqueue(list(ROWS[:3]), NO_LIMITS, trials)
  first, second = made.next(), made.next()
  assert [first.key, second.key] == [row.tobytes() for row in ROWS[1:3]]
  assert made.next() is None
  assert (made.running, made.waiting) == (2, 1)
  assert len(trials.elsewhere(ROWS)) == 1
  made.failed(first, "no memory")
  assert one.claim(first.tokens) == MINE
  one.add(ROWS[0], TRIAL)
  one.add(first.tokens, TRIAL)
  time.sleep(claims.POLL)
  assert made.next() is None
  assert made.updates(0.1) == dict.fromkeys(
    [ROWS[0].tobytes(), first.key], TRIAL
  )
  assert one.claim(second.tokens) == ANOTHERS
  made.close()
  assert not _change(file, "select * from claims")


def test_a_result_of_another_counts_more_than_giving_up(file, impatient):
  one, trials = (Trials(file, SPACE.name, {}) for _ in range(2))
  made = Dispatch()
  made.enqueue(list(ROWS[:2]), NO_LIMITS, trials)
  first, second = made.next(), made.next()
  for _ in range(dispatch.FAILURES - 1):
    made.failed(first, "no memory")
    first = made.next()
  made.failed(first, "no memory")
  assert one.claim(first.tokens) == MINE
  made.done(second, TRIAL)
  assert (trials.get(first.tokens), made.waiting) == (None, 1)
  one.add(first.tokens, TRIAL)
  time.sleep(claims.POLL)
  assert made.next() is None
  assert made.updates(0.1) == {first.key: TRIAL, second.key: TRIAL}
