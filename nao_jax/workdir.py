"""What a run leaves on disk, and how it goes on from there.

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
import subprocess
import sys
import tempfile

import jax
import tensorboardX

from nao_jax.errors import UserError
from nao_jax.progress import Progress

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nao_jax")


class Workdir:
  """A directory that holds one run, which can be lost at any moment.

  Attributes:
    path: the directory.
    progress: how the user sees how far it is.
  """

  def __init__(self, path: str | os.PathLike, settings: dict, outcome: str):
    """Takes the directory, or goes on in it.

    Args:
      path: created if it is not there.
      settings: JSON-like; what decides the result.
      outcome: name of the file that is written last.

    Raises:
      UserError: the directory cannot be written, or holds something else.
    """
    self.path = pathlib.Path(path)
    self.progress = Progress()
    self._outcome = self.path / outcome
    _claim(self.path, settings)

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


def _claim(path: pathlib.Path, settings: dict) -> None:
  """Makes sure that the directory is ours: new, or of the same settings."""
  file = path / "config.json"
  try:
    path.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path).close()
    if not file.exists():
      _refuse_foreign(path)
      write(file, json.dumps(_config(settings), indent=2) + "\n")
    there = _settings(file)
  except OSError as error:
    raise UserError(
      f"--workdir={path}: cannot be written ({error.strerror}); give another"
    ) from error
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
  if any(file.suffix != ".partial" for file in path.iterdir()):
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
