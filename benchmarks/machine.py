"""What this machine can do, measured here and now."""

import os
import pathlib
import re
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.counting import Needed

_SIDE = 2048
_COPIED = 2**26  # float32: 256 MiB, more than any cache holds.
_REPEATS = 5


class Machine(NamedTuple):
  """Rates.

  Attributes:
    operations: a second, of a float32 matrix product.
    bytes: a second, read and written by a copy.
  """

  operations: float
  bytes: float

  def floor(self, needed: Needed) -> float:
    """Seconds that the work takes at least."""
    return max(needed.operations / self.operations, needed.bytes / self.bytes)


def measure() -> Machine:
  """The best of some repeats; programs of the default device."""
  square = jnp.ones((_SIDE, _SIDE))
  row = jnp.ones(_COPIED)
  product = _fastest(jax.jit(lambda x: x @ x), square)
  copy = _fastest(jax.jit(lambda x: x + 1), row)
  return Machine(2 * _SIDE**3 / product, 2 * row.nbytes / copy)


def _fastest(function, argument) -> float:
  jax.block_until_ready(function(argument))
  seconds = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(function(argument))
    seconds.append(time.perf_counter() - start)
  return min(seconds)


def describe() -> dict:
  """The processor, JSON-like, as Linux describes it.

  Returns:
    `cpu`: its model; `cores`: those that this process may use;
    `threads_per_core`: 2 where two of them share a core; `caches`: {"L1d":
    "48K"} of the first; `load`: the machine's over the last minute. None, or
    nothing of the caches, where the system does not say.
  """
  root = pathlib.Path("/sys/devices/system/cpu/cpu0")
  names = pathlib.Path("/proc/cpuinfo")
  model = re.search(r"model name\s*: (.*)", _text(names) or "")
  siblings = _text(root / "topology/thread_siblings_list")
  return {
    "cpu": model and model[1],
    "cores": sorted(os.sched_getaffinity(0)),
    "threads_per_core": siblings and len(numbers(siblings)),
    "caches": dict(_cache(path) for path in sorted(root.glob("cache/index*"))),
    "load": round(os.getloadavg()[0], 2),
  }


def name() -> str:
  """The processor and how many of its cores this process may use."""
  found = describe()
  return f"{found['cpu'] or 'unknown processor'}, {len(found['cores'])} cores"


def numbers(text: str) -> list[int]:
  """Whole numbers in the notation of taskset and Linux: `0,2-3`.

  Raises:
    ValueError: it is no such list.
  """
  found = []
  for part in text.split(","):
    first, _, last = part.partition("-")
    found += range(int(first), int(last or first) + 1)
  return found


def _cache(folder: pathlib.Path) -> tuple[str, str | None]:
  kind = {"Data": "d", "Instruction": "i"}.get(_text(folder / "type"), "")
  return f"L{_text(folder / 'level')}{kind}", _text(folder / "size")


def _text(file: pathlib.Path) -> str | None:
  """What a file of the system holds, if it is there."""
  try:
    return file.read_text(encoding="utf-8").strip()
  except OSError:
    return None
