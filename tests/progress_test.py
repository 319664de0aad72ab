"""Display of a run's progress: bars, lines, rates, and status.json."""

import io
import json
import os
import time
import types

import jax
import numpy as np
import pytest

from nao_jax.errors import Stopped, UserError
from nao_jax.runs import progress, status
from nao_jax.runs.compile_time import CompileTime
from nao_jax.runs.progress import Progress, WorkUnit
from nao_jax.runs.workdir import Workdir

IMAGES = WorkUnit(20, "images")


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  """A clock that is set by hand."""
  found = types.SimpleNamespace(now=1000.0)
  for module in (progress, status):
    stub = types.SimpleNamespace(
      monotonic=lambda: found.now, time=lambda: found.now
    )
    monkeypatch.setattr(module, "time", stub)
  return found


def _told(clock, *calls, **changes):
  """The positions after calls of (seconds later, done)."""
  positions = []
  shown = Progress(io.StringIO(), record=positions.append, **changes)
  for later, done in calls:
    clock.now += later
    shown("train", done, 100, each=IMAGES)
  return positions


def test_a_rate_leaves_out_the_first_call_which_compiles(clock):
  *_, before, after = _told(clock, (0, 0), (50, 10), (2, 20))
  assert (before.rate, before.left) == ("", None)
  assert after.rate == "100 images/s"
  assert after.left == 80 / 5


def test_a_rate_is_that_of_the_last_seconds(clock):
  slow, quick = (
    [(10, 2 * n) for n in range(10)],
    [(1, 20 + n) for n in range(30)],
  )
  assert _told(clock, *slow, *quick)[-1].rate == "20 images/s"


def test_slow_work_has_a_rate_too(clock):
  # Nothing changed for a minute, which is no reason to say that all stopped.
  found = _told(clock, (0, 0), (90, 1), (90, 2), (60, 2))
  assert found[-1].rate == "0.22 images/s"
  assert found[-1].left == 98 * 90


def test_a_rate_leaves_out_a_machine_that_slept(clock):
  awake = [(1, 10 * n) for n in range(1, 5)]
  day = 24 * 3600
  found = _told(clock, *awake, (day, 50), (1, 60), (1, 70))
  rates = [position.rate for position in found]
  assert rates[3:] == ["200 images/s", "", "200 images/s", "200 images/s"]
  assert [position.left for position in found[-2:]] == [4, 3]


def test_work_that_goes_back_starts_its_clock_again(clock):
  found = _told(clock, (0, 0), (1, 10), (1, 20), (1, 5))
  assert found[-1].rate == ""
  assert found[-1].left is None


def test_what_is_done_has_no_time_left(clock):
  assert _told(clock, (0, 100))[-1].left == 0


def test_lines_say_what_is_known(caplog):
  caplog.set_level("INFO")
  shown = Progress(Terminal(), plain=True)
  shown.prefix, shown.best = "round 1 of 4:", "accuracy 0.9000 (round 0)"
  shown("train", 0, 2)
  shown("train", 2, 2, "as planned")
  first, last = caplog.messages
  assert first == "round 1 of 4: train: 0 of 2"
  assert last.startswith("round 1 of 4: train: 2 of 2, 0 s")
  assert "best so far accuracy 0.9000 (round 0)" in last
  assert last.endswith("as planned")


def test_a_terminal_has_a_bar(clock, caplog):
  caplog.set_level("INFO")
  terminal = Terminal()
  shown = Progress(terminal)
  shown.best = "0.9 [red] and as much more as there is room for"
  for later, done in ((0, 0), (5, 50), (5, 80), (4, 100)):
    clock.now += later
    shown("train", done, 100, each=IMAGES)
  shown.close()
  for text in ("100/100", "111 images/s, best so far 0.9 [red]", "…"):
    assert text in terminal.getvalue()
  assert not caplog.messages


def _open(path, **settings):
  return Workdir(path, settings, "result.json")


