"""The macro-structure around the cells: stem, stages and heads.

A network is a stem, then three stages of `cells_per_stage` normal cells with a
reduction cell between stages. The width starts at `channels` and doubles at
each reduction cell, which has the doubled width in all its states. Each cell
reads the outputs of the two cells before it; the first one reads the stem's.
Maps are [C, H, W, B] inside, and input images [B, H, W, 3].
"""

from collections.abc import Callable
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from nao_jax import parallel
from nao_jax.errors import UserError
from nao_jax.networks import convolutions, normalisation, ops, pooling
from nao_jax.networks.parameters import Statistics, declare, normaliser
from nao_jax.settings import field, validate
from nao_jax.spaces import cnn
from nao_jax.spaces.arrays import Array

# Logits [B, classes], and those of the auxiliary head or None.
Outputs = tuple[jax.Array, jax.Array | None]

STEMS = ("cifar", "imagenet")
# Far above the sizes of real networks. Larger values would fail in other ways
# than for lack of memory.
MOST_CELLS, MOST_CHANNELS = 1000, 2**20
# Upper bound on the maps of the first stage's size that a branch keeps.
MOST_MAPS = 30


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Sizes of a network; defaults from the official search.

  Attributes:
    ops: the name of the op set.
    nodes: number of computed nodes in a cell.
    cells_per_stage: normal cells in each of the three stages.
    channels: width of the first stage.
    classes: number of classes.
    stem: "cifar", for small images, or "imagenet", which makes the maps of
      the first cell 8 times smaller than the images.
    auxiliary: whether there is a second classifier, on the output of the second
      reduction cell.
    dropout: probability of dropping a feature before the classifier.
  """

  ops: str = field("small", choices=tuple(cnn.OP_SETS))
  nodes: int = field(5, least=cnn.MIN_NODES, most=cnn.MAX_NODES)
  cells_per_stage: int = field(3, least=1, most=MOST_CELLS)
  channels: int = field(20, least=2, most=MOST_CHANNELS)
  classes: int = field(10, least=1)
  stem: str = field("cifar", choices=STEMS)
  auxiliary: bool = False
  dropout: float = field(0.0, least=0, below=1)

  @property
  def cells(self) -> tuple[tuple[bool, int], ...]:
    """For each cell: whether it is a reduction cell, and its width."""
    layout = []
    for stage in range(3):
      width = self.channels * 2**stage
      layout += [(True, width)] * (stage > 0)
      layout += [(False, width)] * self.cells_per_stage
    return tuple(layout)

  @property
  def branches(self) -> int:
    """Number of branches of a cell, 2 nodes."""
    return 2 * self.nodes

  # Name of what has an op, and the setting that makes maps narrower.
  parts, narrower = "branches", "network.channels"

  @property
  def op_names(self) -> tuple[str, ...]:
    """Names of the ops."""
    return cnn.OP_SETS[self.ops]

  def chosen_ops(self, tokens: Array) -> Array:
    """Returns the ops of both cells' branches, [A, 4 nodes] of [A, 8 nodes]."""
    return self.to_cells(tokens)[..., 1::2].reshape(len(tokens), -1)

  def largest_inside(self, image_size: int) -> int:
    """Returns 0: no map inside of an op is larger than those that are kept."""
    del image_size
    return 0

  def most_kept(self, image_size: int) -> float:
    """Returns a bound on the values that a step keeps for one image."""
    shrunk = 64 if self.stem == "imagenet" else 1
    maps = MOST_MAPS * self.branches * len(self.cells)
    return maps * self.channels * image_size**2 / shrunk

  @property
  def space(self) -> cnn.CellSpace:
    """Space of the architectures, in pairs."""
    return cnn.space(self.nodes, self.ops)

  @property
  def architecture_shape(self) -> tuple[int, ...]:
    """Shape of an architecture as data."""
    return 2, self.nodes, 4

  def resized(self, sizes: "NetworkConfig") -> "NetworkConfig":
    """Returns the network at other sizes, which describe it completely."""
    return sizes

  def to_cells(self, tokens: Array) -> Array:
    """Converts tokens [..., 8 nodes] in pairs to cells [..., 2, nodes, 4]."""
    return cnn.to_cells(tokens)

  def check_together(self) -> None:
    """Raises UserError for widths that cannot be halved."""
    if self.channels % 2:
      raise UserError(
        f"`channels={self.channels}`: a factorized reduction halves the "
        f"channels; give an even number from 2 to {MOST_CHANNELS}"
      )

  def check(self, image_size: int) -> None:
    """Raises UserError if the network cannot be built for such images."""
    validate(self)
    divisor, usual = (4, 32) if self.stem == "cifar" else (32, 224)
    if image_size % divisor:
      raise UserError(
        f"images are {image_size} pixels wide, which the network's reductions "
        f"do not divide; give images whose size is a multiple of {divisor}"
      )
    if self.auxiliary and image_size != usual:
      raise UserError(
        f"`auxiliary=True`: the auxiliary head is made for {usual}x{usual} "
        f"images, these are {image_size}x{image_size}; give `auxiliary=False`"
      )


