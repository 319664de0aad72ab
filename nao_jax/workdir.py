"""What a run leaves on disk, and how it stops and goes on from there.

config.json      every setting, seed, versions, git revision, command
history.jsonl    one line a round or an epoch
events.*         the same for TensorBoard
checkpoints/     the last states
best.json, or    the outcome; it is written last, so it means: finished
result.json
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import jax
import tensorboardX

from nao_jax import checkpoint, lock
from nao_jax.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.errors import Stopped, UserError, storage_fault
from nao_jax.interruption import Interruption
from nao_jax.progress import Progress

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nao_jax")


class Workdir:
  """A directory that holds one run, which can be lost at any moment.

  Use it as a context manager: no other process gets in, Ctrl-C and SIGTERM wait
  until the state is saved, a progress bar gives the terminal back, and a full
  disk is a UserError.

  Attributes:
    path: the directory.
    progress: how the user sees how far it is; raises Stopped, as `keep`.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    settings: dict,
    outcome: str,
    checkpoints: CheckpointConfig = DEFAULT,
  ):
    """Takes the directory, or goes on in it.

    Args:
      path: created if it is not there.
      settings: JSON-like; what decides the result.
      outcome: name of the file that is written last.
      checkpoints: when `keep` saves.

    Raises:
      UserError: the directory cannot be written, holds something else, or
        another process works there.
    """
    self.path = pathlib.Path(path)
    self._outcome = self.path / outcome
    self._config = checkpoints
    self._kept, self._steps, self._saved_at = None, 0, time.monotonic()
    self._interruption = Interruption()
    self.progress = Progress(before=self._stop_if_asked)
    with contextlib.ExitStack() as stack:
      stack.enter_context(_claim(self.path))
      _write_or_compare(self.path, settings)
      self._held = stack.pop_all()

  def __enter__(self) -> "Workdir":
    self._held.enter_context(self._interruption)
    self._held.callback(self.progress.close)
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._held.close()
    if fault := storage_fault(error):
      raise UserError(
        f"--workdir={self.path}: {fault}; what was saved before is safe: when "
        "that is mended, the same command goes on"
      ) from error

  def check_space(self, state) -> None:
    """Raises UserError if there is no room for checkpoints of such a state."""
    needed = checkpoint.bytes_on_disk(state)
    free = shutil.disk_usage(self.path).free
    if free < needed:
      raise UserError(
        f"--workdir={self.path}: checkpoints need {needed / 1e6:.0f} MB, and "
        f"{free / 1e6:.0f} MB are free; make room or give another directory"
      )

  def keep(self, state, steps: int, *, last: bool = False) -> None:
    """Saves a state if it is time to.

    Args:
      state: a pytree of arrays, from which the run can go on; until the next
        call of `keep` or `progress` its arrays stay as they are.
      steps: how many were done since the last call.
      last: save it in any case.

    Raises:
      Stopped: somebody asked to stop; the state is saved.
    """
    self._kept = state
    self._steps += steps
    minutes = (time.monotonic() - self._saved_at) / 60
    due = minutes >= self._config.minutes
    due |= 0 < self._config.steps <= self._steps
    if due or last:
      self._save()
    self._stop_if_asked()

  def _save(self) -> None:
    checkpoint.save(self.checkpoints, self._kept)
    self._kept, self._steps, self._saved_at = None, 0, time.monotonic()

  def _stop_if_asked(self) -> None:
    if self._interruption.signal is None:
      return
    if self._kept is not None:
      self._save()
    raise Stopped(
      f"stopped; all is saved in {self.path}, and the same command goes on",
      self._interruption.signal,
    )

  @property
  def checkpoints(self) -> pathlib.Path:
    """Where the states are."""
    return self.path / "checkpoints"

  def finished(self) -> dict | None:
    """The outcome, if this run has ended."""
    if not self._outcome.exists():
      return None
    return json.loads(self._outcome.read_text())

  def finish(self, outcome: dict) -> None:
    """Writes the outcome; from now on the run counts as finished."""
    write(self._outcome, json.dumps(outcome, indent=2) + "\n")

  def history(self) -> list[dict]:
    """All reports."""
    if not self._history.exists():
      return []
    lines = self._history.read_text().splitlines(keepends=True)
    # A last line without an end was cut off by a kill; its work is done again.
    return [json.loads(line) for line in lines if line.endswith("\n")]

  def rewind(self, axis: str, position: int) -> None:
    """Forgets the reports of work that is not in the restored state.

    Args:
      axis: the entry of a report that counts: `round` or `epoch`.
      position: the first one to forget.
    """
    rows = [row for row in self.history() if row[axis] < position]
    write(self._history, "".join(json.dumps(row) + "\n" for row in rows))
    self._events = tensorboardX.SummaryWriter(
      str(self.path), purge_step=position
    )

  def report(self, axis: str, report: dict) -> None:
    """Appends a report; its numbers go to TensorBoard, too.

    Args:
      axis: the entry that is TensorBoard's step.
      report: JSON-like.
    """
    with self._history.open("a") as file:
      file.write(json.dumps(report) + "\n")
    for name, value in report.items():
      if isinstance(value, (int, float)) and name != axis:
        self._events.add_scalar(name, value, report[axis])
    self._events.flush()

  @property
  def _history(self) -> pathlib.Path:
    return self.path / "history.jsonl"


