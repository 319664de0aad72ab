"""What this machine can do, measured here and now."""

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