def classify(
  module: nn.Module,
  cell: Callable,
  images: jax.Array,
  masks: jax.Array | None,
  deterministic: bool,
  *,
  statistics: Statistics = "batch",
  maps: Callable = lambda output: output,
) -> Outputs:
  """Builds a whole network around its cells; called within a compact module.

  Args:
    module: the network; its attributes are `config`, the sizes, and
      `axis_name`, the mapped axis over which BatchNorm takes its statistics.
    cell: a function of k, the outputs of the two cells before, and masks [2
      nodes, B] or None, which returns the output of cell k.
    images: float32 [B, H, W, c].
    masks: float32 [cells, 2 nodes, B], or None.
    deterministic: whether to omit dropout; otherwise the rng `dropout` is
      required.
    statistics: the statistics that BatchNorm normalises by.
    maps: converts the output of a cell to [C, H, W, B], which the heads read.

  Returns:
    logits [B, classes], and those of the auxiliary head or None.
  """
  config, axis_name = module.config, module.axis_name
  norm = (axis_name, statistics)
  previous, current = Stem(config, *norm, name="stem")(images)
  auxiliary = None
  for k in range(len(config.cells)):
    mask = None if masks is None else masks[k]
    previous, current = current, cell(k, previous, current, mask)
    if config.auxiliary and k == 2 * config.cells_per_stage + 1:
      head = AuxiliaryHead(config.classes, *norm, name="auxiliary")
      auxiliary = head(maps(current))
  features = pooled(maps(current))
  if not deterministic:
    features = Dropout(config.dropout, axis_name)(features)
  return Classifier(config.classes, name="classifier")(features), auxiliary


def pooled(x: jax.Array) -> jax.Array:
  """Returns the means of maps [C, H, W, B], float32 or wider, [B, C]."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.mean(x, (1, 2), dtype=wide).T


class Dropout(nn.Module):
  """Drops features; a batch loses the same features on any number of devices.

  The rng `dropout` must be the same on all devices.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    """Maps features [B, C], this device's part, to [B, C]."""
    if not self.rate:
      return features
    batch, width = features.shape
    devices = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
    kept = jax.random.bernoulli(
      self.make_rng("dropout"), 1 - self.rate, (devices * batch, width)
    )
    kept = parallel.own_part(kept, 0, self.axis_name)
    return jnp.where(kept, features / (1 - self.rate), 0)


def conv_norm_shapes(channels: int, width: int, size: int) -> ops.Shapes:
  """Returns the parameter shapes of a dense convolution and its BatchNorm."""
  return {
    "conv": (width, channels, size, size),
    "scale": (width,),
    "offset": (width,),
  }


def linear_shapes(features: int, classes: int) -> ops.Shapes:
  """Returns the parameter shapes of a linear layer."""
  return {"kernel": (features, classes), "bias": (classes,)}


def conv_norm(
  module: nn.Module,
  name: str,
  x: jax.Array,
  width: int,
  size: int,
  stride: int = 1,
) -> jax.Array:
  """Applies a dense convolution and BatchNorm to [C, H, W, B].

  Args:
    module: the owner of the parameters; its attributes `axis_name` and
      `statistics` determine the normalisation.
    name: the name of the group of parameters.
    x: the maps.
    width: channels of the output.
    size: the size of the kernel.
    stride: the stride of the convolution.
  """
  w = declare(module, name, conv_norm_shapes(x.shape[0], width, size))
  x = convolutions.conv(x, w["conv"], strides=(stride, stride))
  return normaliser(module, name)(x, w, axis_name=module.axis_name)


