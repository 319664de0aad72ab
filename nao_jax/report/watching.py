"""View of a run from another process, at any moment.

Files are only read, and the lock is not touched.
"""

import dataclasses
import math
import os
import pathlib
import time

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nao_jax.errors import UserError
from nao_jax.metrics import SCORE, Measure
from nao_jax.report import run as runs
from nao_jax.runs import lock, paths, status
from nao_jax.runs.config_file import read_settings
from nao_jax.runs.lock import Holder
from nao_jax.runs.progress import clock
from nao_jax.tasks import known

# Number of last rounds or epochs that are shown.
ROWS = 12
_COUNT, _NUMBER = "{:.0f}".format, "{:.4g}".format
# Columns in this order: {name in history.jsonl: (heading, format)}; scores are
# shown in the metric of the run.
_COLUMNS = {
  "round": ("round", _COUNT),
  "best": ("best", None),
  "mean": ("mean", None),
  "mean_of_newest": ("mean of proposals", None),
  "pairwise_accuracy": ("pairwise accuracy", _NUMBER),
  "kendall_tau": ("Kendall's tau", _NUMBER),
  "new": ("accepted", _COUNT),
  "random": ("random", _COUNT),
  "score_seconds": ("to score", clock),
  "propose_seconds": ("to propose", clock),
  "epoch": ("epoch", _COUNT),
  "loss": ("training loss", _NUMBER),
  "learning_rate": ("learning rate", _NUMBER),
  "validation_error": ("validation error", _NUMBER),
  "validation_perplexity": ("validation perplexity", _NUMBER),
  "images_per_second": ("images/s", _NUMBER),
  "words_per_second": ("words/s", _NUMBER),
}
_RESULTS = ("best.json", "result.json")
# Settings in the title.
_SHOWN = ("strategy", "evaluator", "dataset", "text", "arch", "seed")


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """State of a run at one moment.

  Attributes:
    path: its directory.
    settings: the settings, flat.
    holder: the last process that took the directory; None if there was none.
    ended: whether its result is written.
    status: contents of status.json; may be empty.
    history: reports of rounds or epochs.
  """

  path: pathlib.Path
  settings: dict
  holder: Holder | None
  ended: bool
  status: dict
  history: list[dict]

  @property
  def running(self) -> bool:
    """True if a process is running it, as far as can be determined."""
    if self.ended or self.holder is None:
      return False
    if self.holder.at_work is None:
      return self.status.get("state") == "running"
    return self.holder.at_work

  @property
  def measure(self) -> Measure:
    """Measure of a search's scores."""
    try:
      return known.of(self.settings).measure
    except KeyError:
      return SCORE


def snapshot(path: str | os.PathLike) -> Snapshot:
  """Takes a snapshot of a directory.

  Raises:
    UserError: there is no run, or its settings are damaged.
  """
  path = paths.expanded(path)
  settings, holder = read_settings(path), lock.holder(path)
  try:
    history = runs.history(path)
  except UserError:  # The run itself reports the damage.
    history = []
  return Snapshot(
    path=path,
    settings=settings,
    holder=holder,
    ended=any((path / name).exists() for name in _RESULTS),
    status=_status(path, holder),
    history=history,
  )


def _status(path: pathlib.Path, holder: Holder | None) -> dict:
  """Returns the status; its sums alone if it predates the running process."""
  found = status.read(path)
  if holder is None or not holder.at_work:
    return found
  current = found.get("process") in (None, holder.process)
  return found if current else {"seconds": found.get("seconds")}


def render(snapshot: Snapshot) -> RenderableType:
  """Renders a snapshot for a terminal, at most a screen long."""
  parts = [
    Text(_printable(_title(snapshot)), style="bold"),
    Text(_printable(_state(snapshot))),
  ]
  if snapshot.status and not snapshot.ended:
    parts += _progress(snapshot)
  if snapshot.history:
    parts.append(_table(snapshot))
  if seconds := status.seconds_of(snapshot.status):
    parts.append(Text(_printable(_phases(seconds)), style="dim"))
  return Group(*parts)


def _title(snapshot: Snapshot) -> str:
  settings = {
    name.rpartition(".")[2]: value for name, value in snapshot.settings.items()
  }
  shown = [
    f"{name} {settings[name]}"
    for name in _SHOWN
    if settings.get(name) not in (None, "", [])
  ]
  return f"{snapshot.path}: {', '.join(shown)}"


