"""The macro-structure around the cells: stem, stages, heads.

A network is a stem, then three stages of `cells_per_stage` normal cells with a
reduction cell between stages. Width starts at `channels` and doubles at each
reduction cell, which works throughout at the doubled width. Each cell sees the
outputs of the two cells before it; both inputs of the first are the stem's.
Maps are [C, H, W, B] inside, images [B, H, W, 3] at the door.
"""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.errors import UserError
from nao_jax.networks import layers, ops
from nao_jax.spaces import cnn


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """The sizes of a network; the defaults are the official search's.

  Attributes:
    ops: name of the op set.
    nodes: computed nodes in a cell.
    cells_per_stage: normal cells in each of the three stages.
    channels: width of the first stage.
    classes: of the classifier.
    auxiliary: give the second reduction cell's output a classifier of its own.
    dropout: probability of dropping a feature before the classifier.
  """

  ops: str = "small"
  nodes: int = 5
  cells_per_stage: int = 3
  channels: int = 20
  classes: int = 10
  auxiliary: bool = False
  dropout: float = 0.0

  @property
  def cells(self) -> tuple[tuple[bool, int], ...]:
    """(is a reduction cell, width) of each cell."""
    layout = []
    for stage in range(3):
      width = self.channels * 2**stage
      layout += [(True, width)] * (stage > 0)
      layout += [(False, width)] * self.cells_per_stage
    return tuple(layout)

  def check(self, image_size: int, flags: str = "--channels") -> None:
    """Raises UserError if the network cannot be built for such images."""
    if self.channels < 2 or self.channels % 2:
      raise UserError(
        f"{flags}={self.channels}: a factorized reduction halves the channels; "
        "give an even number, at least 2"
      )
    if image_size % 4:
      raise UserError(
        f"images are {image_size} pixels wide, which two reductions do not "
        "divide; give images whose size is a multiple of 4"
      )
    if self.auxiliary and image_size != 32:
      raise UserError(
        "--auxiliary: the auxiliary head is made for 32x32 images, these are "
        f"{image_size}x{image_size}; give --noauxiliary"
      )
    cnn.space(self.nodes, self.ops)


def declare(
  module: nn.Module, name: str, shapes: ops.Shapes, stack: tuple[int, ...] = ()
) -> ops.Parameters:
  """Declares one group of parameters: {leaf: [*stack, *shape]}."""

  def declare_leaf(leaf, shape):
    def initial(key):
      unit = jax.random.uniform(key, shape, minval=-1, maxval=1)
      return _scale_draw(leaf, unit)

    return module.param(f"{name}_{leaf}" if name else leaf, initial)

  return {leaf: declare_leaf(leaf, stack + s) for leaf, s in shapes.items()}


def _scale_draw(name: str, unit: jax.Array) -> jax.Array:
  """The initial value of a parameter, from a uniform draw in [-1, 1).

  BatchNorm starts as the identity and biases at 0. Kernels are uniform in
  +-1 / sqrt(fan in), PyTorch's default, which the official code leaves as is.
  """
  if "scale" in name:
    return jnp.ones_like(unit)
  if "offset" in name or "bias" in name:
    return jnp.zeros_like(unit)
  return unit / np.sqrt(_fan_in(name, unit.shape))


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
  """Leading axes may be stacks of kernels."""
  if "depthwise" in name:  # [C, k, l]
    return shape[-2] * shape[-1]
  if name.endswith("conv"):  # [out, in, k, l]
    return shape[-3] * shape[-2] * shape[-1]
  return shape[-2]  # [in, out]


