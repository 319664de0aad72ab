"""How much work goes into one call to the devices.

Between calls progress is seen, states are kept and signals are obeyed: calls
that are short keep a run responsive, calls that are long keep devices busy.
What comes of a run does not depend on how it is cut into calls.
"""

from collections.abc import Callable, Iterator
import time

# What a call should take.
SECONDS = 1.0


def calls(
  first: int,
  end: int,
  most: int,
  agree: Callable[[int], int] = lambda size: size,
) -> Iterator[tuple[int, int]]:
  """Cuts steps into calls of about a second.

  The time that the caller takes until it asks for the next call counts as that
  of the steps, so it has to wait for the devices.

  Args:
    first: the first step.
    end: the one after the last.
    most: steps in a call.
    agree: makes one number of those of several processes, whose clocks differ.

  Yields:
    The first step of a call, and the one after its last.
  """
  size = 1
  while first < end:
    last = min(first + agree(size), end)
    start = time.monotonic()
    yield first, last
    speed = (last - first) / max(time.monotonic() - start, 1e-9)
    # The first call compiles, and says little; the next ones tell.
    size = max(1, min(most, round(speed * SECONDS)))
    first = last
