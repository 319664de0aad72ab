"""Drawings of the architectures of all kinds of networks."""

import functools

from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import chain, convolutional, edges
from nao_jax.networks import mobile
from nao_jax.networks.build import Network
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileNetworkConfig


def figures(network: Network, tokens: np.ndarray) -> dict[str, Figure]:
  """Returns {caption: figure} of an architecture [L], for a report."""
  if isinstance(network, NetworkConfig):
    return {
      f"The {part.lower()} cell.": convolutional.figure(
        tokens, network.op_names, parts=[part]
      )
      for part in convolutional.PARTS
    }
  mobile_network = isinstance(network, MobileNetworkConfig)
  name = "The chain of blocks." if mobile_network else "The cell."
  return {name: figure(network, tokens)}


@functools.singledispatch
def figure(
  network: NetworkConfig, tokens: np.ndarray, title: str = ""
) -> Figure:
  """Draws an architecture [L] in one figure, below a title."""
  return convolutional.figure(tokens, network.op_names, title=title)


@figure.register
def _(network: EdgeNetworkConfig, tokens, title: str = "") -> Figure:
  return edges.figure(*_edges(network, tokens), title=title)


@figure.register
def _(network: MobileNetworkConfig, tokens, title: str = "") -> Figure:
  return chain.figure(_rows(network, tokens), network.op_names, title=title)


def _edges(network: EdgeNetworkConfig, tokens: np.ndarray) -> tuple:
  """Returns edges, name of each edge's operation, and all names."""
  (chosen,) = network.chosen_ops(np.asarray(tokens)[None])
  names = network.op_names
  return network.edges, [names[number] for number in chosen], names


def _rows(network: MobileNetworkConfig, tokens: np.ndarray) -> list[chain.Row]:
  """Returns the stages of a chain, with the fixed parts before and after."""
  sizes, chosen = network.sizes, network.to_cells(np.asarray(tokens))
  blocks = sizes.blocks

  def label(width, stride=1):
    return f"{width} channels" + f", stride {stride}" * (stride > 1)

  return [
    chain.Row(label(sizes.stem_width, sizes.stem_stride), ["conv 3x3"]),
    chain.Row(label(sizes.first_width), [mobile.FIRST.name]),
    *(
      chain.Row(
        label(stage.width, stage.stride),
        [blocks[x].name for x in chosen[stage.places] if x < len(blocks)],
      )
      for stage in network.stages
    ),
    chain.Row(label(sizes.last_width), ["conv 1x1"]),
  ]
