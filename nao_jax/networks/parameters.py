"""Declares a module's parameters and statistics, and draws them all at once.

Groups of parameters have names; within a group, the leaves are those of an
operation's `ops.Shapes`. Maps are [C, H, W, B].
"""

import collections
from collections.abc import Callable, Mapping
import functools
from typing import Any, Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import normalisation, ops, tape

# The statistics that BatchNorm normalises by: the batch's; the batch's, while
# running statistics are updated; the running ones.
Statistics = Literal["batch", "tracked", "running"]

# Share of the running statistics that a training step keeps.
MOMENTUM = 0.9


def declare(
  module: nn.Module, name: str, shapes: ops.Shapes, stack: tuple[int, ...] = ()
) -> ops.Parameters:
  """Declares one group of parameters: {leaf: [*stack, *shape]}.

  Their initial values are described at `_first_value`.
  """
  group = {_join(name, leaf): stack + shape for leaf, shape in shapes.items()}

  def declare_leaf(full_name):
    def initial(key):
      normal = jax.random.normal(key, group[full_name])
      # A NumPy bank could not be indexed by a traced architecture.
      return jnp.asarray(_first_value(full_name, normal, group))

    return module.param(full_name, initial)

  return {leaf: declare_leaf(_join(name, leaf)) for leaf in shapes}


def _join(name: str, leaf: str) -> str:
  return f"{name}_{leaf}" if name else leaf


def normaliser(
  module: nn.Module,
  name: str = "",
  used: bool | jax.Array = True,
  epsilon: float = normalisation.EPSILON,
) -> ops.Norm:
  """Returns the BatchNorm function of one group of parameters of a module.

  Running statistics are variables of the module in the collection
  `batch_stats`, named like the group's parameters, with `mean` and `variance`
  for `scale`.

  Args:
    module: the owner of the variables; its attribute `statistics` determines
      the statistics to normalise by.
    name: the name of the group, as given to `declare`.
    used: bool [], may be traced; if false, running statistics stay as they are.
    epsilon: addition to the variances.
  """
  if module.statistics == "batch":
    return functools.partial(ops.batch_norm, epsilon=epsilon)

  def norm(x, parameters, stage="", axis_name=None):
    def step(old):
      y, new = running_norm(
        x, parameters, stage, old, module.statistics, axis_name, epsilon
      )
      return y, jax.tree.map(functools.partial(jnp.where, used), new, old)

    return track(module, name, (x.shape[0],), step, stage)

  return norm


def track(
  module: nn.Module,
  name: str,
  shape: tuple[int, ...],
  step: Callable,
  stage: str = "",
) -> Any:
  """Updates running statistics that a module keeps.

  Args:
    module: the owner; statistics are kept if its attribute `statistics` is
      "tracked".
    name: the name of the group of parameters that the statistics belong to.
    shape: the shape of the mean and of the variance.
    step: a function of (mean, variance) that returns a result and both after
      the step.
    stage: the suffix of `mean` and `variance` in the variables' names.

  Returns:
    The result of `step`.
  """
  variables = tuple(
    module.variable("batch_stats", _join(name, f"{leaf}{stage}"), fill, shape)
    for leaf, fill in (("mean", jnp.zeros), ("variance", jnp.ones))
  )
  result, new = step(tuple(variable.value for variable in variables))
  if module.statistics == "tracked" and not module.is_initializing():
    for variable, value in zip(variables, new, strict=True):
      variable.value = value
  return result


