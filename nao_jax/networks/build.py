"""Networks for all kinds of cells, from their sizes.

A description of a network (`macro.NetworkConfig` for NAO's cells,
`edge_config.EdgeNetworkConfig` for sums of edges,
`mobile_config.MobileNetworkConfig` for chains of blocks) has the attributes
`classes`, `auxiliary`, `cells` and `branches` (what drop-path can drop),
`space`, `architecture_shape` and the methods `resized`, `to_cells` and `check`;
drawings, reports and counts of memory read its other public attributes, which
all three have.
The functions here make a network from it; a new kind registers its own.
"""

import dataclasses
import functools

from flax import linen as nn
import jax

from nao_jax.networks import candidate as candidates
from nao_jax.networks import parameters
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.edge_network import EdgeNetwork, EdgeStandAlone
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile import MobileNetwork, MobileStandAlone
from nao_jax.networks.mobile_config import MobileNetworkConfig
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.networks.supernet import Supernet

Network = NetworkConfig | EdgeNetworkConfig | MobileNetworkConfig


@functools.singledispatch
def supernet(network: Network, axis_name: str | None = None) -> nn.Module:
  """Returns the supernet, whose architecture is an argument of its call."""
  return Supernet(network, axis_name)


@supernet.register
def _(network: EdgeNetworkConfig, axis_name: str | None = None) -> nn.Module:
  return EdgeNetwork(network, axis_name)


@supernet.register
def _(network: MobileNetworkConfig, axis_name: str | None = None) -> nn.Module:
  return MobileNetwork(network, axis_name)


@functools.singledispatch
def candidate(network: Network, axis_name: str | None = None) -> nn.Module:
  """Returns the candidate: a supernet with running statistics."""
  return candidates.Candidate(network, axis_name)


@candidate.register
def _(network: EdgeNetworkConfig, axis_name: str | None = None) -> nn.Module:
  return EdgeNetwork(network, axis_name, tracks=True)


@candidate.register
def _(network: MobileNetworkConfig, axis_name: str | None = None) -> nn.Module:
  return MobileNetwork(network, axis_name, tracks=True)


def without_auxiliary(network: Network) -> Network:
  """Returns a description of the network without its auxiliary head."""
  if not network.auxiliary:
    return network
  return dataclasses.replace(network, auxiliary=False)


def initialise_candidate(
  module: nn.Module, key: jax.Array, images: jax.Array, cells: jax.Array
) -> dict:
  """Returns variables distributed as those of the stand-alone network.

  Args:
    module: from `candidate`.
    key: consumed.
    images: float32 [B, H, W, c]; only the shape matters.
    cells: int32 [*network.architecture_shape].
  """
  if isinstance(module, candidates.Candidate):
    return candidates.initialise_candidate(module, key, images, cells)
  return parameters.initialise(module, key, images, cells)


@functools.singledispatch
def stand_alone(
  network: Network, tokens: tuple[int, ...], axis_name: str | None = None
) -> nn.Module:
  """Returns the network of one architecture, tokens of `network.space`."""
  return StandAlone(network, tokens, axis_name)


@stand_alone.register
def _(
  network: EdgeNetworkConfig,
  tokens: tuple[int, ...],
  axis_name: str | None = None,
) -> nn.Module:
  return EdgeStandAlone(network, tokens, axis_name)


@stand_alone.register
def _(
  network: MobileNetworkConfig,
  tokens: tuple[int, ...],
  axis_name: str | None = None,
) -> nn.Module:
  return MobileStandAlone(network, tokens, axis_name)
