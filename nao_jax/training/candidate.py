"""Trains candidates whose architecture is data: one program serves them all."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from nao_jax.networks import build
from nao_jax.training import stand_alone
from nao_jax.training.stand_alone import TrainState


@dataclasses.dataclass(frozen=True)
class Trainer(stand_alone.Trainer):
  """Settings of every candidate's training; its methods are pure.

  The functions of `training.stand_alone` take it with `architecture=(cells,)`,
  int32 [*network.architecture_shape].
  """

  tokens: tuple[int, ...] = ()

  def model(self, axis_name: str | None = None) -> nn.Module:
    """Returns the network."""
    return build.candidate(self.network, axis_name)

  def init(
    self, key: jax.Array, image_shape: tuple[int, ...], cells: jax.Array
  ) -> TrainState:
    """Returns the state before the first step; consumes the key.

    Args:
      key: a random key.
      image_shape: (H, W, C).
      cells: int32 [*network.architecture_shape], the candidate.
    """
    images = jnp.zeros((1, *image_shape))
    return self.start(
      build.initialise_candidate(self.model(), key, images, cells)
    )
