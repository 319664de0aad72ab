"""Measured rates and description of this machine.

python -m benchmarks.machine

Prints a line of JSON: devices, versions and rates.
"""

import json
import os
import pathlib
import platform
import re
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from benchmarks.counting import Needed
from nao_jax.training import memory_check

_SIDE = 2048
_COPIED = 2**26  # float32: 256 MiB, more than any cache holds.
_REPEATS = 5


class Machine(NamedTuple):
  """Rates of a machine.

  Attributes:
    operations: operations a second, in a float32 matrix product.
    bytes: bytes a second, read and written by a copy.
  """

  operations: float
  bytes: float

  def floor(self, needed: Needed) -> float:
    """Returns a lower bound on the seconds of the work."""
    return max(needed.operations / self.operations, needed.bytes / self.bytes)


def measure() -> Machine:
  """Measures the rates of the default device, the best of some repeats."""
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
  """Returns a description of the processor by Linux, JSON-like.

  Returns:
    `cpu`: its model; `cores`: the cores that this process may use;
    `threads_per_core`: 2 where two of them share a core; `caches`: {"L1d":
    "48K"} of the first core; `load`: the machine's load over the last minute.
    An unknown value is None, and unknown caches are left out.
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
  """Returns the processor and the number of cores that this process may use."""
  found = describe()
  return f"{found['cpu'] or 'unknown processor'}, {len(found['cores'])} cores"


def numbers(text: str) -> list[int]:
  """Parses whole numbers in the notation of taskset and Linux: `0,2-3`.

  Raises:
    ValueError: the text is no such list.
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
  """Returns the contents of a file of the system; None if it is missing."""
  try:
    return file.read_text(encoding="utf-8").strip()
  except OSError:
    return None


def devices() -> dict:
  """Returns a description of the devices, JSON-like.

  Returns:
    `kind`, `count` and `memory` (bytes, or None) of the devices; `versions`;
    `product_error`: the largest error of a matrix product of numbers from 0 to
    1, over its largest element; and the rates of `measure`.
  """
  first, square = jax.devices()[0], np.random.RandomState(0).rand(1024, 1024)
  exact, x = square @ square, jnp.float32(square)
  return {
    "kind": first.device_kind,
    "count": jax.local_device_count(),
    "memory": memory_check.limit(first),
    "versions": {
      "python": platform.python_version(),
      "jax": jax.__version__,
      "jaxlib": jaxlib.__version__,
      "platform": first.client.platform_version,
    },
    "product_error": float(np.abs(x @ x - exact).max() / exact.max()),
    "rates": measure()._asdict(),
  }


if __name__ == "__main__":
  print(json.dumps(devices()))
