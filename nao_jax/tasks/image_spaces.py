"""Spaces of convolutional cells, and their networks at given sizes."""

from nao_jax.networks.build import Network
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space

SPACES = ("nao", "nasbench201")


def space(name: str, sizes: NetworkConfig, encoding: str = "pairs") -> Space:
  """Returns a search space.

  Args:
    name: one of `SPACES`.
    sizes: sizes of the network; `nao` depends on its op set and nodes.
    encoding: with `nao`, the encoding of its tokens.
  """
  if name == "nao":
    return cnn.space(sizes.nodes, sizes.ops, encoding)
  return network(name, sizes).space


def network(name: str, sizes: NetworkConfig) -> Network:
  """Returns the description of a network for cells of a space.

  Args:
    name: one of `SPACES`.
    sizes: `nasbench201` has only its channels, cells per stage and classes.
  """
  if name == "nao":
    return sizes
  return EdgeNetworkConfig(sizes.cells_per_stage, sizes.channels, sizes.classes)
