"""Spaces of convolutional cells, and their networks at given sizes."""

import dataclasses
from typing import Any

from nao_jax.errors import UserError
from nao_jax.networks.build import Network
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space

SPACES = ("nao", "nasbench201", "own")


def check(name: str, own: EdgeNetworkConfig | None) -> None:
  """Raises UserError if cells of one's own are missing or have no effect."""
  if (name == "own") != (own is not None):
    raise UserError(
      f"`space={name}`: cells of your own go with `space=own`, and only "
      "Python knows them: give them as tasks.images.Images(own=..); the report "
      "of such a search is search_page.write(path, cells_of=task.cells)"
    )


def described(own: EdgeNetworkConfig | None) -> dict[str, Any]:
  """Returns what identifies cells of one's own, JSON-like; {} without any."""
  if own is None:
    return {}
  shapes = {
    one.name: {k: list(v) for k, v in one.shapes(own.channels).items()}
    for one in own.operations
  }
  return {
    "own.operations": shapes,
    "own.edges": [*map(list, own.edges)],
    "own.affine": own.affine,
  }


def space(
  name: str,
  sizes: NetworkConfig,
  encoding: str = "pairs",
  own: EdgeNetworkConfig | None = None,
) -> Space:
  """Returns a search space.

  Args:
    name: one of `SPACES`.
    sizes: sizes of the network; `nao` depends on its op set and nodes.
    encoding: with `nao`, the encoding of its tokens.
    own: with `own`, the cells.
  """
  if name == "nao":
    return cnn.space(sizes.nodes, sizes.ops, encoding)
  return network(name, sizes, own).space


def network(
  name: str, sizes: NetworkConfig, own: EdgeNetworkConfig | None = None
) -> Network:
  """Returns the description of a network for cells of a space.

  Args:
    name: one of `SPACES`.
    sizes: all but `nao` have only its channels, cells per stage and classes.
    own: with `own`, the cells.

  Raises:
    UserError: cells of one's own are not given.
  """
  if name == "nao":
    return sizes
  check(name, own)
  return dataclasses.replace(
    own or EdgeNetworkConfig(),
    cells_per_stage=sizes.cells_per_stage,
    channels=sizes.channels,
    classes=sizes.classes,
  )
