"""Networks and architectures that compile fast."""

import jax
import numpy as np

from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn

TINY = NetworkConfig(nodes=3, cells_per_stage=1, channels=2, classes=3)


def random_cells(count: int, seed: int, config: NetworkConfig = TINY):
  """Architectures, int32 [count, 2, N, 4]."""
  space = cnn.space(config.nodes, config.ops)
  return np.asarray(cnn.to_cells(space.sample(jax.random.key(seed), count)))
