"""Controllers, parameters and architectures that compile fast or not at all."""

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.spaces.space import Space

TINY = ControllerConfig(
  embedding=6, hidden=8, mlp_layers=1, mlp_width=10, mlp_dropout=0.0
)


def random_params(controller: Controller, seed: int = 0, scale: float = 0.5):
  """Parameters from NumPy: `init` is far slower to compile."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(controller.init, jax.random.key(0))
  return jax.tree.map(
    lambda leaf: jnp.asarray(
      scale * rng.standard_normal(leaf.shape), jnp.float32
    ),
    shapes,
  )


def random_tokens(space: Space, count: int, seed: int = 0) -> np.ndarray:
  """Architectures, int32 [count, L]."""
  return np.array(space.sample(jax.random.key(seed), count))