def read_settings(path: str | os.PathLike) -> dict:
  """The settings of the run in a directory.

  Raises:
    UserError: there is none.
  """
  file = pathlib.Path(path) / "config.json"
  try:
    return _settings(file)
  except OSError as error:
    raise UserError(
      f"--workdir={path}: no run there ({file}: {error.strerror})"
    ) from error


def _claim(path: pathlib.Path) -> lock.Lock:
  """Takes the directory, which is made if it is not there."""
  try:
    path.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(path)
    return lock.Lock(path, f"--workdir={path}")
  except OSError as error:
    raise UserError(
      f"--workdir={path}: cannot be written ({error.strerror}); give another"
    ) from error


def _write_or_compare(path: pathlib.Path, settings: dict) -> None:
  """Makes sure that the directory is new, or of the same settings."""
  file = path / "config.json"
  if not file.exists():
    write(file, json.dumps(_config(settings), indent=2) + "\n")
  there = _settings(file)
  differences = [
    f"{name} is {there.get(name)!r} there and {settings.get(name)!r} here"
    for name in sorted({*there, *settings})
    if there.get(name) != settings.get(name)
  ]
  if differences:
    raise UserError(
      f"--workdir={path}: holds another run ({'; '.join(differences[:4])}); "
      "give the same flags to resume it, or another --workdir"
    )


def _settings(file: pathlib.Path) -> dict:
  try:
    return dict(json.loads(file.read_text())["settings"])
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{file}: damaged; give another --workdir") from error


def _refuse_foreign(path: pathlib.Path) -> None:
  names = {file.name for file in path.iterdir() if file.suffix != ".partial"}
  if "config.json" not in names and names - {lock.NAME}:
    raise UserError(
      f"--workdir={path}: holds files but no config.json, so it is no run to "
      "resume; give an empty or a new directory"
    )


def _config(settings: dict) -> dict:
  return {
    "settings": settings,
    "command": [sys.executable, *sys.orig_argv[1:]],
    "versions": {name: _version(name) for name in _PACKAGES}
    | {"python": platform.python_version()},
    "devices": [device.device_kind for device in jax.local_devices()],
    "git": _git_revision(),
  }


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def _git_revision() -> str | None:
  """Of this source, where it is a checkout."""
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    return subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  return None


def write(file: pathlib.Path, text: str) -> None:
  """Replaces the text of a file: all of it or nothing."""
  write_bytes(file, text.encode())


def write_bytes(file: pathlib.Path, content: bytes) -> None:
  """Replaces the content of a file: all of it or nothing."""
  temporary = file.with_name(f".{file.name}.partial")
  temporary.write_bytes(content)
  os.replace(temporary, file)


def flatten(config) -> dict:
  """Nested dataclasses as one level of JSON-like settings."""
  settings = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      settings |= {f"{field.name}.{k}": v for k, v in flatten(value).items()}
    else:
      settings[field.name] = list(value) if isinstance(value, tuple) else value
  return settings


def unflatten(config_class: type, settings: dict, prefix: str = ""):
  """The inverse of `flatten`."""
  values = {}
  for field in dataclasses.fields(config_class):
    name = f"{prefix}{field.name}"
    if dataclasses.is_dataclass(field.type):
      values[field.name] = unflatten(field.type, settings, f"{name}.")
    else:
      value = settings[name]
      values[field.name] = tuple(value) if isinstance(value, list) else value
  return config_class(**values)
