"""Networks of mobile blocks (MBConv), as in SemiNAS and ProxylessNAS.

A network is a 3x3 convolution, a fixed block, stages of places with a block or
nothing each, a 1x1 convolution and a classifier. A block widens its input with
a 1x1 convolution, convolves depthwise and narrows again, with BatchNorm after
each convolution and ReLU6 after the first two; its input is added where shapes
allow. The blocks of a chain, int32 [L], are an argument of the call, so that
one program serves all chains.

Shapes: B images, L places, P places of a stage, maps [C, H, W, B].
"""

from collections.abc import Callable
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import convolutions, macro, ops
from nao_jax.networks.mobile_config import MobileNetworkConfig
from nao_jax.networks.mobile_config import Stage as StageSizes
from nao_jax.networks.parameters import (
  CarriedNorm,
  Statistics,
  declare,
  normaliser,
  track,
)
from nao_jax.networks.tape import Plan, run_branches
from nao_jax.spaces.mobile import Block

# The fixed block after the stem.
FIRST = Block(kernel=3, expansion=1)


def block_shapes(block: Block, channels: int, width: int) -> ops.Shapes:
  """Returns the parameter shapes of a block from `channels` to `width`."""
  inner = channels * block.expansion
  expansion = {
    "pointwise_1": (channels, inner),
    "scale_1": (inner,),
    "offset_1": (inner,),
  }
  return (expansion if block.expansion > 1 else {}) | {
    "depthwise_2": (inner, block.kernel, block.kernel),
    "scale_2": (inner,),
    "offset_2": (inner,),
    "pointwise_3": (inner, width),
    "scale_3": (width,),
    "offset_3": (width,),
  }


def apply_block(
  x: jax.Array, weights: ops.Parameters, norm: ops.Norm, stride: int
) -> jax.Array:
  """Applies a block to maps [C, H, W, B].

  Args:
    x: the maps.
    weights: as declared by `block_shapes`.
    norm: the BatchNorm function.
    stride: the stride of the depthwise convolution.
  """
  y = x
  if "pointwise_1" in weights:
    y = convolutions.pointwise(y, weights["pointwise_1"])
    y = jax.nn.relu6(norm(y, weights, "_1"))
  y = convolutions.depthwise(y, weights["depthwise_2"], stride)
  y = jax.nn.relu6(norm(y, weights, "_2"))
  y = norm(convolutions.pointwise(y, weights["pointwise_3"]), weights, "_3")
  return y + x if stride == 1 and len(x) == len(y) else y


class MobileNetwork(nn.Module):
  """A classifier whose chain of blocks is an argument of the call.

  Weights are separate for each place and block. It is the supernet with
  `tracks=False`, where BatchNorm uses the batch's statistics, and the candidate
  with `tracks=True`, where it keeps running ones.

  Attributes:
    config: the sizes.
    axis_name: the mapped axis over which BatchNorm takes its statistics.
    tracks: whether there are running statistics.
  """

  config: MobileNetworkConfig
  axis_name: str | None = None
  tracks: bool = False

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    cells: jax.Array,
    masks: None = None,
    deterministic: bool = True,
  ) -> macro.Outputs:
    """Runs one chain on one batch.

    Args:
      images: float32 [B, H, W, c].
      cells: int32 [L], the block of each place; the largest number is none.
      masks: None, as chains have no drop-path.
      deterministic: whether to omit dropout and to use running statistics, if
        there are any; in training they are updated.

    Returns:
      logits [B, classes], and None.
    """
    del masks
    statistics = "batch"
    if self.tracks:
      statistics = "running" if deterministic else "tracked"

    def stage(number, sizes, x):
      norm, name = (self.axis_name, statistics), f"stage_{number}"
      module = Stage(self.config, sizes, *norm, name=name)
      return module(x, cells[sizes.places])

    return _classify(self, stage, images, deterministic, statistics)


