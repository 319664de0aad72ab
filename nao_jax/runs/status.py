"""status.json in a workdir: progress of a run for other processes.

It is not part of a run's result. Only the sums of seconds are read when a run
resumes, and a disk to which the file cannot be written does not stop the run.
"""

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import re
import time

from nao_jax.runs.progress import Position

NAME = "status.json"
# Seconds between two updates within a phase.
INTERVAL = 1.0
# Larger sums of seconds are damaged.
_MOST = 1e12
# The counts in the name of a phase, for example "epoch 2 of 3".
_COUNTS = re.compile(r" \d+ of \d+")


class StatusFile:
  """The status.json of a run, updated during the run."""

  def __init__(
    self, directory: pathlib.Path, compile_seconds: Callable[[], float]
  ):
    """Writes nothing yet.

    Args:
      directory: the directory of the run, which this process must hold.
      compile_seconds: returns the time this process has spent compiling so far.
    """
    self._file = directory / NAME
    self._compile_seconds = compile_seconds
    self._position, self._phases = None, {}
    self._written = self._counted = self._compiled = 0.0

  def record(self, at: Position) -> None:
    """Records the position of the run."""
    before = self._position
    if before is None:
      self._phases = seconds_of(read(self._file.parent))
      self._counted = time.monotonic()
      self._compiled = self._compile_seconds()
    else:
      self._count(before.phase)
    self._position = at
    same = before is not None and before.title == at.title
    if not same or self._counted - self._written >= INTERVAL:
      self._write("running")

  def end(self, state: str) -> None:
    """Records how the run ended, if a position was ever recorded."""
    if self._position is not None:
      self._count(self._position.phase)
      self._write(state)

  def _count(self, phase: str) -> None:
    """Adds the time since the last update to a phase."""
    now, compiled = time.monotonic(), self._compile_seconds()
    sums = self._phases.setdefault(_COUNTS.sub("", phase), [0.0, 0.0])
    sums[0] += now - self._counted
    sums[1] += compiled - self._compiled
    self._counted, self._compiled = now, compiled

  def _write(self, state: str) -> None:
    self._written = time.monotonic()
    text = json.dumps(
      {
        "state": state,
        "time": round(time.time(), 3),
        "process": os.getpid(),
        **self._position._asdict(),
        "seconds": {
          phase: [round(value, 3) for value in sums]
          for phase, sums in self._phases.items()
        },
      },
      indent=2,
    )
    temporary = self._file.with_name(f".{NAME}.new")
    # Not synced: the file is not needed after a crash of the machine.
    with contextlib.suppress(OSError):
      temporary.write_text(text + "\n")
      os.replace(temporary, self._file)


def read(directory: pathlib.Path) -> dict:
  """Returns the last status of a run; empty if it is missing or damaged."""
  try:
    found = json.loads((directory / NAME).read_text())
    return found if isinstance(found, dict) else {}
  except (OSError, ValueError, RecursionError):
    return {}


def seconds_of(status: dict) -> dict[str, list[float]]:
  """Returns {phase: [seconds, seconds of them in which jax compiled]}.

  The sums are over all sessions of the run.
  """
  found = status.get("seconds")
  return {
    phase: [float(value) for value in sums]
    for phase, sums in (found if isinstance(found, dict) else {}).items()
    if isinstance(sums, list)
    and len(sums) == 2
    and all(
      type(value) in (int, float) and 0 <= value < _MOST for value in sums
    )
  }
