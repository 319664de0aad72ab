import errno
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import types

import numpy as np
import pytest

from nao_jax import settings
from nao_jax.errors import Stopped, UserError
from nao_jax.runs import checkpoint, config_file, identity
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.runs.trials import Trials
from nao_jax.runs.workdir import Workdir
from nao_jax.tasks import image_presets

# Holds a directory until it is killed, and says when it does.
HOLDER = """
import pathlib, sys, time
from nao_jax.runs.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]), "--workdir")
print("held", flush=True)
time.sleep(60)
"""
NEVER = CheckpointConfig(minutes=1e9)


def _open(path, *, checkpoints=NEVER, **settings):
  return Workdir(path, settings, "result.json", checkpoints)


def _state(value):
  return {"weights": np.full(3, value, np.float32), "none": np.zeros(0)}


def _work(path, *actions):
  """Runs these actions, one after the other, in a run."""
  with _open(path) as journal:
    for action in actions:
      action(journal)


def _keep(state, *, last=False):
  return lambda journal: journal.keep(state, 1, last=last)


def _signal(number):
  return lambda journal: os.kill(os.getpid(), number)


def _saved(path):
  """The value of the newest state; None without one."""
  state = checkpoint.restore(path / "checkpoints", _state(0))
  return state and state["weights"][0]


def test_another_process_is_refused_by_name_until_it_is_dead(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE
  )
  with holder:
    assert holder.stdout.readline() == b"held\n"
    message = f"process {holder.pid} on {socket.gethostname()} is at work there"
    with pytest.raises(UserError, match=message):
      _open(tmp_path)
    holder.kill()
  with _open(tmp_path):
    pass


def test_a_directory_is_free_again_after_a_run_or_a_refusal(tmp_path):
  refused = pytest.raises(UserError, match=f"process {os.getpid()} ")
  with _open(tmp_path, seed=1), refused:
    _open(tmp_path, seed=1)
  with pytest.raises(UserError, match="seed is 1 there and 2 here"):
    _open(tmp_path, seed=2)
  with _open(tmp_path, seed=1):
    pass


def test_a_run_of_another_version_is_refused_by_that_name(tmp_path):
  with _open(tmp_path, seed=1):
    pass
  file = tmp_path / "config.json"
  config = json.loads(file.read_text())
  config["versions"]["nao_jax"] = "0.0.7"
  config["git"] = "abc123"
  file.write_text(json.dumps(config))
  with _open(tmp_path, seed=1):
    pass
  with pytest.raises(UserError) as refused:
    _open(tmp_path, seed=1, finalists=5)
  for words in (
    "nao_jax 0.0.7, revision abc123",
    "finalists",
    "finish it with",
  ):
    assert words in str(refused.value)
  assert "same flags" not in str(refused.value)


def test_searches_of_the_version_before_are_resumed(tmp_path):
  """Settings were renamed since, and `space` was added."""
  today = settings.flatten(image_presets.PRESETS["digits"])
  with _open(tmp_path, **today):
    pass
  file = tmp_path / "config.json"
  content = json.loads(file.read_text())
  del content["settings"]["space"]
  text = json.dumps(content)
  for new, old in (
    ('"encoding"', '"coding"'),
    ("max_pending", "late"),
    ('"constraint.', '"demand.'),
  ):
    assert new in text
    text = text.replace(new, old)
  file.write_text(text)
  assert config_file.read_settings(tmp_path) == today
  with _open(tmp_path, **today):
    pass


def test_nested_settings_of_a_search_that_were_renamed_are_known():
  old = {"search": {"rounds": 1, "late": 0.5}, "demand": {"trade": True}}
  assert identity.with_current_names(old) == {
    "search": {"rounds": 1, "max_pending": 0.5},
    "constraint": {"multi_objective": True},
  }


@pytest.mark.parametrize(
  ("name", "words"),
  [({"text": "t.zip"}, "the text of t.zip changed"), ({}, "the text changed")],
)
def test_data_that_differ_are_named_as_far_as_they_have_a_name(name, words):
  reason = identity.why_data_differ(name | {"corpus": 1}, name | {"corpus": 2})
  assert f"on other data: {words} since it began" in reason


@pytest.mark.parametrize("search", [{}, {"search.max_pending": 0.5}])
def test_a_task_of_ones_own_may_have_settings_of_the_old_names(
  tmp_path, search
):
  names = ("coding", "demand", "late", "demand.trade", "own.coding")
  own = search | {name: {"late": 1, "trade": 2} for name in names}
  for _ in range(2):
    with _open(tmp_path, **own):
      pass
  assert config_file.read_settings(tmp_path) == own


@pytest.mark.parametrize(
  ("checkpoints", "saved"),
  [
    (NEVER, [None, None, None]),
    (CheckpointConfig(minutes=1e9, steps=4), [None, 2, 2]),
    (CheckpointConfig(minutes=0.0), [1, 2, 3]),
  ],
)
def test_states_are_saved_when_it_is_time(tmp_path, checkpoints, saved):
  with _open(tmp_path, checkpoints=checkpoints) as journal:
    found = []
    for value in (1, 2, 3):
      journal.keep(_state(value), 2)
      found.append(_saved(tmp_path))
    assert found == saved
    journal.keep(_state(4), 2, last=True)
    assert _saved(tmp_path) == 4


