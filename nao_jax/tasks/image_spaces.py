"""Spaces of convolutional cells, and their networks."""

from typing import Any

from nao_jax.errors import UserError
from nao_jax.networks.build import Network
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig

SPACES = ("nao", "nasbench201", "own")
NAO = NetworkConfig()


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


def layout(name: str, own: EdgeNetworkConfig | None = None) -> Network:
  """Returns a network of a space, whose method `resized` gives those of it.

  Args:
    name: one of `SPACES`.
    own: with `own`, the cells.

  Raises:
    UserError: cells of one's own are missing or have no effect.
  """
  check(name, own)
  return NAO if name == "nao" else own or EdgeNetworkConfig()
