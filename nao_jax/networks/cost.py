"""Costs of a stand-alone network, computed from shapes without building it.

Multiply-adds are those of convolutions and linear layers for one image, as the
literature counts them. Pools, BatchNorm, ReLU and sums are not counted. A
kernel is applied once per pixel of its output, so its multiply-adds are its
size times the number of these pixels.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from nao_jax.networks import mobile, ops
from nao_jax.networks.edge_config import EdgeNetworkConfig, Operation, is_affine
from nao_jax.networks.macro import (
  NetworkConfig,
  conv_norm_shapes,
  linear_shapes,
)
from nao_jax.networks.mobile_config import MobileNetworkConfig
from nao_jax.spaces import cnn
from nao_jax.spaces.mobile import Block


class Map(NamedTuple):
  """The shape of a square map: `width` channels, `size` x `size` pixels."""

  width: int
  size: int


class Part(NamedTuple):
  """Cost of a part of a network.

  Attributes:
    name: "stem", "normal" or "reduction" (cells), "auxiliary", "classifier", or
      what else the network has.
    output: the shape of its output.
    parameters: number of parameters.
    multiply_adds: for one image.
  """

  name: str
  output: Map
  parameters: int
  multiply_adds: int


class Cost(NamedTuple):
  """Cost of a network.

  Attributes:
    parts: all parts except the auxiliary head, in order.
    auxiliary: the auxiliary head, which is used only in training; None without
      one.
  """

  parts: tuple[Part, ...]
  auxiliary: Part | None

  @property
  def parameters(self) -> int:
    """Number of parameters, without the auxiliary head's."""
    return sum(part.parameters for part in self.parts)

  @property
  def auxiliary_parameters(self) -> int:
    """Number of parameters of the auxiliary head; 0 without one."""
    return self.auxiliary.parameters if self.auxiliary else 0

  @property
  def multiply_adds(self) -> int:
    """Multiply-adds for one image, without the auxiliary head's."""
    return sum(part.multiply_adds for part in self.parts)


class _Layer(NamedTuple):
  """One or more layers whose outputs are all maps of the same size."""

  shapes: ops.Shapes
  size: int
  stride: int = 1


@functools.singledispatch
def cost(
  config: NetworkConfig,
  tokens: np.ndarray,
  image_size: int,
  image_channels: int = 3,
) -> Cost:
  """Returns the cost of `StandAlone(config, tokens)`.

  Args:
    config: the sizes, for which `config.check(image_size)` passes.
    tokens: the architecture, int [8 nodes].
    image_size: height and width.
    image_channels: channels of the images.
  """
  cells = cnn.to_cells(np.asarray(tokens))
  layers, inputs = _stem(config, Map(image_channels, image_size))
  parts = [_part("stem", inputs[1], layers)]
  for reduction, width in config.cells:
    layers, output = _cell(
      config.ops, cells[int(reduction)], width, reduction, inputs
    )
    parts.append(_part("reduction" if reduction else "normal", output, layers))
    inputs = inputs[1], output
  layer = _linear(inputs[1].width, config.classes)
  parts.append(_part("classifier", Map(config.classes, 1), [layer]))
  return Cost(tuple(parts), _auxiliary(config, parts))


@cost.register
def _(
  config: EdgeNetworkConfig,
  tokens: np.ndarray,
  image_size: int,
  image_channels: int = 3,
) -> Cost:
  at = Map(config.channels, image_size)
  parts = [_part("stem", at, [_conv_norm(image_channels, at, 3)])]
  chosen = config.to_cells(np.asarray(tokens)).tolist()
  for _, width in config.cells:
    if width != at.width:
      at, layers = _residual(at, width)
      parts.append(_part("residual", at, layers))
    layers = [
      _Layer(_learnt(config, config.operations[number], width), at.size)
      for number in chosen
    ]
    parts.append(_part("normal", at, layers))
  last = {"scale": (at.width,), "offset": (at.width,)}
  layers = [_Layer(last, at.size), _linear(at.width, config.classes)]
  parts.append(_part("classifier", Map(config.classes, 1), layers))
  return Cost(tuple(parts), None)


