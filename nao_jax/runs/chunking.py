"""Division of work into calls to the devices.

Between calls progress is shown, states are saved and signals are handled: short
calls keep a run responsive, long calls keep devices busy. The result of a run
does not depend on the division.
"""

from collections.abc import Callable, Iterator
import time

# Intended duration of a call.
SECONDS = 1.0


def calls(
  first: int,
  end: int,
  most: int,
  agree: Callable[[int], int] = lambda size: size,
) -> Iterator[tuple[int, int]]:
  """Divides steps into calls of about a second.

  The time until the caller takes the next item counts as the time of the steps,
  so the caller has to wait for the devices.

  Args:
    first: the first step.
    end: the step after the last.
    most: largest number of steps in a call.
    agree: maps this process's number of steps to one that all processes share,
      because their clocks differ.

  Yields:
    The first step of a call, and the step after its last.
  """
  size = 1
  while first < end:
    last = min(first + agree(size), end)
    start = time.monotonic()
    yield first, last
    speed = (last - first) / max(time.monotonic() - start, 1e-9)
    # The first call includes compilation, so its speed is an underestimate.
    size = max(1, min(most, round(speed * SECONDS)))
    first = last
