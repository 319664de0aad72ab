"""Progress of long work: bars on a terminal or in a notebook, else lines."""

from collections.abc import Callable
import html
import sys
import time
from typing import NamedTuple

from absl import logging
import rich.console
import rich.progress
from rich.table import Column
from rich.text import Text

from nao_jax.runs.streams import LastingStream

# Seconds between two plain lines of one phase.
INTERVAL = 10.0
# The same for changes of a notebook's line.
_NOTEBOOK_INTERVAL = 0.5
# Rates are over this many seconds, or this many changes if they take longer.
_WINDOW, _CHANGES = 20.0, 5
# A pause of this many seconds that is this many times longer than all changes
# of the window is none of the work's: the machine slept, or compiled.
_PAUSE, _TIMES_LONGER = 60.0, 20


class WorkUnit(NamedTuple):
  """Size of one unit of work, to show the speed.

  Attributes:
    count: number of items in a unit, on average.
    name: name of the items, in the plural.
  """

  count: float
  name: str


class Position(NamedTuple):
  """Progress of the work.

  Attributes:
    prefix: text before the phase, for example "round 2 of 4:".
    phase: name of the current phase.
    done: units of the phase that are done.
    total: all units of the phase.
    note: further remarks; may be empty.
    rate: speed, for example "310 images/s"; empty if unknown.
    left: remaining seconds of the phase; None if unknown.
    best: the best result so far, in words; empty before there is one.
  """

  prefix: str
  phase: str
  done: int
  total: int
  note: str = ""
  rate: str = ""
  left: float | None = None
  best: str = ""

  @property
  def title(self) -> str:
    """Prefix and phase."""
    return f"{self.prefix} {self.phase}".strip()

  @property
  def remarks(self) -> list[str]:
    """The remarks beside the counts: rate, best so far, note."""
    best = self.best and f"best so far {self.best}"
    return [text for text in (self.rate, best, self.note) if text]


class Progress:
  """Shows progress; call it with a phase, the work done and all the work.

  Close it at the end.

  Attributes:
    prefix: text before the phase, for example "round 2 of 4"; may be changed.
    best: the best result so far, in words; may be changed.
  """

  def __init__(
    self,
    stream=None,
    before: Callable[[], None] = lambda: None,
    record: Callable[[Position], None] = lambda position: None,
    *,
    plain: bool = False,
  ):
    """Shows progress on a stream.

    Args:
      stream: the stream; stderr by default.
      before: called first, for example to stop a run.
      record: called last, with the position.
      plain: whether to write lines on a terminal, too.
    """
    shown = LastingStream(lambda: stream or sys.stderr)
    self.prefix = self.best = ""
    self._before, self._record = before, record
    self._speed = _Speed()
    if stream is None and rich.console.Console().is_jupyter:
      self._display = _Notebook()
    elif shown.isatty() and not plain:
      self._display = _Bars(shown)
    else:
      self._display = _Lines()

  def __call__(
    self,
    phase: str,
    done: int,
    total: int,
    note: str = "",
    each: WorkUnit | None = None,
  ) -> None:
    """Shows that `done` of `total` units of the phase are done."""
    self._before()
    at = Position(self.prefix, phase, done, total, note, best=self.best)
    speed = self._speed.after(at.title, done)
    rate = _rate(speed * each.count, each.name) if each and speed else ""
    left = 0.0 if done >= total else speed and (total - done) / speed
    at = at._replace(rate=rate, left=left)
    self._display.show(at)
    self._record(at)

  def close(self) -> None:
    """Restores the terminal."""
    self._display.close()


