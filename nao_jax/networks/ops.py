"""Candidate operations that a branch of a cell can compute.

An operation is pre-activated (ReLU, convolution, BatchNorm) and keeps the
number of channels; at stride 2 it halves the map. Parameters are a flat dict
of arrays; `shapes` declares them, `apply` uses them.
"""

from collections.abc import Callable
import functools
import re

import jax
import jax.numpy as jnp

from nao_jax.networks import convolutions, morphology, normalisation, pooling

Parameters = dict[str, jax.Array]
Shapes = dict[str, tuple[int, ...]]
# A BatchNorm function, with the signature of `batch_norm`, the plain one.
Norm = Callable[..., jax.Array]


def shapes(op: str, channels: int, stride: int) -> Shapes:
  """Returns the parameter shapes of one operation: {name: shape}."""
  kind, windows = _kind(op)
  if kind == "sep_conv":
    return _separable_shapes("1", channels, windows[0]) | _separable_shapes(
      "2", channels, windows[0]
    )
  if kind == "dil_sep_conv":
    return _separable_shapes("1", channels, windows[0])
  if kind == "conv":
    stages = (
      _dense_shapes(f"{stage}", channels, window)
      for stage, window in enumerate(windows, 1)
    )
    return functools.reduce(lambda a, b: a | b, stages)
  if kind in morphology.FLAT or kind in morphology.LEARNT:
    learnt = {"structuring_1": (channels, *windows[0])}
    mixed = _dense_shapes("1", channels, (1, 1))
    return (learnt if kind in morphology.LEARNT else {}) | mixed
  if kind == "identity" and stride == 2:
    return factorized_reduction_shapes(channels, channels)
  return {}


def at_stride(
  weights: dict[str, Parameters],
  names: tuple[str, ...],
  channels: int,
  stride: int,
) -> tuple[Parameters, ...]:
  """Selects the parameters that operations use at one stride.

  Args:
    weights: parameters of each operation, for all strides.
    names: the operations, in the order of the result.
    channels: channels of the maps.
    stride: 1 or 2.
  """
  return tuple(
    {leaf: weights[op][leaf] for leaf in shapes(op, channels, stride)}
    for op in names
  )


def batch_norm(
  x: jax.Array,
  parameters: Parameters,
  stage: str = "",
  axis_name: str | None = None,
  epsilon: float = normalisation.EPSILON,
) -> jax.Array:
  """Applies BatchNorm with the batch's own statistics.

  Args:
    x: maps [C, H, W, B].
    parameters: the parameters of an operation.
    stage: the suffix of `scale` and `offset` in the parameters' names.
    axis_name: the mapped axis over which the statistics are also taken.
    epsilon: addition to the variances.
  """
  scale, offset = parameters[f"scale{stage}"], parameters[f"offset{stage}"]
  return normalisation.batch_norm(x, scale, offset, axis_name, epsilon)


def apply(
  op: str,
  x: jax.Array,
  parameters: Parameters,
  *,
  stride: int,
  axis_name: str | None = None,
  norm: Norm = batch_norm,
) -> jax.Array:
  """Applies one operation to a map [C, H, W, B].

  Args:
    op: a name of an op set.
    x: the map.
    parameters: the parameters, as declared by `shapes` for this op and stride.
    stride: 1 or 2.
    axis_name: the mapped axis over which BatchNorm takes its statistics.
    norm: the BatchNorm function.
  """
  kind, windows = _kind(op)
  bound = functools.partial(norm, axis_name=axis_name)
  if kind == "sep_conv":
    x = _separable("1", x, parameters, bound, stride=stride)
    return _separable("2", x, parameters, bound)
  if kind == "dil_sep_conv":
    return _separable("1", x, parameters, bound, stride=stride, dilation=2)
  if kind == "conv":
    for stage, window in enumerate(windows, 1):
      x = _dense(f"{stage}", x, parameters, bound, window, stride)
    return x
  if kind == "avg_pool":
    return pooling.avg_pool(x, windows[0][0], stride)
  if kind == "max_pool":
    return pooling.max_pool(x, windows[0][0], stride)
  if kind in morphology.FLAT:
    x = morphology.FLAT[kind](x, windows[0][0])
    return _mixed(x, parameters, bound, stride)
  if kind in morphology.LEARNT:
    x = morphology.LEARNT[kind](x, parameters["structuring_1"])
    return _mixed(x, parameters, bound, stride)
  if kind == "zero":
    return jnp.zeros_like(x[:, ::stride, ::stride])
  if kind != "identity":
    raise ValueError(f"unknown operation {op!r}")
  if stride == 2:
    return factorized_reduction(x, parameters, axis_name, norm)
  return x


