"""Drawings of the architectures of all kinds of networks."""

from collections.abc import Sequence
import functools
import os

from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import canvas, chain, convolutional, edges
from nao_jax.networks import mobile
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileNetworkConfig


@functools.singledispatch
def figures(network: NetworkConfig, tokens: np.ndarray) -> dict[str, Figure]:
  """Returns {caption: figure} of an architecture [L], for a report."""
  return {
    f"The {part.lower()} cell.": convolutional.figure(
      tokens, network.op_names, parts=[part]
    )
    for part in convolutional.PARTS
  }


@figures.register
def _(network: EdgeNetworkConfig, tokens: np.ndarray) -> dict[str, Figure]:
  return {"The cell.": edges.figure(*_edges(network, tokens))}


@figures.register
def _(network: MobileNetworkConfig, tokens: np.ndarray) -> dict[str, Figure]:
  rows = _rows(network, tokens)
  return {"The chain of blocks.": chain.figure(rows, network.op_names)}


@functools.singledispatch
def draw(
  network: NetworkConfig,
  tokens: np.ndarray,
  files: Sequence[os.PathLike],
  title: str,
) -> None:
  """Draws an architecture [L] into files with a title."""
  convolutional.draw_cells(tokens, network.op_names, files, title=title)


@draw.register
def _(network: EdgeNetworkConfig, tokens, files, title) -> None:
  edges.draw_cell(*_edges(network, tokens), files, title=title)


@draw.register
def _(network: MobileNetworkConfig, tokens, files, title) -> None:
  rows = _rows(network, tokens)
  canvas.save(chain.figure(rows, network.op_names, title=title), files)


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
