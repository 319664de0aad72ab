"""Spaces of convolutional cells, and their networks."""

import dataclasses
from typing import Any

from absl import logging

from nao_jax import settings
from nao_jax.errors import UserError, named
from nao_jax.networks.build import Network
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileConfig, MobileNetworkConfig
from nao_jax.settings import Only

SPACES = ("nao", "nasbench201", "own", "mobile")
NAO = NetworkConfig()
_SIZES = MobileConfig()
# Rules for the settings of searches and of final trainings.
ACTS_WITH = (
  Only(
    (
      *("network.ops", "network.nodes", "network.stem", "network.auxiliary"),
      *("finalist.auxiliary", "encoding", "train.auxiliary_weight"),
      "constraint.latency_table",
    ),
    "space",
    ("nao",),
  ),
  Only(("network.dropout", "finalist.dropout"), "space", ("nao", "mobile")),
  Only(
    tuple(
      f"{owner}.{name}"
      for owner in ("network", "train", "finalist", "final")
      for name in ("channels", "cells_per_stage", "drop_path_keep")
    ),
    "space",
    ("nao", "nasbench201", "own"),
  ),
  Only(("mobile",), "space", ("mobile",)),
)
# What the networks of a space do not have, of those of NAO's cells: {setting:
# its value without it}.
_EDGES = {"network.dropout": 0.0, "network.auxiliary": False}
_IDLE = {
  "nao": {},
  "nasbench201": _EDGES,
  "own": _EDGES,
  "mobile": {"train.drop_path_keep": 1.0, "network.auxiliary": False},
}


def warn_of_idle(config: Any) -> None:
  """Logs settings of a search or a training that do nothing in its space."""
  for name, without in _IDLE[config.space].items():
    if (value := settings.get(config, name)) != without:
      logging.warning(
        "%s does nothing with %s",
        named(name, value),
        named("space", config.space),
      )


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


def layout(
  name: str, own: EdgeNetworkConfig | None = None, mobile: MobileConfig = _SIZES
) -> Network:
  """Returns a network of a space, whose method `resized` gives those of it.

  Args:
    name: one of `SPACES`.
    own: with `own`, the cells.
    mobile: with `mobile`, the sizes and blocks.

  Raises:
    UserError: cells of one's own are missing or have no effect.
  """
  check(name, own)
  if name == "mobile":
    return MobileNetworkConfig(mobile)
  return NAO if name == "nao" else own or EdgeNetworkConfig()


def supernet(config: Any, network: Network) -> Network:
  """Returns the network with which the settings of a search share weights.

  Args:
    config: the settings of a search.
    network: the network of one architecture.
  """
  if config.supernet_affine:
    return network
  return dataclasses.replace(network, affine=False)
