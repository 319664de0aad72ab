"""Sizes of networks of mobile blocks; the networks are in mobile.py."""

import dataclasses
import math
from typing import NamedTuple

from nao_jax.errors import UserError, named
from nao_jax.networks import macro, normalisation
from nao_jax.settings import field, within
from nao_jax.spaces import mobile
from nao_jax.spaces.arrays import Array
from nao_jax.spaces.mobile import Block, ChainSpace

_MOST_PLACES, _MOST_STRIDE = 1000, 4
_MOST_KERNEL, _MOST_EXPANSION = 15, 64
# Upper bound on the maps of its inner width that a block keeps.
_MOST_MAPS = 15


@dataclasses.dataclass(frozen=True)
class MobileConfig:
  """Sizes and choices of chains of mobile blocks.

  The defaults are those of the search on ImageNet (SemiNAS).

  Attributes:
    stem_width: width of the first convolution.
    stem_stride: stride of the first convolution.
    first_width: width of the fixed block after it, an MBConv with kernel 3,
      stride 1 and expansion 1.
    places: number of places of each stage.
    widths: width of each stage.
    strides: stride of the first place of each stage.
    last_width: width of the 1x1 convolution before the classifier.
    kernels: kernel of each kind of block.
    expansions: expansion of each kind of block.
    epsilon: addition to variances in BatchNorm.
  """

  stem_width: int = field(32, least=1, most=macro.MOST_CHANNELS)
  stem_stride: int = field(2, least=1, most=_MOST_STRIDE)
  first_width: int = field(16, least=1, most=macro.MOST_CHANNELS)
  places: tuple[int, ...] = field(mobile.PLACES, least=1, most=_MOST_PLACES)
  widths: tuple[int, ...] = field(
    (24, 40, 80, 96, 192, 320), least=1, most=macro.MOST_CHANNELS
  )
  strides: tuple[int, ...] = field(
    (2, 2, 2, 1, 2, 1), least=1, most=_MOST_STRIDE
  )
  last_width: int = field(1280, least=1, most=macro.MOST_CHANNELS)
  kernels: tuple[int, ...] = field(
    tuple(block.kernel for block in mobile.BLOCKS), least=1, most=_MOST_KERNEL
  )
  expansions: tuple[int, ...] = field(
    tuple(block.expansion for block in mobile.BLOCKS),
    least=1,
    most=_MOST_EXPANSION,
  )
  epsilon: float = field(normalisation.EPSILON, above=0)

  @property
  def blocks(self) -> tuple[Block, ...]:
    """The kinds of blocks, in the order of their tokens."""
    return tuple(map(Block, self.kernels, self.expansions))

  def check_together(self) -> None:
    """Raises UserError for settings that contradict each other."""
    for one, other in (
      ("widths", "places"),
      ("strides", "places"),
      ("expansions", "kernels"),
    ):
      counts = len(getattr(self, one)), len(getattr(self, other))
      if counts[0] != counts[1]:
        raise UserError(
          f"{named(one, getattr(self, one))}: {counts[0]} numbers, but "
          f"{named(other, getattr(self, other))} has {counts[1]}; give as many"
        )
    if even := [kernel for kernel in self.kernels if not kernel % 2]:
      raise UserError(
        f"`kernels={self.kernels}`: {even[0]} is even; give odd numbers"
      )
    for block in self.blocks:
      if self.blocks.count(block) > 1:
        raise UserError(
          f"`kernels={self.kernels}`: kernel {block.kernel} with "
          f"expansion {block.expansion} occurs twice; give each once"
        )


# The network that SemiNAS trained to the end.
SEMINASNET = MobileConfig(
  stem_width=40,
  first_width=24,
  widths=(32, 56, 112, 128, 256, 432),
  last_width=1728,
  epsilon=1e-3,
)
# For images of 32x32 pixels; ours, with the choices of NAS-Bench-Macro.
SMALL = MobileConfig(
  stem_width=32,
  stem_stride=1,
  first_width=16,
  places=(2, 3, 3),
  widths=(24, 48, 96),
  strides=(1, 2, 2),
  last_width=256,
  kernels=(3, 5),
  expansions=(3, 6),
)


