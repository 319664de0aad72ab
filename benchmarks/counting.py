"""What a program has to do at least: operations and bytes, from its jaxpr.

Counted are matrix products and convolutions: 2 operations a multiply-add, and
the bytes that they read and write of arrays that no cache holds. All else is
taken to be fused into them, so that this machine cannot do the work in less
time than its measured rates give for it.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import jax
import jax.extend as jex
import numpy as np

# Arrays that are smaller may stay in a cache from one use to the next.
_CACHE = 2**25


class Needed(NamedTuple):
  """Work that cannot be left out.

  Attributes:
    operations: in floating point.
    bytes: read and written.
  """

  operations: float = 0.0
  bytes: float = 0.0

  def times(self, factor: float) -> "Needed":
    """So many times this work."""
    return Needed(self.operations * factor, self.bytes * factor)

  def plus(self, other: "Needed") -> "Needed":
    """Both."""
    return Needed(*map(sum, zip(self, other, strict=True)))


def count(function, *arguments) -> Needed:
  """What a function does; it is traced, not run.

  Args:
    function: has loops of known length only; of branches the longest counts.
    *arguments: arrays, or their shapes.
  """
  return _program(jax.make_jaxpr(function)(*arguments).jaxpr)


def training(forward: Needed) -> Needed:
  """Forwards and backwards: each product has two gradients of its size."""
  return forward.times(3)


def passes(tree, number: int) -> Needed:
  """Reading or writing all arrays of a tree so many times."""
  leaves = jax.tree.leaves(tree)
  return Needed(0, number * sum(leaf.nbytes for leaf in leaves))


def _program(program) -> Needed:
  total = Needed()
  for equation in program.eqns:
    total = total.plus(_equation(equation))
  return total


def _equation(equation) -> Needed:
  name, parameters = equation.primitive.name, equation.params
  if name in ("dot_general", "conv_general_dilated"):
    return _product(equation)
  if name == "while":
    raise ValueError("a loop of unknown length cannot be counted")
  if name == "cond":
    branches = [_program(branch.jaxpr) for branch in parameters["branches"]]
    return max(branches)
  inner = Needed()
  for part in _programs(parameters):
    inner = inner.plus(_program(part))
  return inner.times(parameters["length"] if name == "scan" else 1)


def _programs(parameters: dict):
  for value in parameters.values():
    if isinstance(value, jex.core.ClosedJaxpr):
      yield value.jaxpr
    elif isinstance(value, jex.core.Jaxpr):
      yield value


def _product(equation) -> Needed:
  left, right = (variable.aval for variable in equation.invars)
  (result,) = (variable.aval for variable in equation.outvars)
  if equation.primitive.name == "dot_general":
    (contracted, _), _ = equation.params["dimension_numbers"]
    each = math.prod(left.shape[axis] for axis in contracted)
  else:
    out = equation.params["dimension_numbers"].rhs_spec[0]
    each = right.size // right.shape[out]
  sizes = [x.size * x.dtype.itemsize for x in (left, right, result)]
  size = sum(size for size in sizes if size > _CACHE)
  return Needed(2.0 * result.size * each, float(size))


def exponent(sizes: Sequence[float], amounts: Sequence[float]) -> float:
  """Of the power law that is nearest: 1 is linear growth, 2 quadratic."""
  return float(np.polyfit(np.log(sizes), np.log(amounts), 1)[0])
