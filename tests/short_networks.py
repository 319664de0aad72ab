"""Networks of fewer cells than any that is searched for, for cheap tests."""

import dataclasses

from nao_jax.networks.macro import NetworkConfig


@dataclasses.dataclass(frozen=True)
class ShortConfig(NetworkConfig):
  """The sizes of a network whose cells are given; they compile in less time.

  Attributes:
    kinds: N for a normal cell, R for a reduction cell, from the images on.
  """

  kinds: str = "RN"

  @property
  def cells(self) -> tuple[tuple[bool, int], ...]:
    """(is a reduction cell, width) of each; it doubles at a reduction."""
    return tuple(
      (kind == "R", self.channels << self.kinds[: at + 1].count("R"))
      for at, kind in enumerate(self.kinds)
    )