class Stage(NamedTuple):
  """A stage of a network.

  Attributes:
    source: width of its input.
    width: width of its output.
    stride: stride of its first place.
    places: positions of its places in the chain.
  """

  source: int
  width: int
  stride: int
  places: slice


@dataclasses.dataclass(frozen=True)
class MobileNetworkConfig:
  """Description of a network; see `build`.

  Attributes:
    sizes: sizes and choices.
    classes: number of classes.
    dropout: probability of dropping a feature before the classifier.
  """

  sizes: MobileConfig = MobileConfig()
  classes: int = field(10, least=1)
  dropout: float = field(0.0, least=0, below=1)

  # There is no second classifier, and nothing that drop-path could drop.
  auxiliary, branches, cells = False, 0, ()
  # See `macro.NetworkConfig`.
  parts, narrower = "places", "mobile.widths"

  @property
  def op_names(self) -> tuple[str, ...]:
    """Names of the blocks, and of none."""
    return self.space.names

  def chosen_ops(self, tokens: Array) -> Array:
    """Returns the blocks of the places, [A, L]."""
    return self.to_cells(tokens)

  def largest_inside(self, image_size: int) -> int:
    """Returns the values of the largest map inside of a block, of one image."""
    sizes, found = self.sizes, []
    size = -(-image_size // sizes.stem_stride)
    for stage in self.stages:
      found.append(stage.source * size**2)
      size = -(-size // stage.stride)
      found.append(stage.width * size**2)
    return max(sizes.expansions) * max(found)

  def most_kept(self, image_size: int) -> float:
    """Returns a bound on the values that a step keeps for one image."""
    sizes = self.sizes
    size = image_size / sizes.stem_stride + 1
    total = sizes.stem_width * size**2
    for stage in self.stages:
      widest = max(sizes.expansions) * max(stage.source, stage.width)
      count = stage.places.stop - stage.places.start
      total += count * widest * size**2
      size = size / stage.stride + 1
    return _MOST_MAPS * (total + sizes.last_width * size**2)

  @property
  def space(self) -> ChainSpace:
    """Space of the chains."""
    return mobile.space(self.sizes.places, self.sizes.blocks)

  @property
  def stages(self) -> tuple[Stage, ...]:
    """The stages, from the images on."""
    sizes = self.sizes
    sources = (sizes.first_width, *sizes.widths)
    return tuple(
      map(Stage, sources, sizes.widths, sizes.strides, self.space.stages)
    )

  @property
  def reduction(self) -> int:
    """Factor by which the strides reduce the width of an image."""
    return self.sizes.stem_stride * math.prod(self.sizes.strides)

  @property
  def architecture_shape(self) -> tuple[int, ...]:
    """Shape of an architecture as data: (number of places,)."""
    return (sum(self.sizes.places),)

  def resized(self, sizes: macro.NetworkConfig) -> "MobileNetworkConfig":
    """Returns the network with these classes and dropout."""
    return dataclasses.replace(
      self, classes=sizes.classes, dropout=sizes.dropout
    )

  def to_cells(self, tokens: Array) -> Array:
    """Converts tokens [..., L] to indices of blocks, int32 [..., L]."""
    return tokens - 1

  def check(self, image_size: int) -> None:
    """Raises UserError if the network does not suit such images."""
    with within("mobile", self.sizes):
      self.sizes.check_together()
    if image_size < self.reduction:
      raise UserError(
        f"images are {image_size} pixels wide, and the strides reduce them "
        f"{self.reduction}-fold ("
        f"`mobile.stem_stride={self.sizes.stem_stride}`, "
        f"`mobile.strides={self.sizes.strides}`); give smaller strides"
      )
