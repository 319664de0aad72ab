"""Optimisers and their schedules, as settings."""

import dataclasses

import optax


@dataclasses.dataclass(frozen=True)
class SgdConfig:
  """Stochastic gradient descent; the defaults are the official search's.

  Attributes:
    learning_rate: of the first epoch.
    end_learning_rate: where the cosine ends.
    momentum: of the gradient.
    nesterov: look ahead along the momentum.
    weight_decay: times the weights, added to the clipped gradient.
    clip: largest global norm of the gradient.
  """

  learning_rate: float = 0.025
  end_learning_rate: float = 0.001
  momentum: float = 0.9
  nesterov: bool = False
  weight_decay: float = 3e-4
  clip: float = 5.0


def sgd(
  config: SgdConfig, *, epochs: int, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Clip, decay, momentum: PyTorch's order.

  The learning rate follows one cosine over `epochs` and changes once an epoch,
  as in the official code. Every parameter takes part in every step: one that
  the sampled architecture did not use has gradient 0, decays and coasts on its
  momentum.
  """
  cosine = optax.cosine_decay_schedule(
    config.learning_rate,
    epochs,
    alpha=config.end_learning_rate / config.learning_rate,
  )
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.add_decayed_weights(config.weight_decay),
    optax.sgd(
      lambda step: cosine(step // steps_per_epoch),
      momentum=config.momentum,
      nesterov=config.nesterov,
    ),
  )
