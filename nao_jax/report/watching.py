"""View of a run from another process, at any moment.

It only reads files, and does not touch the lock.
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
from nao_jax.runs import json_file, lock, paths, status
from nao_jax.runs.lock import Holder
from nao_jax.runs.progress import clock
from nao_jax.runs.workdir import read_settings
from nao_jax.tasks import known

# Number of last rounds or epochs that are shown.
ROWS = 12
# Columns in this order: {name in history.jsonl: heading}.
_COLUMNS = {
  "round": "round",
  "best": "best",
  "mean": "mean",
  "mean_of_newest": "mean of the new",
  "pairwise_accuracy": "pairwise",
  "kendall_tau": "Kendall's tau",
  "new": "accepted",
  "random": "random",
  "score_seconds": "to score",
  "propose_seconds": "to propose",
  "epoch": "epoch",
  "loss": "training loss",
  "learning_rate": "learning rate",
  "validation_error": "validation error",
  "validation_perplexity": "validation perplexity",
  "images_per_second": "images/s",
  "words_per_second": "words/s",
}
_SCORES = ("best", "mean", "mean_of_newest")
_WHOLE = ("round", "epoch", "new", "random")
_SECONDS = ("score_seconds", "propose_seconds")
_OUTCOMES = ("best.json", "result.json")


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """Snapshot of a run.

  Attributes:
    path: its directory.
    settings: the settings, flat.
    holder: the last process that took the directory; None if there was none.
    ended: whether its result is written.
    status: contents of status.json; may be empty.
    history: reports of rounds or epochs.
    now: time of the snapshot, in seconds since 1970.
  """

  path: pathlib.Path
  settings: dict
  holder: Holder | None
  ended: bool
  status: dict
  history: list[dict]
  now: float

  @property
  def at_work(self) -> bool:
    """True if a process is running it, as far as can be told."""
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
  return Snapshot(
    path=path,
    settings=settings,
    holder=holder,
    ended=any((path / name).exists() for name in _OUTCOMES),
    status=_heard_of(path, holder),
    history=_history(path / "history.jsonl"),
    now=time.time(),
  )


def _heard_of(path: pathlib.Path, holder: Holder | None) -> dict:
  """Returns the status; only its sums if another process wrote it.

  If no process is at work, the status of the last one is returned whole.
  """
  said = status.read(path)
  own = holder is None or said.get("process") in (None, holder.process)
  return said if own or not holder.at_work else {"seconds": said.get("seconds")}


def _history(file: pathlib.Path) -> list[dict]:
  try:
    return json_file.read_lines(file, wanted="a report", advice="")
  except UserError:  # It does not exist yet, or the run reports the damage.
    return []


def picture(snapshot: Snapshot) -> RenderableType:
  """Renders a snapshot for a terminal, at most a screen long."""
  about, state = _text(_about(snapshot)), _text(_state(snapshot))
  parts = [Text(about, style="bold"), Text(state)]
  if snapshot.status and not snapshot.ended:
    parts += _position(snapshot)
  if snapshot.history:
    parts.append(_table(snapshot))
  if seconds := status.seconds_of(snapshot.status):
    parts.append(Text(_text(_spent(seconds)), style="dim"))
  return Group(*parts)


def _about(snapshot: Snapshot) -> str:
  settings = snapshot.settings
  names = ("strategy", "evaluator", "dataset", "text", "arch", "seed")
  plain = {name.rpartition(".")[2]: value for name, value in settings.items()}
  shown = [
    f"{name} {plain[name]}"
    for name in names
    if plain.get(name) not in (None, "", [])
  ]
  return f"{snapshot.path}: {', '.join(shown)}"


def _state(snapshot: Snapshot) -> str:
  if snapshot.ended:
    return "finished"
  who = snapshot.holder
  if who is None:
    return "not begun, or begun by another version of this program"
  name = f"process {who.process} on {who.host}"
  if not snapshot.at_work:
    said = str(snapshot.status.get("state", ""))
    if not said or said == "running":
      said = f"killed or lost; it was {name}"
    return f"not running: {said}; the same command goes on"
  if who.at_work is None:
    return f"running, if its last word holds: {name}{_heard(snapshot)}"
  return f"running: {name}{_heard(snapshot)}"


def _heard(snapshot: Snapshot) -> str:
  """Describes the age of the last status if it is more than 5 seconds."""
  told = _number(snapshot.status.get("time"))
  if told is None:
    return ", which has not said anything yet"
  age = max(snapshot.now - told, 0.0)
  # A call that compiles, or a single step, may take minutes.
  return f", last heard {clock(age)} ago" if age > 5 else ""


def _position(snapshot: Snapshot) -> list[RenderableType]:
  """Renders the phase, its progress and the best so far."""
  said = snapshot.status
  title = f"{said.get('prefix', '')} {said.get('phase', '')}".strip()
  done, total = (_number(said.get(name)) for name in ("done", "total"))
  if done is None or total is None:
    return []
  grid = Table.grid(padding=(0, 1))
  grid.add_column(no_wrap=True)
  words = [f"{done:,} of {total:,}"]
  left = _number(said.get("left"))
  if snapshot.at_work and left:
    words.append(f"{clock(left)} left of this phase")
  words += [str(said[name]) for name in ("rate", "note") if said.get(name)]
  bar = ProgressBar(total=max(total, 1), completed=done, width=24)
  grid.add_row(Text(_text(title)), bar, Text(_text(", ".join(words))))
  parts = [grid]
  if said.get("best"):
    parts.append(Text(f"best so far: {_text(said['best'])}"))
  return [*parts, *_rounds_left(snapshot)]


def _rounds_left(snapshot: Snapshot) -> list[RenderableType]:
  """Estimates the time of the rounds to come from the mean so far."""
  rounds = _number(snapshot.settings.get("search.rounds"))
  done = [
    sum(_number(row.get(name)) or 0.0 for name in _SECONDS)
    for row in snapshot.history
    if "round" in row
  ]
  if rounds is None or not done or not snapshot.at_work:
    return []
  left = rounds + 1 - len(done)
  if left <= 0:
    return []
  mean = sum(done) / len(done)
  text = (
    f"rounds so far took {clock(mean)} on average; {left} of {rounds + 1} are "
    f"left, about {clock(mean * left)} and what comes after them"
  )
  return [Text(text)]


def _table(snapshot: Snapshot) -> Table:
  shown = snapshot.history[-ROWS:]
  names = [name for name in _COLUMNS if any(name in row for row in shown)]
  left_out = len(snapshot.history) - len(shown)
  table = Table(
    title=f"the last {ROWS}, {left_out} before them" if left_out else None,
    title_justify="left",
  )
  for name in names:
    heading = _COLUMNS[name]
    if name in _SCORES:
      heading += f" {snapshot.measure.name}"
    table.add_column(heading, justify="right")
  for row in shown:
    cells = [_cell(snapshot, name, row.get(name)) for name in names]
    if cells and "stage" in row:  # A report from after the rounds.
      cells[0] = _text(row["stage"])
    table.add_row(*cells)
  return table


def _cell(snapshot: Snapshot, name: str, value) -> str:
  value = _number(value)
  if value is None:
    return ""
  if name in _SCORES:
    return snapshot.measure.show(value)
  if name in _SECONDS:
    return clock(value)
  return f"{value:.0f}" if name in _WHOLE else f"{value:.4g}"


def _number(value) -> float | None:
  """Returns the value if it is a finite number; files may hold anything."""
  if type(value) not in (int, float):
    return None
  try:
    return value if math.isfinite(value) else None
  except OverflowError:
    return None


def _text(value) -> str:
  """Replaces unprintable characters, which a terminal would obey."""
  return "".join(x if x.isprintable() else "?" for x in str(value))


def _spent(seconds: dict[str, tuple[float, float]]) -> str:
  parts = [f"{phase} {clock(sums[0])}" for phase, sums in seconds.items()]
  compiled = sum(sums[1] for sums in seconds.values())
  return f"time: {', '.join(parts)}; compiling {clock(compiled)} of it"
