"""The view of a run that runs, was killed, or has ended."""

import errno
import functools
import io
import json
import socket
import subprocess
import sys

import pytest
import rich.console

from nao_jax.report import watching
from nao_jax.runs import lock
from nao_jax.runs.workdir import Workdir
from nao_jax.search.journal import SearchJournal
from tests import drivers

# A run that reports its progress, and then waits to be killed.
RUN = """
import sys, time
from nao_jax.search.journal import SearchJournal
settings = {"strategy": "nao", "dataset": "digits", "seed": 3,
            "search.rounds": 4}
with SearchJournal(sys.argv[1], settings, 4) as journal:
  journal.rewind("round", 0)
  journal.progress.best = "accuracy 0.9000 (round 0)"
  journal.report("round", {"round": 0, "best": 0.9, "mean": 0.8,
                           "score_seconds": 30.5, "propose_seconds": 9.5})
  journal.progress.prefix = "round 1 of 4:"
  journal.progress("train supernet", 30, 120)
  print("ready", flush=True)
  time.sleep(60)
"""


def _view(path):
  file = io.StringIO()
  console = rich.console.Console(file=file, width=120)
  console.print(watching.render(watching.snapshot(path)))
  return " ".join(file.getvalue().split())


def _files(path):
  return {
    file: (file.read_bytes(), file.stat().st_mtime_ns)
    for file in path.rglob("*")
    if file.is_file()
  }


def test_a_run_is_shown_while_it_runs_and_after_it_was_killed(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", RUN, tmp_path], stdout=subprocess.PIPE
  )
  with process:
    assert process.stdout.readline() == b"ready\n"
    before, view = _files(tmp_path), _view(tmp_path)
    assert watching.snapshot(tmp_path).running
    assert f"running: process {process.pid} on {socket.gethostname()}" in view
    for text in (
      "strategy nao, dataset digits, seed 3",
      "round 1 of 4: train supernet",
      "30 of 120",
      "best so far: accuracy 0.9000 (round 0)",
      "4 of 5 are left, about 2:40, and",
      "0.9000",
    ):
      assert text in view
    assert _files(tmp_path) == before
    process.kill()
  assert not watching.snapshot(tmp_path).running
  view = _view(tmp_path)
  assert f"not running: killed or lost; it was process {process.pid}" in view
  assert "30 of 120" in view
  assert "are left" not in view


def _finished(path):
  with Workdir(path, {"arch": "NAO-RNN"}, "result.json") as journal:
    journal.rewind("epoch", 0)
    for epoch in range(20):
      report = {"validation_perplexity": 90.25 - epoch, "averaging": False}
      journal.report("epoch", {"epoch": epoch, "loss": 4.5} | report)
    journal.progress("training words", 9, 9)
    journal.finish({})
  return path


def test_a_training_that_has_ended_is_shown_with_its_last_epochs(tmp_path):
  view = _view(_finished(tmp_path))
  assert "arch NAO-RNN" in view
  assert "finished" in view
  assert "71.25" in view
  assert "the last 12, after 8 earlier ones" in view
  assert "90.25" not in view
  assert "training words 0:00; 0:00 of it compiling" in view
  assert "averaging" not in view


def test_finalists_are_shown_after_the_rounds(tmp_path):
  settings = {"strategy": "nao", "text": "kjv", "corpus": "1"}
  with SearchJournal(tmp_path, settings, 1) as journal:
    journal.rewind("round", 0)
    journal.report("round", {"round": 0, "best": -5.0, "mean": -6.0})
    curves = {"validation_perplexity_of_finalists/searched_1": [60.5, 55.5]}
    row = {"best": -4.0, "mean": -4.5}
    journal.report_stage("searched finalists", row, curves)
    journal.tracking.stop("finished")
  # In the unit of the scores.
  assert "searched finalists │ 54.60 │ 90.02" in _view(tmp_path)
  (events,) = tmp_path.glob("events.*")
  assert b"of_finalists/searched_1" in events.read_bytes()
  with SearchJournal(tmp_path, settings, 1) as journal:
    journal.rewind("round", 1)
    assert [row.get("round") for row in journal.history()] == [0]


