"""Networks of fewer cells than any that is searched for, for cheap tests."""

import dataclasses

from nao_jax.networks.macro import NetworkConfig


@dataclasses.dataclass(frozen=True)
class ShortConfig(NetworkConfig):
  """The sizes of a network whose cells are given; they compile in less time.

  Attributes:
    cells: (is a reduction cell, width) of each; the width doubles at each
      reduction cell, as in the networks that are searched for.
  """

  cells: tuple[tuple[bool, int], ...] = ()