class _Speed:
  """Units per second, without the first ones, whose call compiles."""

  def __init__(self):
    self._title, self._changes, self._compiles = None, [], True

  def after(self, title: str, done: int) -> float | None:
    """Returns the current speed; None if it is unknown yet."""
    now = time.monotonic()
    if title != self._title or (self._changes and done < self._changes[-1][1]):
      self._title, self._changes, self._compiles = title, [], True
    if not self._changes or done > self._changes[-1][1]:
      if self._paused(now):
        self._changes = []
      self._changes.append((now, done))
    if self._compiles and len(self._changes) > 1:
      self._changes.pop(0)
      self._compiles = False
    while len(self._changes) > _CHANGES and now - self._changes[1][0] > _WINDOW:
      self._changes.pop(0)
    (start, first), (end, last) = self._changes[0], self._changes[-1]
    return (last - first) / (end - start) if end > start else None

  def _paused(self, now: float) -> bool:
    if len(self._changes) < 2:
      return False
    last, first = self._changes[-1][0], self._changes[0][0]
    return now - last > max(_PAUSE, _TIMES_LONGER * (last - first))


def _rate(number: float, name: str) -> str:
  return f"{number:,.0f} {name}/s" if number >= 10 else f"{number:.2g} {name}/s"


class _Remarks(rich.progress.ProgressColumn):
  """Column that is shortened where a terminal is narrow."""

  def render(self, task: rich.progress.Task) -> Text:
    return Text(task.fields["remarks"], no_wrap=True, overflow="ellipsis")


class _Bars:
  def __init__(self, stream):
    self._bars = rich.progress.Progress(
      rich.progress.TextColumn("{task.description}"),
      rich.progress.BarColumn(16, table_column=Column(no_wrap=True)),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TextColumn("{task.fields[left]}"),
      _Remarks(),
      console=rich.console.Console(file=stream),
      transient=True,
    )
    self._title, self._task = None, None

  def show(self, at: Position) -> None:
    if at.title != self._title:
      if self._task is not None:
        self._bars.remove_task(self._task)
      self._task = self._bars.add_task(
        at.title, total=at.total, left="", remarks=""
      )
      self._title = at.title
      self._bars.start()
    self._bars.update(
      self._task,
      completed=at.done,
      left="" if at.left is None else f"{clock(at.left)} left",
      remarks=", ".join(at.remarks),
    )
    if at.done >= at.total:
      # A live bar would garble the tables that are printed between phases.
      self._bars.stop()

  def close(self) -> None:
    self._bars.stop()


class _Notebook:
  """A line of a cell's output that changes in place, and goes at the end.

  rich's own bars need ipywidgets in a notebook.
  """

  def __init__(self):
    self._handle, self._title, self._last = None, None, 0.0

  def show(self, at: Position) -> None:
    now = time.monotonic()
    recent = now - self._last < _NOTEBOOK_INTERVAL
    if at.title == self._title and recent and at.done < at.total:
      return
    self._title, self._last = at.title, now
    left = [] if at.left is None else [f"{clock(at.left)} left"]
    words = ", ".join([f"{at.done} of {at.total}", *left, *at.remarks])
    bar = f'<progress max="{at.total}" value="{at.done}"></progress>'
    self._write(f"{bar} {html.escape(f'{at.title}: {words}')}")

  def _write(self, line: str) -> None:
    from IPython import display

    if self._handle is None:
      self._handle = display.display(display.HTML(line), display_id=True)
    else:
      self._handle.update(display.HTML(line))

  def close(self) -> None:
    if self._handle is not None:
      self._write("")


class _Lines:
  def __init__(self):
    self._title = None
    self._start = self._last = 0.0

  def show(self, at: Position) -> None:
    now = time.monotonic()
    if at.title != self._title:
      self._title = at.title
      self._start = self._last = now
      if at.done < at.total:
        logging.info("%s: %d of %d", at.title, at.done, at.total)
      return
    if now - self._last < INTERVAL and at.done < at.total:
      return
    self._last = now
    words = [f"{at.done} of {at.total}", f"{now - self._start:.0f} s"]
    if at.left:
      words.append(f"about {at.left:.0f} s left")
    logging.info("%s: %s", at.title, ", ".join(words + at.remarks))

  def close(self) -> None:
    pass


def clock(seconds: float) -> str:
  """Formats seconds as 1:02:03 or 2:03."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"