class Stem(nn.Module):
  """Computes the inputs of the first cell with 3x3 convolutions.

  For small images, one convolution to three times the first width and
  BatchNorm, without ReLU; both inputs are its output. For ImageNet, three
  convolutions of stride 2 with BatchNorm, and ReLU between them; the inputs are
  the outputs of the last two.
  """

  config: NetworkConfig
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps images [B, H, W, c] to two inputs [C, H', W', B]."""
    x = jnp.transpose(images, (3, 1, 2, 0))
    width = self.config.channels
    if self.config.stem == "cifar":
      x = self._conv("", x, 3 * width)
      return x, x
    x = self._conv("first", x, width // 2, 2)
    previous = self._conv("second", jax.nn.relu(x), width, 2)
    return previous, self._conv("third", jax.nn.relu(previous), width, 2)

  def _conv(self, name, x, width, stride=1):
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return conv_norm(self, name, x, width, 3, stride)


class AuxiliaryHead(nn.Module):
  """A second classifier, on the output of the second reduction cell.

  Its input is 8x8 for CIFAR and 7x7 for ImageNet.
  """

  classes: int
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [C, S, S, B] to logits [B, classes]."""
    # The stride at which two windows of 5 just cover the map, as in the
    # official code.
    x = pooling.valid_avg_pool(jax.nn.relu(x), 5, x.shape[1] - 5)
    x = jax.nn.relu(conv_norm(self, "narrow", x, 128, 1))
    x = jax.nn.relu(conv_norm(self, "wide", x, 768, 2))
    return Classifier(self.classes, name="classifier")(x[:, 0, 0].T)


class Classifier(nn.Module):
  """A linear layer, computed in float32 or wider."""

  classes: int

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    """Maps features [B, C] to logits [B, classes]."""
    w = declare(self, "", linear_shapes(features.shape[1], self.classes))
    wide = normalisation.wide
    return wide(features) @ wide(w["kernel"]) + w["bias"]


class Calibration(nn.Module):
  """Brings an input of a cell to the cell's width and map size.

  A larger map (the input comes from before a reduction cell) goes through ReLU
  and a factorized reduction; a map of another width through ReLU, a 1x1
  convolution and BatchNorm. Other inputs are unchanged.
  """

  width: int
  size: int
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [C, H, W, B] to [width, size, size, B]."""
    if x.shape[1] != self.size:
      shapes = ops.factorized_reduction_shapes(x.shape[0], self.width)
      function = ops.factorized_reduction
    elif x.shape[0] != self.width:
      shapes = ops.conv_bn_shapes(x.shape[0], self.width)
      function = ops.conv_bn
    else:
      return x
    weights = declare(self, "", shapes)
    return function(jax.nn.relu(x), weights, self.axis_name, normaliser(self))


def shrink_input(
  module: nn.Module, i: int, x: jax.Array, used: bool | jax.Array = True
) -> jax.Array:
  """Reduces input i of a reduction cell, for use as a loose end.

  Args:
    module: the owner of the parameters `loose_input_i`; its attributes `width`,
      `axis_name` and `statistics` determine their shapes and the normalisation.
    i: 0 or 1.
    x: [C, H, W, B].
    used: see `normaliser`.

  Returns:
    [C, H / 2, W / 2, B].
  """
  name = f"loose_input_{i}"
  shapes = ops.factorized_reduction_shapes(module.width, module.width)
  return ops.factorized_reduction(
    x,
    declare(module, name, shapes),
    module.axis_name,
    normaliser(module, name, used),
  )


def drop_path_masks(
  key: jax.Array,
  config: NetworkConfig,
  batch: int,
  keep: float,
  progress: float | jax.Array,
) -> jax.Array:
  """Draws the factors of scheduled drop-path for the output of each branch.

  For each example independently, a branch of cell k is kept with probability 1
  - progress * (k + 1) / cells * (1 - keep), and then divided by that
  probability.

  Args:
    key: consumed.
    config: the network.
    batch: B.
    keep: the final probability that the last cell keeps a branch.
    progress: share of all training steps done so far, in [0, 1].

  Returns:
    float32 [cells, 2 nodes, B].
  """
  cells = len(config.cells)
  depth = jnp.arange(1, cells + 1) / cells
  survival = (1 - progress * depth * (1 - keep))[:, None, None]
  shape = (cells, config.branches, batch)
  return jax.random.bernoulli(key, survival, shape) / survival
