"""Chains of mobile blocks (SemiNAS, Luo et al. 2020; ProxylessNAS).

A network has stages of places, and a token for each place: 1 to K choose the
kind of its block, K + 1 none, so that the place passes its input on. A stage
begins with a block that changes the shape of maps, so its first place has one.
Blocks are inverted bottlenecks (MBConv), which a kernel and an expansion
describe.
"""

from collections.abc import Sequence
import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np

from nao_jax.spaces.space import Space

NOTHING = "nothing"


class Block(NamedTuple):
  """A kind of block.

  Attributes:
    kernel: width of the depthwise convolution.
    expansion: factor of the width inside the block.
  """

  kernel: int
  expansion: int

  @property
  def name(self) -> str:
    """The name that is usual in drawings, such as `MB6 3x3`."""
    return f"MB{self.expansion} {self.kernel}x{self.kernel}"


PLACES = (4, 4, 4, 4, 4, 1)
BLOCKS = tuple(Block(kernel, e) for kernel in (3, 5, 7) for e in (3, 6))
# The chain that SemiNAS found for ImageNet.
SEMINASNET = "6 5 1 7 4 2 5 3 5 2 5 3 3 5 7 3 1 6 3 3 6"


@dataclasses.dataclass(frozen=True)
class ChainSpace(Space):
  """The space; made by `space`.

  Attributes:
    places: number of places of each stage.
    blocks: the K kinds of blocks.
  """

  places: tuple[int, ...] = PLACES
  blocks: tuple[Block, ...] = BLOCKS

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the K + 1 choices."""
    return (*(block.name for block in self.blocks), NOTHING)

  @property
  def stages(self) -> tuple[slice, ...]:
    """Positions of each stage."""
    ends = itertools.accumulate(self.places, initial=0)
    return tuple(slice(*pair) for pair in itertools.pairwise(ends))

  def parse(self, text: str, source: str = "arch") -> np.ndarray:
    """Reads tokens, a .json file with `tokens`, or the name SemiNASNet."""
    if text.strip().lower() == "seminasnet":
      text = SEMINASNET
    return super().parse(text, source)

  def canonical(self, tokens: np.ndarray) -> np.ndarray:
    """Returns chains [..., L] with the empty places at the end of each stage.

    Chains that differ only in the position of empty places within a stage
    compute the same functions.
    """
    tokens = np.array(tokens)
    for at in self.stages:
      empty = tokens[..., at] > len(self.blocks)
      order = np.argsort(empty, axis=-1, kind="stable")
      tokens[..., at] = np.take_along_axis(tokens[..., at], order, -1)
    return tokens

  def _place(self, position: int) -> str:
    text = f"place {position + 1} of {self.length}"
    for number, at in enumerate(self.stages, 1):
      if at.start == position:
        text += f", which begins stage {number},"
    return text

  def _meaning(self, position: int, token: int) -> str:
    del position
    return f"{token} ({self.names[token - 1]})"


@functools.cache
def space(
  places: Sequence[int] = PLACES, blocks: Sequence[Block] = BLOCKS
) -> ChainSpace:
  """Returns the space of chains; by default SemiNAS's, of 21 places.

  Args:
    places: number of places of each stage; a tuple.
    blocks: the K kinds of blocks, in the order of their tokens; a tuple.
  """
  any_block = tuple(range(1, len(blocks) + 1))
  name = "mobile"
  if (places, blocks) != (PLACES, BLOCKS):
    kinds = "-".join(f"{kernel}x{expansion}" for kernel, expansion in blocks)
    name = f"mobile-{'-'.join(map(str, places))}-of-{kinds}"
  return ChainSpace(
    name=name,
    choices=tuple(
      any_block if place == 0 else (*any_block, len(blocks) + 1)
      for count in places
      for place in range(count)
    ),
    places=tuple(places),
    blocks=tuple(blocks),
  )
