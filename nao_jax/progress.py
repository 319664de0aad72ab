"""How far long work is: bars on a terminal, plain lines elsewhere."""

from collections.abc import Callable
import sys
import time

from absl import logging
import rich.console
import rich.progress

# Seconds between two plain lines of one phase.
INTERVAL = 10.0


class Progress:
  """Call it with a phase, the work done and all the work; close it at the end.

  Attributes:
    prefix: what precedes the phase, "round 2 of 4" for example; change freely.
  """

  def __init__(self, stream=None, before: Callable[[], None] = lambda: None):
    """Shows on `stream`, stderr by default.

    Args:
      stream: where to.
      before: called first, to stop a run for example.
    """
    stream = stream or sys.stderr
    self.prefix = ""
    self._before = before
    self._bars = _Bars(stream) if stream.isatty() else _Lines()

  def __call__(self, phase: str, done: int, total: int, note: str = "") -> None:
    """Shows that `done` of `total` units of the phase are done, and a note."""
    self._before()
    self._bars.show(f"{self.prefix} {phase}".strip(), done, total, note)

  def close(self) -> None:
    """Leaves the terminal as it was."""
    self._bars.close()


class _Bars:
  def __init__(self, stream):
    self._bars = rich.progress.Progress(
      rich.progress.TextColumn("{task.description}"),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeRemainingColumn(),
      rich.progress.TextColumn("{task.fields[note]}"),
      console=rich.console.Console(file=stream),
      transient=True,
    )
    self._title, self._task = None, None

  def show(self, title, done, total, note):
    if title != self._title:
      if self._task is not None:
        self._bars.remove_task(self._task)
      self._task = self._bars.add_task(title, total=total, note="")
      self._title = title
      self._bars.start()
    self._bars.update(self._task, completed=done, note=note)
    if done >= total:
      # Between phases tables are printed, which a live bar would garble.
      self._bars.stop()

  def close(self):
    self._bars.stop()


class _Lines:
  def __init__(self):
    self._title, self._first = None, 0
    self._start = self._last = 0.0

  def show(self, title, done, total, note):
    now = time.monotonic()
    if title != self._title:
      self._title, self._first = title, done
      self._start = self._last = now
      if done < total:
        logging.info("%s: %d of %d", title, done, total)
      return
    if now - self._last < INTERVAL and done < total:
      return
    self._last = now
    spent = now - self._start
    left = spent / max(done - self._first, 1) * (total - done)
    logging.info(
      "%s: %d of %d, %.0f s, about %.0f s left%s",
      title,
      done,
      total,
      spent,
      left,
      note and f"; {note}",
    )

  def close(self):
    pass