def running_norm(
  x: jax.Array,
  parameters: ops.Parameters,
  stage: str,
  running: tuple[jax.Array, jax.Array],
  statistics: Statistics,
  axis_name: str | None,
  epsilon: float = normalisation.EPSILON,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Applies BatchNorm with running statistics, as a pure function.

  Args:
    x: maps [C, H, W, B].
    parameters: the parameters of an operation.
    stage: the suffix of `scale` and `offset` in the parameters' names.
    running: mean and variance, [C] each.
    statistics: "tracked" or "running".
    axis_name: the mapped axis over which the batch's statistics are also taken.
    epsilon: addition to the variances.

  Returns:
    The normalised maps and the updated running statistics.
  """
  if statistics == "running":
    scale, offset = parameters[f"scale{stage}"], parameters[f"offset{stage}"]
    y = normalisation.normalise(x, scale, offset, *running, epsilon)
    return y, running
  y = ops.batch_norm(x, parameters, stage, axis_name, epsilon)
  return y, _follow(running, jax.lax.stop_gradient(x), axis_name)


class CarriedNorm:
  """BatchNorm whose running statistics an operation carries as its memory.

  Call it like `ops.batch_norm`, once for each BatchNorm of the operation.

  Attributes:
    running: mean and variance, both [n, C], updated by the calls so far; row i
      belongs to the i-th call. Maps may have fewer than C channels, whose
      statistics are the first of the row.
  """

  def __init__(
    self,
    running: Any,
    statistics: Statistics,
    axis_name: str | None,
    epsilon: float = normalisation.EPSILON,
  ):
    """Starts before the first BatchNorm; see `running_norm`."""
    self.running = running
    self._how, self._calls = (statistics, axis_name, epsilon), 0

  def __call__(
    self,
    x: jax.Array,
    parameters: ops.Parameters,
    stage: str = "",
    axis_name: str | None = None,
  ) -> jax.Array:
    """Normalises maps and updates a row of `running`."""
    del axis_name  # The one of the network.
    row = tape.take(self.running, self._calls)
    own = jax.tree.map(lambda whole: whole[: len(x)], row)
    y, new = running_norm(x, parameters, stage, own, *self._how)
    row = jax.tree.map(_with_first, row, new)
    self.running = tape.put(self.running, self._calls, row)
    self._calls += 1
    return y


def _with_first(row: jax.Array, first: jax.Array) -> jax.Array:
  """Returns a row [C] with its first values replaced."""
  return jax.lax.dynamic_update_slice_in_dim(row, first, 0, 0)


def _follow(running, x, axis_name):
  """Returns the running statistics after one batch.

  The stored variance is the unbiased one, as in PyTorch; a training step
  normalises by the biased one.
  """
  mean, variance = normalisation.moments(x, axis_name)
  devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
  count = devices * x.size // x.shape[0]
  batch = mean, variance * count / max(count - 1, 1)
  return jax.tree.map(
    lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, running, batch
  )


def _first_value(
  name: str, normal: jax.Array, group: Mapping[str, tuple[int, ...]]
) -> jax.Array:
  """Returns the initial value of a parameter, from a standard normal draw.

  Kernels are normal with standard deviation sqrt(2 / fan in) (Kaiming), as in
  the official PyTorch code, which initialises every parameter of rank 2 or more
  that way. BatchNorm starts as the identity, with or without running
  statistics; structuring functions of morphological operators are near 0. The
  biases of the classifiers are uniform in +-1 / sqrt(features),
  PyTorch's default, which the official code does not change. `group` has the
  shape of the kernel that a bias belongs to.
  """
  if "scale" in name or "variance" in name:
    return np.ones(normal.shape, normal.dtype)
  if "structuring" in name:  # Nearly flat.
    return normal * np.float32(0.01)
  if "offset" in name or "mean" in name:
    return np.zeros(normal.shape, normal.dtype)
  if name.endswith("bias"):
    kernel = name.removesuffix("bias") + "kernel"
    # The error function turns a normal draw into a uniform one, in [-1, 1].
    unit = jax.scipy.special.erf(normal / np.float32(np.sqrt(2)))
    return unit / np.float32(np.sqrt(_fan_in(kernel, group[kernel])))
  return normal * np.float32(np.sqrt(2 / _fan_in(name, normal.shape)))


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
  """Returns the fan-in of a kernel; leading axes may be stacks of kernels."""
  if "depthwise" in name:  # [C, k, l]
    return shape[-2] * shape[-1]
  if name.endswith("conv") or "dense" in name:  # [out, in, k, l]
    return shape[-3] * shape[-2] * shape[-1]
  return shape[-2]  # [in, out]


def initialise(module: nn.Module, key: jax.Array, *inputs) -> dict:
  """Computes `module.init` with one random draw for all parameters.

  Distributions are the same as with `module.init`, but not the numbers:
  compiling a separate draw for each of hundreds of parameters takes longer than
  the first epochs. The draw is cut up on the host, so this function itself
  cannot be transformed; `module.init` can.

  Args:
    module: a network whose parameters are created by `declare`.
    key: consumed.
    *inputs: arguments of the module's call; only shapes matter.

  Returns:
    The variables, NumPy arrays.
  """
  tree = shapes(module, *map(jax.typeof, inputs))
  leaves = jax.tree.leaves_with_path(tree)
  sizes = [leaf.size for _, leaf in leaves]
  normals = jax.random.normal(key, (sum(sizes),))
  parts = np.split(np.asarray(normals), np.cumsum(sizes)[:-1])
  groups = collections.defaultdict(dict)
  for path, leaf in leaves:
    groups[path[:-1]][path[-1].key] = leaf.shape
  values = [
    np.asarray(
      _first_value(path[-1].key, part.reshape(leaf.shape), groups[path[:-1]])
    )
    for (path, leaf), part in zip(leaves, parts, strict=True)
  ]
  return jax.tree.unflatten(jax.tree.structure(tree), values)


def shapes(module: nn.Module, *inputs: Any) -> dict:
  """Returns the shapes of a network's variables, from those of its inputs."""
  return _shapes(module, *((x.shape, x.dtype) for x in inputs))


# Cached, as thousands of candidates have the same shapes.
@functools.cache
def _shapes(module, *inputs):
  inputs = [jax.ShapeDtypeStruct(*each) for each in inputs]
  return jax.eval_shape(module.init, jax.random.key(0), *inputs)