def _state(snapshot: Snapshot) -> str:
  """Describes the state, the process and the age of the last update."""
  if snapshot.ended:
    return "finished"
  holder = snapshot.holder
  if holder is None:
    return "not started, or started by another version of this program"
  process = f"process {holder.process} on {holder.host}"
  if snapshot.running:
    source = "" if holder.at_work else ", according to its last update"
    return f"running{source}: {process}{_last_update(snapshot)}"
  state = str(snapshot.status.get("state", ""))
  if state in ("", "running"):
    state = f"killed or lost; it was {process}"
  return f"not running: {state}; the same command resumes it"


def _last_update(snapshot: Snapshot) -> str:
  """Describes the age of the last update if it is more than 5 seconds."""
  written = _number(snapshot.status.get("time"))
  if written is None:
    return ", no update yet"
  age = max(time.time() - written, 0.0)
  # A call that compiles, or a single step, may take minutes.
  return f", last update {clock(age)} ago" if age > 5 else ""


def _progress(snapshot: Snapshot) -> list[RenderableType]:
  """Renders the phase, its progress and the best so far."""
  found = snapshot.status
  title = f"{found.get('prefix', '')} {found.get('phase', '')}".strip()
  done, total = (_number(found.get(name)) for name in ("done", "total"))
  if done is None or total is None:
    return []
  notes = [f"{done:,} of {total:,}"]
  left = _number(found.get("left"))
  if snapshot.running and left:
    notes.append(f"{clock(left)} left of this phase")
  notes += [str(found[name]) for name in ("rate", "note") if found.get(name)]
  grid = Table.grid(padding=(0, 1))
  grid.add_column(no_wrap=True)
  bar = ProgressBar(total=max(total, 1), completed=done, width=24)
  grid.add_row(Text(_printable(title)), bar, Text(_printable(", ".join(notes))))
  parts = [grid]
  if found.get("best"):
    parts.append(Text(f"best so far: {_printable(found['best'])}"))
  return parts + _rounds_left(snapshot)


def _rounds_left(snapshot: Snapshot) -> list[RenderableType]:
  """Estimates the time of the remaining rounds from the mean so far."""
  rounds = _number(snapshot.settings.get("search.rounds"))
  times = [
    sum(
      _number(row.get(name)) or 0.0
      for name in ("score_seconds", "propose_seconds")
    )
    for row in snapshot.history
    if "round" in row
  ]
  if rounds is None or not times or not snapshot.running:
    return []
  left, mean = rounds + 1 - len(times), sum(times) / len(times)
  if left <= 0:
    return []
  return [
    Text(
      f"{clock(mean)} a round on average; {left} of {rounds + 1} are left, "
      f"about {clock(mean * left)}, and the trainings after them"
    )
  ]


def _table(snapshot: Snapshot) -> Table:
  """Tabulates the last rounds or epochs."""
  shown = snapshot.history[-ROWS:]
  earlier = len(snapshot.history) - len(shown)
  names = [name for name in _COLUMNS if any(name in row for row in shown)]
  table = Table(
    title=f"the last {ROWS}, after {earlier} earlier ones" if earlier else None,
    title_justify="left",
  )
  for name in names:
    heading, form = _COLUMNS[name]
    metric = "" if form else f" {snapshot.measure.name}"
    table.add_column(f"{heading}{metric}", justify="right")
  for row in shown:
    cells = [_cell(snapshot, name, row.get(name)) for name in names]
    if cells and "stage" in row:  # A report from after the rounds.
      cells[0] = _printable(row["stage"])
    table.add_row(*cells)
  return table


def _cell(snapshot: Snapshot, name: str, value) -> str:
  number = _number(value)
  if number is None:
    return ""
  _, form = _COLUMNS[name]
  return (form or snapshot.measure.show)(number)


def _phases(seconds: dict[str, list[float]]) -> str:
  times = [f"{phase} {clock(total)}" for phase, (total, _) in seconds.items()]
  compiling = sum(compiled for _, compiled in seconds.values())
  return f"time: {', '.join(times)}; {clock(compiling)} of it compiling"


def _number(value) -> float | None:
  """Returns the value if it is a finite number; files may hold anything."""
  if type(value) not in (int, float):
    return None
  try:
    return value if math.isfinite(value) else None
  except OverflowError:
    return None


def _printable(value) -> str:
  """Replaces unprintable characters, which a terminal would obey."""
  return "".join(x if x.isprintable() else "?" for x in str(value))
