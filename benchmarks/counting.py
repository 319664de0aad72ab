"""Lower bounds on a program's operations and bytes, from its jaxpr.

Matrix products and convolutions are counted: 2 operations a multiply-add, and
the bytes that they read and write of arrays larger than a cache. Everything
else is assumed to be fused into them, so the work over this machine's measured
rates is a lower bound on its time.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

import jax
import jax.extend as jex
import numpy as np

# Smaller arrays may stay in a cache from one use to the next.
_CACHE = 2**25


class Needed(NamedTuple):
  """Work that cannot be avoided.

  Attributes:
    operations: floating-point operations.
    bytes: bytes read and written.
  """

  operations: float = 0.0
  bytes: float = 0.0

  def times(self, factor: float) -> "Needed":
    """Returns this work multiplied by a factor."""
    return Needed(self.operations * factor, self.bytes * factor)

  def plus(self, other: "Needed") -> "Needed":
    """Returns the sum of both."""
    return Needed(*map(sum, zip(self, other, strict=True)))


def count(function, *arguments) -> Needed:
  """Counts the work of a function, which is traced, not run.

  Args:
    function: has loops of known length only; of branches the one with the most
      operations counts.
    *arguments: arrays, or their shapes.

  Raises:
    ValueError: the function has a loop of unknown length.
  """
  return _program(jax.make_jaxpr(function)(*arguments).jaxpr)


def training(forward: Needed) -> Needed:
  """Returns the work of a forward and a backward pass.

  Each product has two gradients of the same size.
  """
  return forward.times(3)


def passes(tree, number: int) -> Needed:
  """Returns the work of reading or writing all arrays of a tree.

  Args:
    tree: a pytree of arrays.
    number: how many times each array is read or written.
  """
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
  """Fits a power law; returns its exponent: 1 if linear, 2 if quadratic."""
  return float(np.polyfit(np.log(sizes), np.log(amounts), 1)[0])
