"""Candidate operations: what a branch of a cell can compute.

An operation is pre-activated (ReLU, convolution, BatchNorm) and keeps the
number of channels; at stride 2 it halves the map. Parameters are a flat dict
of arrays; `shapes` declares them, `apply` uses them.
"""

import functools
import re

import jax
import jax.numpy as jnp

from nao_jax.networks import layers

Parameters = dict[str, jax.Array]
Shapes = dict[str, tuple[int, ...]]


def shapes(op: str, channels: int, stride: int) -> Shapes:
  """The parameters of one operation: {name: shape}."""
  kind, size = _kind(op)
  if kind == "sep_conv":
    return _stage_shapes("1", channels, size) | _stage_shapes(
      "2", channels, size
    )
  if kind == "dil_sep_conv":
    return _stage_shapes("1", channels, size)
  if kind == "identity" and stride == 2:
    return factorized_reduction_shapes(channels, channels)
  return {}


def apply(
  op: str,
  x: jax.Array,
  parameters: Parameters,
  *,
  stride: int,
  axis_name: str | None = None,
) -> jax.Array:
  """One operation on a map [C, H, W, B].

  Args:
    op: a name of an op set.
    x: the map.
    parameters: as declared by `shapes` for this op and stride.
    stride: 1 or 2.
    axis_name: the mapped axis over which BatchNorm takes its statistics.
  """
  kind, size = _kind(op)
  stage = functools.partial(_stage, parameters=parameters, axis_name=axis_name)
  if kind == "sep_conv":
    return stage("2", stage("1", x, stride=stride))
  if kind == "dil_sep_conv":
    return stage("1", x, stride=stride, dilation=2)
  if kind == "avg_pool":
    return layers.avg_pool(x, size, stride)
  if kind == "max_pool":
    return layers.max_pool(x, size, stride)
  if kind == "zero":
    return jnp.zeros_like(x[:, ::stride, ::stride])
  if stride == 2:
    return factorized_reduction(x, parameters, axis_name)
  return x


def _kind(op: str) -> tuple[str, int]:
  """("sep_conv", 3) of "sep_conv_3x3"; the size of "identity" is 0."""
  match = re.fullmatch(r"(\w+?)_(\d)x\2", op)
  return (match[1], int(match[2])) if match else (op, 0)


def _stage_shapes(stage: str, channels: int, size: int) -> Shapes:
  return {
    f"depthwise_{stage}": (channels, size, size),
    f"pointwise_{stage}": (channels, channels),
    f"scale_{stage}": (channels,),
    f"offset_{stage}": (channels,),
  }


def _stage(
  stage: str, x, *, parameters, axis_name, stride: int = 1, dilation: int = 1
):
  """ReLU, depthwise, pointwise, BatchNorm."""
  x = layers.depthwise(
    jax.nn.relu(x), parameters[f"depthwise_{stage}"], stride, dilation
  )
  x = layers.pointwise(x, parameters[f"pointwise_{stage}"])
  return layers.batch_norm(
    x, parameters[f"scale_{stage}"], parameters[f"offset_{stage}"], axis_name
  )


def factorized_reduction_shapes(channels: int, width: int) -> Shapes:
  """The parameters of a reduction from `channels` to `width` channels."""
  return {
    "even": (channels, width // 2),
    "odd": (channels, width // 2),
    "scale": (width,),
    "offset": (width,),
  }


def factorized_reduction(
  x: jax.Array, parameters: Parameters, axis_name: str | None = None
) -> jax.Array:
  """Halves the map of [C, H, W, B] without losing pixels to the stride.

  Half of the output channels see the pixels (0, 0), (0, 2), .., the other half
  those one further down and to the right (zero beyond the border).
  """
  shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
  halves = [
    layers.pointwise(x[:, ::2, ::2], parameters["even"]),
    layers.pointwise(shifted[:, ::2, ::2], parameters["odd"]),
  ]
  return layers.batch_norm(
    jnp.concatenate(halves),
    parameters["scale"],
    parameters["offset"],
    axis_name,
  )


def conv_bn_shapes(channels: int, width: int) -> Shapes:
  """The parameters of a calibration from `channels` to `width` channels."""
  return {"kernel": (channels, width), "scale": (width,), "offset": (width,)}


def conv_bn(
  x: jax.Array, parameters: Parameters, axis_name: str | None = None
) -> jax.Array:
  """1x1 convolution and BatchNorm."""
  return layers.batch_norm(
    layers.pointwise(x, parameters["kernel"]),
    parameters["scale"],
    parameters["offset"],
    axis_name,
  )