@pytest.mark.parametrize(
  "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
)
def test_a_signal_saves_the_state_and_stops(tmp_path, number, capfd):
  before = signal.getsignal(number)
  with pytest.raises(
    Stopped, match="the same command resumes the run"
  ) as stopped:
    _work(tmp_path, _keep(_state(1)), _signal(number), _keep(_state(2)))
  assert stopped.value.signal == number
  assert _saved(tmp_path) == 2
  assert signal.getsignal(number) == before
  assert "stops after the running step" in capfd.readouterr().err


def test_progress_stops_too_and_loses_nothing_that_was_kept(tmp_path):
  with pytest.raises(Stopped):
    _work(
      tmp_path,
      _keep(_state(1)),
      _signal(signal.SIGTERM),
      lambda journal: journal.progress("score pool", 1, 2),
    )
  assert _saved(tmp_path) == 1


def test_a_second_ctrl_c_acts_at_once(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _work(tmp_path, _signal(signal.SIGINT), _signal(signal.SIGINT))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_shell_or_nohup_ignores_stays_ignored(tmp_path, number):
  before = signal.signal(number, signal.SIG_IGN)
  try:
    with _open(tmp_path) as journal:
      os.kill(os.getpid(), number)
      journal.keep(_state(1), 1)
  finally:
    signal.signal(number, before)


def test_a_signal_needs_no_stream(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, "__stderr__", None)
  with pytest.raises(Stopped):
    _work(tmp_path, _signal(signal.SIGHUP), _keep(_state(2)))
  assert _saved(tmp_path) == 2


def test_a_signal_needs_no_terminal(tmp_path, monkeypatch):
  gone = types.SimpleNamespace(fileno=lambda: os.open("/dev/full", os.O_WRONLY))
  monkeypatch.setattr(sys, "__stderr__", gone)
  with pytest.raises(Stopped):
    _work(tmp_path, _signal(signal.SIGHUP), _keep(_state(2)))
  assert _saved(tmp_path) == 2


def test_too_little_room_is_found_before_the_work(tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=30)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  with _open(tmp_path) as journal:
    # 12 bytes, for the ones that are kept and the one being written.
    with pytest.raises(UserError, match=r"checkpoints need .* are free"):
      journal.check_space(_state(1))
    usage.free = 36
    journal.check_space(_state(1))


@pytest.mark.parametrize(
  ("opened", "setting"),
  [(_open, "workdir"), (lambda x: Trials(x / "x.sqlite", "x", {}), "trials")],
)
def test_a_disk_without_locks_is_refused(
  opened, setting, tmp_path, monkeypatch
):
  def refused(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, "lockf", refused)
  with pytest.raises(UserError, match=f"`{setting}=.*locked: No locks avail"):
    opened(tmp_path)


def test_a_full_disk_is_said_in_a_line(tmp_path):
  with pytest.raises(
    UserError, match=r"No space left on device; .* resumes the run"
  ):
    _work(
      tmp_path,
      lambda journal: journal.rewind("round", 0),
      lambda journal: (tmp_path / "history.jsonl").unlink(),
      lambda journal: (tmp_path / "history.jsonl").symlink_to("/dev/full"),
      lambda journal: journal.report("round", {"round": 0}),
    )


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True
  )
  if mounted.returncode:
    pytest.skip("a file system can be mounted only by root")
  try:
    # One array: of several that fail, orbax waits for the first one, and
    # tensorstore tells its closed event loop of the others in another thread.
    noise = np.random.default_rng(0).normal(size=100_000)
    with pytest.raises(UserError, match="No space left on device"):
      _work(
        disk,
        _keep(_state(1), last=True),
        lambda _: (disk / "film").write_bytes(bytes(3_600_000)),
        _keep({"weights": noise}, last=True),
      )
    (disk / "film").unlink()
    assert _saved(disk) == 1
  finally:
    subprocess.run(["umount", disk], check=True)


def test_nothing_else_is_an_error_of_the_disk(tmp_path):
  with pytest.raises(ZeroDivisionError), _open(tmp_path):
    _ = 1 / 0


def test_a_folder_in_the_place_of_a_file_is_no_workdir(tmp_path):
  file = pathlib.Path(tmp_path / "file")
  file.write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    _open(file)


def test_reports_of_what_is_done_again_are_forgotten(tmp_path):
  with _open(tmp_path) as run:
    run.rewind("epoch", 0)
    for epoch in range(4):
      run.report("epoch", {"epoch": epoch, "loss": 1.0})
  with _open(tmp_path) as run:
    run.rewind("epoch", 2)
    run.report("epoch", {"epoch": 2, "loss": 2.0})
    found = [(row["epoch"], row["loss"]) for row in run.history()]
  assert found == [(0, 1.0), (1, 1.0), (2, 2.0)]
