"""The files of a search that is running, was stopped, or has ended.

Files are only read, without a lock: writers replace them atomically, and a last
line of history.jsonl that is still being written is skipped. Damaged or missing
files are left out, and the report says so.

Shapes: A architectures (all that ever were in the pool), L tokens, N members of
the pool in a round, M proposals of a round, R trainings of a cell.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import zipfile
import zlib

import numpy as np

from nao_jax.errors import UserError
from nao_jax.pool import Pool
from nao_jax.runs import paths, status
from nao_jax.runs.workdir import read_settings
from nao_jax.tasks import known
from nao_jax.tasks.task import Cells, CellsOf

# Errors of np.load for a file that is no archive, or half of one.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
# Errors that values of unexpected types raise.
_WRONG = (ValueError, TypeError, AttributeError, IndexError)
_FINAL = ("searched", "random")


@dataclasses.dataclass(frozen=True)
class Run:
  """The contents of a search's directory.

  Attributes:
    path: the directory.
    cells: the kind of cells that were searched, with the settings.
    config: the rest of config.json: command, versions, devices, git.
    history: the reports of the rounds, without gaps.
    pool: every architecture in plain tokens, with scores of all rounds so far;
      None before the first round has ended.
    arrays: {round: arrays that the strategy saved}.
    best: contents of best.json; None for a search that has not ended.
    finalists: the finalists in best.json, {"searched" or "random": entries},
      best first; empty where none were trained.
    compared: results of the comparison, {"searched" or "random": [cells, R]};
      None stands for a training that diverged.
    seconds: {phase: [seconds, seconds of them in which jax compiled]}; empty
      where no time was recorded.
    missing: sentences about what could not be read.
  """

  path: pathlib.Path
  cells: Cells
  config: dict
  history: list[dict]
  pool: Pool | None
  arrays: dict[int, dict[str, np.ndarray]]
  best: dict | None
  finalists: dict[str, list[dict]]
  compared: dict[str, list]
  seconds: dict[str, list[float]]
  missing: list[str]

  @property
  def settings(self) -> dict:
    """The settings of the search, flat."""
    return self.cells.settings

  @property
  def scored(self) -> list[int]:
    """The rounds that have scores, in order."""
    if self.pool is None:
      return []
    some = ~np.isnan(self.pool.scores).all(0)
    return np.flatnonzero(some).tolist()

  @property
  def winner(self) -> int:
    """The row of the best finalist, else of the best in the last round."""
    if self.finalists:
      return self.finalists["searched"][0]["row"]
    return int(self.pool.ranked(self.scored[-1])[0])

  def members(self, round_: int) -> np.ndarray:
    """Returns the rows that were in the pool in a round, int [N]."""
    return np.flatnonzero(~np.isnan(self.pool.scores[:, round_]))

  def proposals(self, round_: int) -> np.ndarray:
    """Returns the rows that a round proposed for the next one, int [M]."""
    return np.flatnonzero(self.pool.origins == round_ + 1)


def read(
  path: str | os.PathLike, where: str = "workdir", cells_of: CellsOf = known.of
) -> Run:
  """Reads the directory of a search.

  Args:
    path: the directory.
    where: the argument that named it, for messages.
    cells_of: returns the kind of cells that settings are for.

  Raises:
    UserError: there is no search, or its settings or its pool are damaged.
  """
  path = paths.expanded(path)
  cells = _cells(read_settings(path, where), f"`{where}={path}`", cells_of)
  config = json.loads((path / "config.json").read_text())
  history, missing = _history(path / "history.jsonl"), []
  best = _object(path / "best.json", missing)
  pool = _pool(path / "pool.sqlite", cells)
  final = best or _object(path / "final.json", missing) or {}
  return Run(
    path=path,
    cells=cells,
    config={name: config.get(name) for name in config if name != "settings"},
    history=history,
    pool=pool,
    arrays=_all_arrays(path / "rounds", history, missing),
    best=best,
    finalists=_finalists(final, cells, pool, missing),
    compared=_compared(final, cells),
    seconds=status.seconds_of(status.read(path)),
    missing=missing,
  )


def _cells(settings: dict, place: str, cells_of: CellsOf) -> Cells:
  """Returns the kind of cells, with all that a report needs of the settings."""
  try:
    for name in ("search.rounds", "strategy", "evaluator", "seed"):
      settings[name]
    cells = cells_of(settings)
    _ = cells.space, cells.data
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{place}: holds no search of this version (setting {error} is not "
      "there); give the workdir of search_cnn or search_rnn"
    ) from error
  return cells


def _history(file: pathlib.Path) -> list[dict]:
  """Reads the reports of rounds 0, 1 .. as far as they were written."""
  if not file.exists():
    return []
  rows = []
  for number, line in enumerate(file.read_text().splitlines(keepends=True), 1):
    if not line.endswith("\n"):
      break  # It is being written.
    try:
      row = json.loads(line)
      if "stage" not in row:  # What comes after the rounds.
        rows[row["round"] :] = [row]
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(
        f"{file}: line {number} is damaged; start the search again: it goes on "
        "from its checkpoints"
      ) from error
  return rows


def _object(file: pathlib.Path, missing: list[str]) -> dict | None:
  if not file.exists():
    return None
  try:
    return dict(json.loads(file.read_text()))
  except (OSError, ValueError, TypeError):
    missing.append(f"{file.name} is damaged and left out.")
    return None


def _finalists(final, cells, pool, missing) -> dict[str, list[dict]]:
  """Returns the finalists if any were trained; empty if an entry is damaged."""
  found, name = final.get("finalists"), f"validation_{cells.measure.name}"
  if not found:
    return {}
  try:
    entries = {group: list(map(dict, found[group])) for group in _FINAL}
    for group, rows in entries.items():
      for entry in rows:
        float(np.float64(entry[name])), int(entry["rank"])
        list(map(float, entry["curve"])), str(entry["text"])
        if group == "searched":
          pool.tokens[entry["row"]], int(entry["place"])
    _ = entries["searched"][0]
  except (*_WRONG, KeyError):
    missing.append("What is said of the finalists is damaged and left out.")
    return {}
  return entries


def _compared(final: dict, cells) -> dict[str, list]:
  """Returns the results of the comparison so far."""
  found = final.get(f"test_{cells.measure.name}") or {}
  return {name: found[name] for name in _FINAL if found.get(name)}


def _pool(file: pathlib.Path, cells: Cells) -> Pool | None:
  """Reads the database as a pool in plain tokens; None if there is no file."""
  if not file.exists():
    return None
  # Read-only, so that SQLite creates no files beside it.
  source = f"{file.absolute().as_uri()}?mode=ro"
  try:
    with contextlib.closing(sqlite3.connect(source, uri=True)) as database:
      rows = database.execute(
        "select tokens, origin, parent, step_size, alive from architectures"
        " order by id"
      ).fetchall()
      scores = database.execute(
        "select architecture, round, score from scores"
      ).fetchall()
    return _table(file, cells, rows, scores) if scores else None
  except UserError:
    raise
  except (sqlite3.Error, *_WRONG) as error:
    raise UserError(
      f"{file}: cannot be read ({error}); start the search again: it goes on "
      "from its checkpoints"
    ) from error


def _table(file, cells, rows, scores) -> Pool:
  tokens = [
    cells.space.validate(list(map(int, text.split())), f"{file}: row {number}")
    for number, (text, *_) in enumerate(rows)
  ]
  origins, parents, step_sizes, alive = zip(
    *(row[1:] for row in rows), strict=True
  )
  rounds = 1 + max(round_ for _, round_, _ in scores)
  table = np.full((len(rows), rounds), np.nan)
  for architecture, round_, score in scores:
    table[architecture, round_] = score
  return Pool(
    tokens=cells.space.to_plain(np.array(tokens, np.int32)),
    origins=np.array(origins, np.int32),
    parents=np.array([-1 if p is None else p for p in parents], np.int32),
    step_sizes=np.array([size or 0 for size in step_sizes], np.float32),
    alive=np.array(alive, bool),
    scores=table,
  )


def _all_arrays(
  folder: pathlib.Path, history: list[dict], missing: list[str]
) -> dict[int, dict[str, np.ndarray]]:
  """Reads the arrays of the rounds in `history`.

  Files of other rounds are left over from before an interruption.
  """
  found = {}
  for round_ in (row["round"] for row in history):
    file = folder / f"{round_:04d}.npz"
    if not file.exists():
      continue
    try:
      # np.load does not close a file that it cannot read.
      with file.open("rb") as content:
        archive = np.load(content, allow_pickle=False)
        found[round_] = {name: archive[name] for name in archive.files}
    except (*_DAMAGED, zlib.error):
      missing.append(f"{folder.name}/{file.name} is damaged and left out.")
  return found
