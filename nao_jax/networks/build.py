"""Networks for all kinds of cells, from their sizes.

A description of a network (`macro.NetworkConfig` for NAO's cells,
`edge_config.EdgeNetworkConfig` for sums of edges,
`mobile_config.MobileNetworkConfig` for chains of blocks) has the attributes
`classes`, `auxiliary`, `cells` and `branches` (what drop-path can drop),
`space`, `architecture_shape` and the methods `resized`, `to_cells` and `check`;
drawings, reports and counts of memory read its other public attributes, which
all three have.
The functions here make a network from it; a new kind has its own in `_KINDS`.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import numpy as np

from nao_jax.networks import parameters
from nao_jax.networks.candidate import Candidate, with_fan_ins
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.edge_network import EdgeNetwork, EdgeStandAlone
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile import MobileNetwork, MobileStandAlone
from nao_jax.networks.mobile_config import MobileNetworkConfig
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.networks.supernet import Supernet

Network = NetworkConfig | EdgeNetworkConfig | MobileNetworkConfig


class _Kind(NamedTuple):
  """Modules of a kind of network; see the functions of the same names."""

  supernet: Callable[..., nn.Module]
  candidate: Callable[..., nn.Module]
  stand_alone: Callable[..., nn.Module]


_KINDS = {
  NetworkConfig: _Kind(Supernet, Candidate, StandAlone),
  EdgeNetworkConfig: _Kind(
    EdgeNetwork, functools.partial(EdgeNetwork, tracks=True), EdgeStandAlone
  ),
  MobileNetworkConfig: _Kind(
    MobileNetwork,
    functools.partial(MobileNetwork, tracks=True),
    MobileStandAlone,
  ),
}


def _kind(network: Network) -> _Kind:
  """Returns the modules of a network, whose class may be a subclass."""
  return next(kind for own, kind in _KINDS.items() if isinstance(network, own))


def supernet(network: Network, axis_name: str | None = None) -> nn.Module:
  """Returns the supernet, whose architecture is an argument of its call."""
  return _kind(network).supernet(network, axis_name)


def candidate(network: Network, axis_name: str | None = None) -> nn.Module:
  """Returns the candidate: a supernet with running statistics."""
  return _kind(network).candidate(network, axis_name)


def stand_alone(
  network: Network, tokens: tuple[int, ...], axis_name: str | None = None
) -> nn.Module:
  """Returns the network of one architecture, tokens of `network.space`."""
  return _kind(network).stand_alone(network, tokens, axis_name)


def without_auxiliary(network: Network) -> Network:
  """Returns a description of the network without its auxiliary head."""
  if not network.auxiliary:
    return network
  return dataclasses.replace(network, auxiliary=False)


def initialise_candidate(
  module: nn.Module, key: jax.Array, images: jax.Array, cells: jax.Array
) -> dict:
  """Returns variables distributed as those of the stand-alone network.

  In NAO's cells, a kernel that reads a cell's loose ends has fan-in C times
  their number, while `parameters.initialise` counts all states; the bias of a
  classifier that reads them is scaled likewise. This runs on the host.

  Args:
    module: from `candidate`.
    key: consumed.
    images: float32 [B, H, W, c]; only the shape matters.
    cells: int32 [*network.architecture_shape].

  Returns:
    The variables, NumPy arrays.
  """
  found = parameters.initialise(module, key, images, cells)
  if not isinstance(module, Candidate):
    return found
  cells = np.asarray(cells)
  return found | {"params": with_fan_ins(module.config, found["params"], cells)}