@cost.register
def _(
  config: MobileNetworkConfig,
  tokens: np.ndarray,
  image_size: int,
  image_channels: int = 3,
) -> Cost:
  sizes = config.sizes
  at = Map(sizes.stem_width, -(-image_size // sizes.stem_stride))
  parts = [_part("stem", at, [_conv_norm(image_channels, at, 3)])]
  to = at._replace(width=sizes.first_width)
  parts.append(_part("first", to, _block(mobile.FIRST, at, to)))
  chosen = config.to_cells(np.asarray(tokens)).tolist()
  for stage in config.stages:
    for place in range(stage.places.start, stage.places.stop):
      if chosen[place] == len(sizes.blocks):
        continue
      stride = stage.stride if place == stage.places.start else 1
      at, to = to, Map(stage.width, -(-to.size // stride))
      block = sizes.blocks[chosen[place]]
      name = f"place {place + 1}: {block.name}"
      parts.append(_part(name, to, _block(block, at, to)))
  last = to._replace(width=sizes.last_width)
  parts.append(_part("last", last, [_conv_norm(to.width, last, 1)]))
  layer = _linear(last.width, config.classes)
  parts.append(_part("classifier", Map(config.classes, 1), [layer]))
  return Cost(tuple(parts), None)


def _block(block: Block, x: Map, y: Map) -> list[_Layer]:
  """Returns the layers of a block, the first of which has the input's size."""
  shapes = mobile.block_shapes(block, x.width, y.width)
  first = {name: shapes.pop(name) for name in [*shapes] if "_1" in name}
  return [_Layer(first, x.size), _Layer(shapes, y.size)]


def _learnt(
  config: EdgeNetworkConfig, one: Operation, width: int
) -> ops.Shapes:
  """Returns the shapes of the parameters that an operation learns."""
  shapes = one.shapes(width)
  return {
    name: shape
    for name, shape in shapes.items()
    if config.affine or not is_affine(name)
  }


def _residual(x: Map, width: int) -> tuple[Map, list[_Layer]]:
  """Returns the output and the layers of `edge_network.Residual`."""
  y = Map(width, x.size // 2)
  shortcut = _Layer({"kernel": (x.width, width)}, y.size)
  return y, [_conv_norm(x.width, y, 3), _conv_norm(width, y, 3), shortcut]


def _part(name: str, output: Map, layers: list[_Layer]) -> Part:
  return Part(
    name,
    output,
    sum(
      math.prod(shape) for layer in layers for shape in layer.shapes.values()
    ),
    sum(map(_multiply_adds, layers)),
  )


def _multiply_adds(layer: _Layer) -> int:
  return sum(
    math.prod(shape) * _pixels(layer, shape)
    for name, shape in layer.shapes.items()
    # The others are BatchNorm's and biases, or added to maps.
    if len(shape) > 1 and "structuring" not in name
  )


def _pixels(layer: _Layer, kernel: tuple[int, ...]) -> int:
  """Returns the number of output pixels of one kernel of the layer.

  A 1xk convolution strides only along its k pixels; the kx1 convolution that
  follows it strides along the other axis.
  """
  is_1xk = len(kernel) == 4 and kernel[2] == 1
  return layer.size**2 * (layer.stride if is_1xk else 1)


def _stem(
  config: NetworkConfig, image: Map
) -> tuple[list[_Layer], tuple[Map, Map]]:
  """Returns the stem's layers and the inputs of the first cell."""
  width, size = config.channels, image.size
  if config.stem == "cifar":
    output = Map(3 * width, size)
    return [_conv_norm(image.width, output, 3)], (output, output)
  maps = (
    image,
    Map(width // 2, size // 2),
    Map(width, size // 4),
    Map(width, size // 8),
  )
  layers = [_conv_norm(x.width, y, 3) for x, y in itertools.pairwise(maps)]
  return layers, maps[-2:]


def _cell(
  op_set: str,
  rows: np.ndarray,
  width: int,
  reduction: bool,
  inputs: tuple[Map, Map],
) -> tuple[list[_Layer], Map]:
  """Returns a cell's layers and its output; see `stand_alone.Cell`."""
  calibrated = Map(width, inputs[1].size)
  size = calibrated.size // (1 + reduction)
  layers = [_calibration(x, calibrated) for x in inputs]
  for source, op in rows.reshape(-1, 2).tolist():
    stride = 1 + (reduction and source < 2)
    shapes = ops.shapes(cnn.OP_SETS[op_set][op], width, stride)
    layers.append(_Layer(shapes, size, stride))
  loose = np.flatnonzero(cnn.unused_states(rows))
  if reduction:
    shapes = ops.factorized_reduction_shapes(width, width)
    layers += [_Layer(shapes, size)] * np.count_nonzero(loose < 2)
  return layers, Map(len(loose) * width, size)


def _calibration(x: Map, to: Map) -> _Layer:
  """Returns the layer of a `macro.Calibration`."""
  if x.size != to.size:
    shapes = ops.factorized_reduction_shapes(x.width, to.width)
  elif x.width != to.width:
    shapes = ops.conv_bn_shapes(x.width, to.width)
  else:
    shapes = {}
  return _Layer(shapes, to.size)


def _auxiliary(config: NetworkConfig, parts: list[Part]) -> Part | None:
  """Returns the auxiliary head on the last reduction cell; it pools to 2x2."""
  if not config.auxiliary:
    return None
  width = [p.output.width for p in parts if p.name == "reduction"][-1]
  layers = [
    _conv_norm(width, Map(128, 2), 1),
    _conv_norm(128, Map(768, 1), 2),
    _linear(768, config.classes),
  ]
  return _part("auxiliary", Map(config.classes, 1), layers)


def _conv_norm(width: int, output: Map, size: int) -> _Layer:
  return _Layer(conv_norm_shapes(width, output.width, size), output.size)


def _linear(width: int, classes: int) -> _Layer:
  return _Layer(linear_shapes(width, classes), 1)
