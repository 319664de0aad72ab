"""Reading of the files of a search that runs, was stopped, or has ended.

Files are only read, without a lock: writers replace them atomically, and a last
line of history.jsonl that is still being written is skipped. Damaged or missing
files are left out, and the report says so.

Shapes: A architectures (all that ever were in the pool), L tokens, N members of
the pool in a round, M proposals of a round, R trainings of a cell.
"""

import dataclasses
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np

from nao_jax.errors import UserError
from nao_jax.pool import Pool
from nao_jax.runs import json_file, paths, status
from nao_jax.runs.config_file import read_settings
from nao_jax.search import pool_file, round_files
from nao_jax.tasks import known
from nao_jax.tasks.task import Cells, CellsOf

# Errors that values of unexpected types raise.
_WRONG = (ValueError, TypeError, AttributeError, IndexError)
_GROUPS = ("searched", "random")
_ADVICE = "start the search again: it resumes from its checkpoints"


class Finalist(NamedTuple):
  """A cell that was trained from scratch to determine the winner.

  Attributes:
    rank: rank after training, from 1, among all finalists.
    place: place among the search's scores, from 1; None for a random cell and
      for one that was proposed from trainings of others.
    row: its row in the pool; None for a random cell.
    value: validation measurement of its last training that did not diverge; NaN
      without one.
    curve: the same after each epoch.
    tokens: the architecture in plain tokens; empty if it was not saved.
    stages: epochs and validation measurement of each training, if there were
      several.
  """

  rank: int
  place: int | None
  row: int | None
  value: float
  curve: list[float]
  tokens: list[int]
  stages: tuple[tuple[int, float], ...] = ()

  @property
  def first(self) -> float:
    """The measurement of the first training, which all finalists have."""
    return self.stages[0][1] if self.stages else self.value


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
    finalists: {"searched" or "random": finalists, best first}; empty where none
      were trained.
    compared: results of the final comparison, {"searched" or "random":
      [cells, R]}; None stands for a training that diverged.
    seconds: {phase: [seconds, seconds of them in which jax compiled]}; empty
      where no time was recorded.
    missing: sentences about files that could not be read.
  """

  path: pathlib.Path
  cells: Cells
  config: dict
  history: list[dict]
  pool: Pool | None
  arrays: dict[int, dict[str, np.ndarray]]
  best: dict | None
  finalists: dict[str, list[Finalist]]
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
    return np.flatnonzero(self.pool.counts).tolist()

  @property
  def winner(self) -> int:
    """The row of the best finalist, else of the best in the last round."""
    if self.finalists:
      return self.finalists["searched"][0].row
    return int(self.pool.ranked(self.scored[-1])[0])

  def members(self, round_: int) -> np.ndarray:
    """Returns the rows that were in the pool in a round, int [N]."""
    return self.pool.in_round(round_)[0]

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
    cells_of: returns the kind of cells for the settings of a search.

  Raises:
    UserError: there is no search, or its settings or its pool are damaged.
  """
  path, missing = paths.expanded(path), []
  cells = _cells(read_settings(path, where), f"`{where}={path}`", cells_of)
  config = json.loads((path / "config.json").read_text())
  rounds = _rounds(path)
  best = _object(path / "best.json", missing)
  pool = pool_file.read(path / "pool.sqlite", cells.space)
  final = best or _object(path / "final.json", missing) or {}
  compared = final.get(f"test_{cells.measure.name}") or {}
  return Run(
    path=path,
    cells=cells,
    config={name: config.get(name) for name in config if name != "settings"},
    history=rounds,
    pool=pool,
    arrays=_arrays(path, rounds, missing),
    best=best,
    finalists=_finalists(final, cells.measure.name, pool, missing),
    compared={x: compared[x] for x in _GROUPS if compared.get(x)},
    seconds=status.seconds_of(status.read(path)),
    missing=missing,
  )


def history(path: pathlib.Path) -> list[dict]:
  """Returns the complete lines of history.jsonl; none if there is no file.

  Raises:
    UserError: a line is damaged.
  """
  file = path / "history.jsonl"
  if not file.exists():
    return []
  return json_file.read_lines(file, wanted="a report", advice=_ADVICE)


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


def _rounds(path: pathlib.Path) -> list[dict]:
  """Returns the last report of each of the rounds 0, 1 .."""
  rounds = []
  for row in history(path):
    if "stage" in row:  # A training after the rounds.
      continue
    try:
      rounds[row["round"] :] = [row]
    except (KeyError, TypeError) as error:
      raise UserError(
        f"{path / 'history.jsonl'}: a report names no round; {_ADVICE}"
      ) from error
  return rounds


def _object(file: pathlib.Path, missing: list[str]) -> dict | None:
  if not file.exists():
    return None
  try:
    return json_file.read(file, place=str(file), wanted="a result", advice="")
  except UserError:
    missing.append(f"{file.name} is damaged and left out.")
    return None


def _finalists(final, metric, pool, missing) -> dict[str, list[Finalist]]:
  """Returns the finalists if any were trained; empty if an entry is damaged."""
  found = final.get("finalists")
  if not found:
    return {}

  def finalist(entry, group) -> Finalist:
    place, row = None, None
    if group == "searched":
      place, row = entry["place"], int(entry["row"])
      pool.tokens[row]
    return Finalist(
      int(entry["rank"]), place, row,
      _measured(entry[f"validation_{metric}"]),
      list(map(float, entry["curve"])), list(entry.get("tokens", ())),
      tuple((int(n), _measured(x)) for n, x in entry.get("stages", ())),
    )  # fmt: skip

  try:
    finalists = {x: [finalist(y, x) for y in found[x]] for x in _GROUPS}
    _ = finalists["searched"][0]
  except (*_WRONG, KeyError):
    missing.append("The list of finalists is damaged and left out.")
    return {}
  return finalists


def _measured(value: float | None) -> float:
  return float("nan") if value is None else float(value)


def _arrays(
  path: pathlib.Path, rounds: list[dict], missing: list[str]
) -> dict[int, dict[str, np.ndarray]]:
  """Reads the arrays of these rounds.

  Files of other rounds are left over from before an interruption.
  """
  found = {}
  for round_ in (row["round"] for row in rounds):
    try:
      found[round_] = round_files.read(path / "rounds", round_)
    except UserError as error:
      missing.append(f"{error} and left out.")
  return found