def _told_of(path):
  return json.loads((path / "status.json").read_text())


def test_a_run_says_how_far_it_is_and_how_it_ended(tmp_path):
  with _open(tmp_path) as journal:
    journal.progress.best = "loss 3"
    journal.progress("train", 1, 4, "a note")
    said = _told_of(tmp_path)
    assert said["state"] == "running"
    assert (said["phase"], said["done"], said["total"]) == ("train", 1, 4)
    assert (said["best"], said["note"]) == ("loss 3", "a note")
    assert abs(said["time"] - time.time()) < 60
    journal.progress("train", 4, 4)
    journal.finish({})
  assert _told_of(tmp_path)["state"] == "finished"
  assert _told_of(tmp_path)["done"] == 4
  assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize(
  ("error", "state"),
  [
    (Stopped("all is saved", 15), "stopped"),
    (KeyboardInterrupt(), "stopped"),
    (UserError("the training\ndiverged"), "failed (the training diverged)"),
    (ZeroDivisionError(), "failed (ZeroDivisionError)"),
  ],
)
def test_a_run_that_breaks_off_says_so(tmp_path, error, state):
  def work():
    with _open(tmp_path) as journal:
      journal.progress("train", 1, 4)
      raise error

  with pytest.raises(type(error)):
    work()
  assert _told_of(tmp_path)["state"] == state


def test_a_run_that_did_nothing_says_nothing(tmp_path):
  with _open(tmp_path):
    pass
  assert not (tmp_path / "status.json").exists()


def test_a_status_is_written_at_most_about_every_second(clock, tmp_path):
  file = status.StatusFile(tmp_path, lambda: 0.0)
  shown, seen = Progress(io.StringIO(), record=file.record), []
  for done in range(10):
    shown("train", done, 10)
    seen.append(_told_of(tmp_path)["done"])
    clock.now += 0.4
  assert seen == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
  shown("score", 0, 5)  # Another phase is said at once: it may compile long.
  assert _told_of(tmp_path)["phase"] == "score"


def test_seconds_of_phases_are_added_up_over_sittings(clock, tmp_path):
  for _ in range(2):
    compiled = [0.0]
    file = status.StatusFile(tmp_path, lambda all=compiled: all[0])
    shown = Progress(io.StringIO(), record=file.record)
    shown("train epoch 1 of 2", 0, 2)
    clock.now, compiled[0] = clock.now + 5, 2.0
    shown("train epoch 2 of 2", 0, 2)
    clock.now += 1
    shown("score", 0, 1)
    clock.now += 3
    file.end("stopped")
  found = status.seconds_of(status.read(tmp_path))
  assert found == {"train epoch": [12.0, 4.0], "score": [6.0, 0.0]}


@pytest.mark.parametrize(
  "text", ["", "[1]", "[" * 5000, '{"seconds": {"a": [1], "b": 2, "c": "d"}}']
)
def test_a_damaged_status_counts_as_none(tmp_path, text):
  (tmp_path / "status.json").write_text(text)
  assert status.seconds_of(status.read(tmp_path)) == {}
  with _open(tmp_path / "run") as journal:
    (tmp_path / "run" / "status.json").write_text(text)
    journal.progress("train", 1, 4)
  assert _told_of(tmp_path / "run")["phase"] == "train"


def test_a_disk_that_takes_no_status_stops_nobody(tmp_path):
  with _open(tmp_path) as journal:
    os.symlink("/dev/full", tmp_path / ".status.json.new")
    journal.progress("train", 1, 4)
    journal.finish({})
  assert (tmp_path / "result.json").exists()


def test_compiling_is_counted_while_somebody_asks():
  def compile_something(number):
    jax.jit(lambda x: x * number)(np.ones(3))

  with CompileTime() as first:
    compile_something(3.25)
  before = first.seconds
  assert before > 0
  with CompileTime() as second:
    compile_something(4.25)
  assert first.seconds == before
  assert second.seconds > 0
