"""What a search leaves on disk, and how it goes on from there.

config.json      every setting, seed, versions, git revision, command
pool.sqlite      architectures and their scores by round
history.jsonl    one line a round
events.*         the same for TensorBoard
checkpoints/     the state after the last rounds
final.json       test accuracies of the cells trained from scratch so far
best.json        the winner; it is written last, so it means: finished
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import sqlite3
import subprocess
import sys
import tempfile

from absl import logging
import jax
import numpy as np
import rich.console
import rich.table
import tensorboardX

from nao_jax import checkpoint
from nao_jax import pool as pools
from nao_jax.errors import UserError
from nao_jax.pool import Pool
from nao_jax.progress import Progress
from nao_jax.search import Journal, SearchState

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nao_jax")

_TABLES = """
create table if not exists architectures (
  id integer primary key, tokens text not null, origin integer not null,
  parent integer references architectures, step_size real, alive integer);
create table if not exists scores (
  architecture integer not null references architectures,
  round integer not null, score real not null,
  primary key (architecture, round));
delete from scores;
delete from architectures;
"""


class Workdir(Journal):
  """The journal of a search that can be lost at any moment.

  Attributes:
    path: the directory.
    progress: how the user sees how far it is.
  """

  def __init__(self, path: str | os.PathLike, settings: dict, rounds: int):
    """Takes the directory, or goes on in it.

    Args:
      path: created if it is not there.
      settings: JSON-like; what decides the result.
      rounds: of the whole search, for display.

    Raises:
      UserError: the directory cannot be written, or holds something else.
    """
    self.path = pathlib.Path(path)
    self.progress = Progress()
    self._rounds = rounds
    # Without a terminal rich assumes 80 columns, too few for a round's table.
    self._console = rich.console.Console(
      width=None if sys.stdout.isatty() else 140
    )
    _claim(self.path, settings)
    self._enter(0)

  def finished(self) -> dict | None:
    """The contents of best.json, if this search has ended."""
    file = self.path / "best.json"
    return json.loads(file.read_text()) if file.exists() else None

  def restore(self, template: SearchState) -> SearchState | None:
    """The state after the last whole round, if there was one."""
    state = checkpoint.restore(self.path / "checkpoints", template)
    done = 0 if state is None else int(state.round)
    # What a kill left behind of a round that is not in the checkpoint.
    rows = [row for row in self.history() if row["round"] < done]
    _write(self._history, "".join(json.dumps(row) + "\n" for row in rows))
    self._events = tensorboardX.SummaryWriter(str(self.path), purge_step=done)
    self._enter(done)
    if state is None:
      return None
    logging.info("resuming after round %d", done - 1)
    return state._replace(round=done)

  def save(self, state: SearchState, report: dict) -> None:
    """Writes everything about the round that just ended."""
    with self._history.open("a") as file:
      file.write(json.dumps(report) + "\n")
    write_pool(self.path / "pool.sqlite", state.pool)
    self._write_events(report)
    checkpoint.save(self.path / "checkpoints", state.round, state)
    self.print_round(report)
    self._enter(state.round)

  def final_accuracies(self) -> dict:
    """What `save_final` wrote: {cell: accuracies}."""
    file = self.path / "final.json"
    return json.loads(file.read_text()) if file.exists() else {}

  def save_final(self, accuracies: dict) -> None:
    """Remembers the trainings from scratch that are done."""
    _write(self.path / "final.json", json.dumps(accuracies, indent=2) + "\n")

  def finish(self, best: dict) -> None:
    """Writes the winner; from now on the search counts as finished."""
    _write(self.path / "best.json", json.dumps(best, indent=2) + "\n")

  def history(self) -> list[dict]:
    """The reports of all rounds."""
    if not self._history.exists():
      return []
    lines = self._history.read_text().splitlines(keepends=True)
    # A last line without an end was cut off by a kill; its round runs again.
    return [json.loads(line) for line in lines if line.endswith("\n")]

  def print_round(self, report: dict) -> None:
    """One table for one round."""
    table = rich.table.Table(
      title=f"round {report['round']} of {self._rounds}", title_justify="left"
    )
    cells = list(_cells(report))
    for name, _ in cells:
      table.add_column(name, justify="right")
    table.add_row(*(value for _, value in cells))
    self._console.print(table)

  @property
  def _history(self) -> pathlib.Path:
    return self.path / "history.jsonl"

  def _enter(self, round_: int) -> None:
    self.progress.prefix = f"round {round_} of {self._rounds}:"

  def _write_events(self, report: dict) -> None:
    for name, value in report.items():
      if isinstance(value, (int, float)) and name != "round":
        self._events.add_scalar(name, value, report["round"])
    self._events.flush()


def origin_text(origin: int) -> str:
  """Where an architecture came from, for people."""
  if origin == pools.GIVEN:
    return "given by --arch"
  return "the random pool" if origin == pools.RANDOM else f"round {origin}"


def write_pool(file: pathlib.Path, pool: Pool) -> None:
  """Replaces the contents of the database in one transaction."""
  rows = [
    (
      row,
      " ".join(map(str, pool.tokens[row])),
      int(pool.origins[row]),
      None if pool.parents[row] < 0 else int(pool.parents[row]),
      float(pool.step_sizes[row]) or None,
      int(pool.alive[row]),
    )
    for row in range(len(pool.tokens))
  ]
  scored = np.argwhere(~np.isnan(pool.scores))
  scores = [(int(a), int(r), float(pool.scores[a, r])) for a, r in scored]
  with contextlib.closing(sqlite3.connect(file)) as database, database:
    for statement in filter(str.strip, _TABLES.split(";")):
      database.execute(statement)
    database.executemany(
      "insert into architectures values (?, ?, ?, ?, ?, ?)", rows
    )
    database.executemany("insert into scores values (?, ?, ?)", scores)


def _cells(report: dict):
  yield "pool best", f"{report['best']:.4f}"
  yield "pool mean", f"{report['mean']:.4f}"
  yield "best is from", origin_text(report["best_origin"])
  if "kendall_tau" in report:
    held_out = report["held_out"]
    yield (
      f"pairwise ({held_out} held out)",
      f"{report['pairwise_accuracy']:.3f}",
    )
    yield "Kendall tau", f"{report['kendall_tau']:.3f}"
    exact = report["exact_reconstruction"]
    yield "exactly rebuilt", f"{exact:.3f}"
    yield "up to swaps", f"{report['equivalent_reconstruction']:.3f}"
    yield "new by step", _by_step_size(report["new_by_step_size"])
  if "new" in report:
    yield "accepted", str(report["new"])


def _by_step_size(counts: list[int]) -> str:
  """Counts of neighbouring step sizes, summed to at most six groups."""
  width = -(-len(counts) // 6)
  groups = range(0, len(counts), width)
  return "  ".join(
    f"{start + 1}-{min(start + width, len(counts))}: "
    f"{sum(counts[start : start + width])}"
    for start in groups
  )


def _claim(path: pathlib.Path, settings: dict) -> None:
  """Makes sure that the directory is ours: new, or of the same settings."""
  file = path / "config.json"
  try:
    path.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path).close()
    if not file.exists():
      _refuse_foreign(path)
      _write(file, json.dumps(_config(settings), indent=2) + "\n")
    text = file.read_text()
  except OSError as error:
    raise UserError(
      f"--workdir={path}: cannot be written ({error.strerror}); give another"
    ) from error
  there = _settings(file, text)
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


def _settings(file: pathlib.Path, text: str) -> dict:
  try:
    return dict(json.loads(text)["settings"])
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{file}: damaged; remove it or give another --workdir"
    ) from error


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


def _write(file: pathlib.Path, text: str) -> None:
  """All of it or nothing."""
  temporary = file.with_suffix(".partial")
  temporary.write_text(text)
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