def _kind(op: str) -> tuple[str, list[tuple[int, int]]]:
  """Parses "conv_1x3_3x1" to ("conv", [(1, 3), (3, 1)]); identity: []."""
  windows = [(int(h), int(w)) for h, w in re.findall(r"_(\d)x(\d)", op)]
  return re.sub(r"_\dx\d", "", op), windows


def _separable_shapes(stage: str, channels: int, window) -> Shapes:
  return {
    f"depthwise_{stage}": (channels, *window),
    f"pointwise_{stage}": (channels, channels),
    f"scale_{stage}": (channels,),
    f"offset_{stage}": (channels,),
  }


def _separable(
  stage: str, x, parameters, norm, *, stride: int = 1, dilation: int = 1
):
  """Applies ReLU, a depthwise and a pointwise convolution, and BatchNorm."""
  x = convolutions.depthwise(
    jax.nn.relu(x), parameters[f"depthwise_{stage}"], stride, dilation
  )
  x = convolutions.pointwise(x, parameters[f"pointwise_{stage}"])
  return norm(x, parameters, f"_{stage}")


def _dense_shapes(stage: str, channels: int, window) -> Shapes:
  kernel = (
    {f"pointwise_{stage}": (channels, channels)}
    if window == (1, 1)
    else {f"dense_{stage}": (channels, channels, *window)}
  )
  bn = {f"scale_{stage}": (channels,), f"offset_{stage}": (channels,)}
  return kernel | bn


def _dense(stage: str, x, parameters, norm, window, stride: int):
  """Applies ReLU, convolution, BatchNorm; 1xk strides along its k pixels."""
  x = jax.nn.relu(x)
  if window == (1, 1):
    x = convolutions.pointwise(
      x[:, ::stride, ::stride], parameters[f"pointwise_{stage}"]
    )
  else:
    x = convolutions.conv(
      x,
      parameters[f"dense_{stage}"],
      strides=tuple(stride if size > 1 else 1 for size in window),
      padding=tuple((size // 2, size // 2) for size in window),
    )
  return norm(x, parameters, f"_{stage}")


def _mixed(x, parameters, norm, stride: int):
  """Applies a 1x1 convolution and BatchNorm; an operator is no linear map."""
  x = x[:, ::stride, ::stride]
  return norm(
    convolutions.pointwise(x, parameters["pointwise_1"]), parameters, "_1"
  )


def factorized_reduction_shapes(channels: int, width: int) -> Shapes:
  """Returns the shapes of a reduction from `channels` to `width` channels."""
  return {
    "even": (channels, width // 2),
    "odd": (channels, width // 2),
    "scale": (width,),
    "offset": (width,),
  }


def factorized_reduction(
  x: jax.Array,
  parameters: Parameters,
  axis_name: str | None = None,
  norm: Norm = batch_norm,
) -> jax.Array:
  """Halves the map of [C, H, W, B] without losing pixels to the stride.

  Half of the output channels read the pixels (0, 0), (0, 2), .., the other half
  the pixels one further down and to the right (zero beyond the border).
  """
  shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
  halves = [
    convolutions.pointwise(x[:, ::2, ::2], parameters["even"]),
    convolutions.pointwise(shifted[:, ::2, ::2], parameters["odd"]),
  ]
  return norm(jnp.concatenate(halves), parameters, axis_name=axis_name)


def conv_bn_shapes(channels: int, width: int) -> Shapes:
  """Returns the shapes of a calibration from `channels` to `width` channels."""
  return {"kernel": (channels, width), "scale": (width,), "offset": (width,)}


def conv_bn(
  x: jax.Array,
  parameters: Parameters,
  axis_name: str | None = None,
  norm: Norm = batch_norm,
) -> jax.Array:
  """Applies a 1x1 convolution and BatchNorm."""
  x = convolutions.pointwise(x, parameters["kernel"])
  return norm(x, parameters, axis_name=axis_name)