def initialise(module: nn.Module, key: jax.Array, *inputs) -> dict:
  """`module.init` with one random draw for all parameters.

  Same distributions, other numbers: compiling a draw for each of hundreds of
  parameters takes longer than the first epochs.

  Args:
    module: a network whose parameters are made by `declare`.
    key: consumed.
    *inputs: what the module is called with; only shapes matter.
  """
  shapes = jax.eval_shape(module.init, key, *inputs)
  return _draw(
    key,
    tuple(
      (path[-1].key, leaf.shape)
      for path, leaf in jax.tree.leaves_with_path(shapes)
    ),
    jax.tree.structure(shapes),
  )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key, leaves, structure):
  sizes = [int(np.prod(shape)) for _, shape in leaves]
  units = jax.random.uniform(key, (sum(sizes),), minval=-1, maxval=1)
  parts = jnp.split(units, np.cumsum(sizes)[:-1])
  return jax.tree.unflatten(
    structure,
    [
      _scale_draw(name, part.reshape(shape))
      for (name, shape), part in zip(leaves, parts, strict=True)
    ],
  )


class Stem(nn.Module):
  """3x3 convolution to `width` channels and BatchNorm, no ReLU."""

  width: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images):
    """[B, H, W, c] to [width, H, W, B]."""
    x = jnp.transpose(images, (3, 1, 2, 0))
    shapes = {
      "conv": (self.width, x.shape[0], 3, 3),
      "scale": (self.width,),
      "offset": (self.width,),
    }
    w = declare(self, "", shapes)
    x = layers.conv(x, w["conv"], padding="SAME")
    return layers.batch_norm(x, w["scale"], w["offset"], self.axis_name)


class AuxiliaryHead(nn.Module):
  """A second classifier, on the 8x8 output of the second reduction cell."""

  classes: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x):
    """[C, 8, 8, B] to logits [B, classes]."""
    x = layers.valid_avg_pool(jax.nn.relu(x), 5, 3)
    x = jax.nn.relu(self._conv_bn("narrow", x, (128, x.shape[0], 1, 1)))
    x = jax.nn.relu(self._conv_bn("wide", x, (768, 128, 2, 2)))
    return Classifier(self.classes, name="classifier")(x[:, 0, 0].T)

  def _conv_bn(self, name, x, shape):
    width = shape[:1]
    shapes = {"conv": shape, "scale": width, "offset": width}
    w = declare(self, name, shapes)
    x = layers.conv(x, w["conv"])
    return layers.batch_norm(x, w["scale"], w["offset"], self.axis_name)


class Classifier(nn.Module):
  """A linear layer."""

  classes: int

  @nn.compact
  def __call__(self, features):
    """[B, C] to logits [B, classes]."""
    shapes = {
      "kernel": (features.shape[1], self.classes),
      "bias": (self.classes,),
    }
    w = declare(self, "", shapes)
    return features @ w["kernel"] + w["bias"]


class Calibration(nn.Module):
  """Brings an input of a cell to the cell's width and map size.

  A larger map (the input comes from before a reduction cell): ReLU, factorized
  reduction. Other channels: ReLU, 1x1 convolution, BatchNorm. Else nothing.
  """

  width: int
  size: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x):
    """[C, H, W, B] to [width, size, size, B]."""
    channels = x.shape[0]
    if x.shape[1] != self.size:
      shapes = ops.factorized_reduction_shapes(channels, self.width)
      return ops.factorized_reduction(
        jax.nn.relu(x), declare(self, "", shapes), self.axis_name
      )
    if channels != self.width:
      shapes = ops.conv_bn_shapes(channels, self.width)
      return ops.conv_bn(
        jax.nn.relu(x), declare(self, "", shapes), self.axis_name
      )
    return x


def drop_path_masks(
  key: jax.Array, config: NetworkConfig, batch: int, keep, progress
) -> jax.Array:
  """Scheduled drop-path: factors on the output of each branch.

  A branch of cell k survives, for each example alone, with probability
  1 - progress * (k + 1) / cells * (1 - keep), and is divided by it.

  Args:
    key: consumed.
    config: the network.
    batch: B.
    keep: the final probability of the last cell.
    progress: share of all training steps that are done, in [0, 1].

  Returns:
    float32 [cells, 2 nodes, B].
  """
  cells = len(config.cells)
  depth = jnp.arange(1, cells + 1) / cells
  survival = (1 - progress * depth * (1 - keep))[:, None, None]
  shape = (cells, 2 * config.nodes, batch)
  return jax.random.bernoulli(key, survival, shape) / survival