class Stage(nn.Module):
  """One stage of the supernet or the candidate.

  Attributes:
    config: the sizes of the network.
    sizes: those of the stage.
    axis_name: see `MobileNetwork`.
    statistics: the statistics that BatchNorm normalises by.
  """

  config: MobileNetworkConfig
  sizes: StageSizes
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array, rows: jax.Array) -> jax.Array:
    """Takes maps [C', H', W', B] and int32 [P]; returns [C, H, W, B]."""
    width, stride = self.sizes.width, self.sizes.stride
    height, length = (-(-extent // stride) for extent in x.shape[1:3])
    zero = jnp.zeros((1, width, height, length, x.shape[-1]), x.dtype)
    # The first block reads maps of other shapes than the others.
    x = self._run("first", x[None], zero, rows[:1])[0]
    if len(rows) == 1:
      return x
    states = jnp.pad(x[None], ((0, len(rows) - 1), *((0, 0),) * 4))
    return self._run("next", None, states, rows[1:])[-1]

  def _run(self, name, source, states, rows) -> jax.Array:
    """Runs some places one after the other; see `run_branches`."""
    blocks, count = self.config.sizes.blocks, len(rows)
    first = source is not None
    channels = self.sizes.source if first else self.sizes.width
    weights = tuple(
      declare(
        self,
        f"{name}_block_{number}",
        block_shapes(block, channels, self.sizes.width),
        (count,),
      )
      for number, block in enumerate(blocks)
    )
    branches = tuple(
      _Branch(
        block,
        self.sizes.stride if first else 1,
        self.axis_name,
        self.statistics,
        self.config.sizes.epsilon,
      )
      for block in blocks
    )
    at = jnp.arange(count)
    target = at if first else at + 1
    plan = Plan(at, jnp.int32(count), rows, at, target)
    if not first:
      weights, branches = (*weights, {}), (*branches, _pass_on)

    def run(memory):
      return run_branches(branches, source, states, weights, memory, None, plan)

    if self.statistics == "batch":
      return run(())[0]
    widest = max(channels * block.expansion for block in blocks)
    row = max(widest, self.sizes.width)
    return track(self, name, (count, 3, row), run)


@dataclasses.dataclass(frozen=True)
class _Branch:
  """A block with the signature that the tape needs; equal by value.

  The running statistics of a place are its memory: mean and variance, both [3,
  largest width], whatever its block.
  """

  block: Block
  stride: int
  axis_name: str | None
  statistics: Statistics
  epsilon: float

  def __call__(self, x, weights, running):
    if self.statistics == "batch":
      norm = functools.partial(
        ops.batch_norm, axis_name=self.axis_name, epsilon=self.epsilon
      )
      return apply_block(x, weights, norm, self.stride), running
    norm = CarriedNorm(running, self.statistics, self.axis_name, self.epsilon)
    return apply_block(x, weights, norm, self.stride), norm.running


def _pass_on(x, weights, running):
  """Stands for an empty place."""
  del weights
  return x, running


class MobileStandAlone(nn.Module):
  """The network of one chain, with the blocks that it uses alone.

  Attributes:
    config: the sizes.
    tokens: the chain; a tuple of int, to be hashable.
    axis_name: see `MobileNetwork`.
  """

  config: MobileNetworkConfig
  tokens: tuple[int, ...]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: jax.Array, masks: None = None, deterministic: bool = True
  ) -> macro.Outputs:
    """Classifies one batch; see `stand_alone.StandAlone`."""
    del masks
    statistics = "running" if deterministic else "tracked"
    blocks = self.config.sizes.blocks
    chosen = self.config.to_cells(np.int32(self.tokens)).tolist()

    def stage(number, sizes, x):
      del number
      for place in range(sizes.places.start, sizes.places.stop):
        stride = sizes.stride if place == sizes.places.start else 1
        if chosen[place] < len(blocks):
          x = MobileBlock(
            blocks[chosen[place]],
            sizes.width,
            stride,
            self.config.sizes.epsilon,
            self.axis_name,
            statistics,
            name=f"place_{place}",
          )(x)
      return x

    return _classify(self, stage, images, deterministic, statistics)


class MobileBlock(nn.Module):
  """One block of a known kind.

  Attributes:
    block: its kind.
    width: channels of the output.
    stride: the stride of the depthwise convolution.
    epsilon: addition to variances in BatchNorm.
    axis_name: see `MobileNetwork`.
    statistics: the statistics that BatchNorm normalises by.
  """

  block: Block
  width: int
  stride: int
  epsilon: float
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [C', H', W', B] to [width, H, W, B]."""
    weights = declare(self, "", block_shapes(self.block, len(x), self.width))
    norm = normaliser(self, epsilon=self.epsilon)
    norm = functools.partial(norm, axis_name=self.axis_name)
    return apply_block(x, weights, norm, self.stride)


class ConvNorm(nn.Module):
  """A convolution, BatchNorm and ReLU6.

  Attributes:
    width: channels of the output.
    size: width of the kernel, odd.
    stride: the stride of the convolution.
    epsilon: addition to variances in BatchNorm.
    axis_name: see `MobileNetwork`.
    statistics: the statistics that BatchNorm normalises by.
  """

  width: int
  size: int
  stride: int
  epsilon: float
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [C', H', W', B] to [width, H, W, B]."""
    shapes = macro.conv_norm_shapes(len(x), self.width, self.size)
    weights = declare(self, "", shapes)
    margin = ((self.size // 2,) * 2,) * 2
    x = convolutions.conv(x, weights["conv"], (self.stride,) * 2, margin)
    norm = normaliser(self, epsilon=self.epsilon)
    return jax.nn.relu6(norm(x, weights, axis_name=self.axis_name))


def _classify(
  module: MobileNetwork | MobileStandAlone,
  stage: Callable,
  images: jax.Array,
  deterministic: bool,
  statistics: Statistics,
) -> macro.Outputs:
  """Builds a network around its stages; called within a compact module."""
  config = module.config
  sizes, norm = config.sizes, (module.axis_name, statistics)
  x = jnp.transpose(images, (3, 1, 2, 0))
  stem = sizes.stem_width, 3, sizes.stem_stride, sizes.epsilon
  x = ConvNorm(*stem, *norm, name="stem")(x)
  first = FIRST, sizes.first_width, 1, sizes.epsilon
  x = MobileBlock(*first, *norm, name="first")(x)
  for number, one in enumerate(config.stages):
    x = stage(number, one, x)
  x = ConvNorm(sizes.last_width, 1, 1, sizes.epsilon, *norm, name="last")(x)
  features = macro.pooled(x)
  if not deterministic:
    features = macro.Dropout(config.dropout, module.axis_name)(features)
  return macro.Classifier(config.classes, name="classifier")(features), None