def test_the_state_of_a_run_that_failed_is_shown(tmp_path):
  def work():
    with Workdir(tmp_path, {}, "result.json") as journal:
      journal.progress("train", 1, 2)
      raise KeyError("broken")

  with pytest.raises(KeyError):
    work()
  assert "not running: failed ('broken')" in _view(tmp_path)


def test_a_run_on_another_machine_is_shown_by_its_last_update(tmp_path):
  with SearchJournal(tmp_path, {"seed": 1}, 2) as journal:
    journal.progress("train", 1, 2)
  (tmp_path / lock.NAME).write_text(json.dumps({"process": 7, "host": "far"}))
  text = (tmp_path / "status.json").read_text()
  (tmp_path / "status.json").write_text(text.replace("finished", "running"))
  assert "according to its last update: process 7 on far" in _view(tmp_path)


@pytest.mark.parametrize(
  "files",
  [
    {"status.json": '{"state": 3, "done": "x", "total": [], "left": NaN}'},
    {"status.json": '{"done": 1, "total": 0, "left": "soon", "time": null}'},
    {
      "status.json": json.dumps(
        {"done": 10**400, "total": 1, "time": 10**400}
        | {"seconds": {"train": [10**400, 1]}}
      )
    },
    {"history.jsonl": '{"round": "x", "best": NaN, "mean": []}\n'},
    {"history.jsonl": "nothing\n", ".lock": "nothing"},
    {".lock": '{"process": "x", "host": []}'},
  ],
)
def test_damaged_files_are_shown_as_far_as_they_can_be(tmp_path, files):
  with SearchJournal(tmp_path, {"search.rounds": 2}, 2):
    pass
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  assert _view(tmp_path)


def test_control_characters_are_not_shown(tmp_path):
  evil = "\x1b]0;evil\x07 [red]"
  with SearchJournal(tmp_path, {"dataset": evil}, 2) as journal:
    journal.progress.best = evil
    journal.progress(evil, 1, 2, evil)
    view = _view(tmp_path)
  assert view.count("?]0;evil? [red]") == 4
  assert "\x1b" not in view


def test_the_lock_of_another_file_is_not_taken_for_ours(tmp_path):
  for name in "ab":
    (tmp_path / name).mkdir()
  with lock.Lock(tmp_path / "a", "--workdir"):
    text = (tmp_path / "a" / lock.NAME).read_text()
    (tmp_path / "b" / lock.NAME).write_text(text)
    assert lock.holder(tmp_path / "a").at_work
    assert not lock.holder(tmp_path / "b").at_work
  assert not lock.holder(tmp_path / "a").at_work
  assert lock.holder(tmp_path) is None


def test_without_locks_no_process_counts_as_dead(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(lock.fcntl, "flock", fail)
  with lock.Lock(tmp_path, "--workdir"):
    assert lock.holder(tmp_path).at_work is None


@pytest.mark.parametrize("process", ["Infinity", "-Infinity", "[" * 9999])
def test_a_lock_that_names_no_process_has_no_holder(tmp_path, process):
  text = f'{{"process": {process}, "host": "{socket.gethostname()}"}}'
  (tmp_path / lock.NAME).write_text(text)
  assert lock.holder(tmp_path) is None


def test_the_status_of_an_earlier_process_is_left_out(tmp_path):
  with Workdir(tmp_path, {"seed": 0}, "result.json") as run:
    run.progress("train", 1, 3)
    written = json.loads((tmp_path / "status.json").read_text())
    assert watching.snapshot(tmp_path).status["done"] == 1
    written["process"] += 1
    (tmp_path / "status.json").write_text(json.dumps(written))
    assert set(watching.snapshot(tmp_path).status) == {"seconds"}


_driver = functools.partial(drivers.run, "experiments.watch")


def test_the_driver_shows_the_state_once_without_a_terminal(tmp_path):
  process = _driver(f"--workdir={_finished(tmp_path)}")
  assert process.returncode == 0, process.stderr
  assert "finished" in process.stdout
  assert "\x1b" not in process.stdout


def test_where_there_is_no_run_the_driver_says_so_in_a_line(tmp_path):
  process = _driver(f"--workdir={tmp_path}")
  assert process.returncode == 2
  (line,) = process.stderr.splitlines()
  assert line.startswith(f"error: --workdir={tmp_path}: no run there")
