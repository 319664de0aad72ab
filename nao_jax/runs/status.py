"""status.json in a workdir: how far a run is, for those who look on.

It is no part of a run's result. Nothing goes on from it but the sums of
seconds, and a disk that cannot take it does not stop the run.
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
# Seconds between two of them within a phase.
INTERVAL = 1.0
# No sum of seconds is as large.
_MOST = 1e12
# What is counted in the name of a phase, "epoch 2 of 3" for example.
_COUNTS = re.compile(r" \d+ of \d+")


class StatusFile:
  """Written while a run goes on; the first word of a run makes it."""

  def __init__(
    self, directory: pathlib.Path, compile_seconds: Callable[[], float]
  ):
    """Writes nothing yet.

    Args:
      directory: of the run, which must be this process's.
      compile_seconds: gives how long this process has compiled so far.
    """
    self._file = directory / NAME
    self._compile_seconds = compile_seconds
    self._position, self._phases = None, {}
    self._written = self._counted = self._compiled = 0.0

  def tell(self, at: Position) -> None:
    """Says how far the run is."""
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
    """Says how the run ended, if it ever said something."""
    if self._position is not None:
      self._count(self._position.phase)
      self._write(state)

  def _count(self, phase: str) -> None:
    """Adds the time since the last word to a phase."""
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
    # Not synced: nobody needs it after a crash of the machine.
    with contextlib.suppress(OSError):
      temporary.write_text(text + "\n")
      os.replace(temporary, self._file)


def read(directory: pathlib.Path) -> dict:
  """What a run wrote last; empty where there is nothing that can be read."""
  try:
    found = json.loads((directory / NAME).read_text())
    return found if isinstance(found, dict) else {}
  except (OSError, ValueError, RecursionError):
    return {}


def seconds_of(status: dict) -> dict[str, list[float]]:
  """{phase: [seconds, those of them in which jax compiled]} of all sittings.

  Args:
    status: from `read`; what is damaged in it is left out.
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
