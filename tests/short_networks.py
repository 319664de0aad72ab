"""Networks of fewer cells than any that is searched for, for cheap tests."""

from collections.abc import Iterator
import contextlib
import dataclasses

import jax
import pytest

from nao_jax.networks import parameters
from nao_jax.networks.macro import NetworkConfig
from nao_jax.training import feeds, memory


def cells(kinds: str, channels: int) -> tuple[tuple[bool, int], ...]:
  """(is a reduction cell, width) of each; it doubles at a reduction.

  Args:
    kinds: N for a normal cell, R for a reduction cell, from the images on.
    channels: of the network.
  """
  return tuple(
    (kind == "R", channels << kinds[: at + 1].count("R"))
    for at, kind in enumerate(kinds)
  )


@dataclasses.dataclass(frozen=True)
class ShortConfig(NetworkConfig):
  """The sizes of a network whose cells are given; they compile in less time.

  Attributes:
    kinds: see `cells`.
  """

  kinds: str = "RN"

  @property
  def cells(self) -> tuple[tuple[bool, int], ...]:
    """The cells of the network; see the function `cells`."""
    return cells(self.kinds, self.channels)


# Tests put another function in its place; see conftest.py.
_drop_programs = jax.clear_caches
# In the place of `NetworkConfig.cells`: two, whatever the settings say.
TWO_CELLS = property(lambda config: cells("RN", config.channels))
# Two, and one more for each further cell of a stage.
FEW_CELLS = property(
  lambda config: cells("R" + "N" * config.cells_per_stage, config.channels)
)


@contextlib.contextmanager
def two_cells(found: property = TWO_CELLS) -> Iterator[None]:
  """Gives every network two cells, or those that `found` gives.

  Equal settings then stand for other networks, so that what is remembered of
  them is forgotten before and after.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(NetworkConfig, "cells", found)
    _forget()
    yield
    _forget()


def _forget() -> None:
  parameters._shapes.cache_clear()
  feeds.program.cache_clear()
  memory.of_network.cache_clear()
  _drop_programs()
