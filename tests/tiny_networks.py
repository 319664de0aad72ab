"""Networks and architectures that compile fast."""

import jax
import numpy as np

from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn

TINY = NetworkConfig(nodes=3, cells_per_stage=1, channels=2, classes=3)


def random_cells(count: int, seed: int, config: NetworkConfig = TINY):
  """Architectures, int32 [count, 2, N, 4]."""
  space = cnn.space(config.nodes, config.ops)
  return np.asarray(cnn.to_cells(space.sample(jax.random.key(seed), count)))


def stand_alone_variables(variables, rows, config: EdgeNetworkConfig):
  """Variables of the network of one cell, out of those of all."""
  found = {}
  for collection, modules in variables.items():
    found[collection] = {}
    for module, leaves in modules.items():
      if not module.startswith("cell_"):
        found[collection][module] = leaves
        continue
      own = {}
      for edge, op in enumerate(rows):
        norms = [
          name.removeprefix("scale")
          for name in config.operations[op].shapes(config.channels)
          if "scale" in name
        ]
        if collection == "params":
          prefix = f"operation_{op}_"
          own |= {
            f"edge_{edge}_{name.removeprefix(prefix)}": x[edge]
            for name, x in leaves.items()
            if name.startswith(prefix)
          }
        else:
          own |= {
            f"edge_{edge}_{name.removeprefix('edges_')}{stage}": x[edge, at]
            for name, x in leaves.items()
            for at, stage in enumerate(norms)
          }
      if own:
        found[collection][module] = own
  return found
