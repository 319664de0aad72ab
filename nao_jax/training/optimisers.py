"""Settings of optimisers and their schedules."""

from collections.abc import Callable
import dataclasses
import itertools
from typing import Any

import jax
import optax

from nao_jax.networks.edge_config import is_affine
from nao_jax.settings import Only, field

SCHEDULES = ("cosine", "restarts", "step")


@dataclasses.dataclass(frozen=True)
class SgdConfig:
  """Settings of stochastic gradient descent; defaults from the official search.

  Attributes:
    schedule: `cosine`, one over all epochs; `restarts`, a cosine that starts
      again at the top, each time for longer (Loshchilov and Hutter 2017); or
      `step`, which multiplies by `decay` after each epoch.
    learning_rate: the learning rate of the first epoch.
    end_learning_rate: the learning rate at the end of a cosine.
    period: epochs before the first restart.
    period_factor: length of each further period, relative to the one before.
    decay: factor per epoch, for the schedule `step`.
    momentum: decay factor of the momentum.
    nesterov: use Nesterov momentum.
    weight_decay: factor of the weights that is added to the clipped gradient.
    decay_batch_norm: whether that includes scales and offsets of BatchNorm.
    clip: largest global norm of the gradient.
  """

  ACTS_WITH = (
    Only(("period", "period_factor"), "schedule", ("restarts",)),
    Only(("decay",), "schedule", ("step",)),
    Only(("nesterov",), "momentum"),
    Only(("decay_batch_norm",), "weight_decay"),
  )

  schedule: str = field("cosine", choices=SCHEDULES)
  learning_rate: float = field(0.025, above=0)
  end_learning_rate: float = field(0.001, least=0)
  period: int = field(10, least=1)
  period_factor: int = field(2, least=1)
  decay: float = field(0.97, above=0, most=1)
  momentum: float = field(0.9, least=0, below=1)
  nesterov: bool = False
  weight_decay: float = field(3e-4, least=0)
  decay_batch_norm: bool = field(True, added=True)
  clip: float = field(5.0, above=0)

  def by_epoch(self, epochs: int) -> Callable:
    """Returns the learning rate as a function of the epoch, counted from 0."""
    if self.schedule == "step":
      return optax.exponential_decay(self.learning_rate, 1, self.decay)
    lengths = self._periods(epochs) if self.schedule == "restarts" else [epochs]
    cosines = [
      optax.cosine_decay_schedule(
        self.learning_rate,
        length,
        alpha=self.end_learning_rate / self.learning_rate,
      )
      for length in lengths
    ]
    return optax.join_schedules(
      cosines, list(itertools.accumulate(lengths))[:-1]
    )

  def _periods(self, epochs: int) -> list[int]:
    lengths = [self.period]
    while sum(lengths) < epochs:
      lengths.append(lengths[-1] * self.period_factor)
    return lengths


def _decays(params: Any) -> Any:
  """Returns for each parameter whether it is none of BatchNorm's."""
  return jax.tree.map_with_path(
    lambda path, _: not is_affine(jax.tree_util.keystr(path[-1:])), params
  )


def sgd(
  config: SgdConfig, *, epochs: int, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Returns the optimiser: clipping, decay, momentum, in PyTorch's order.

  The learning rate changes once an epoch, as in the official code. Every
  parameter takes part in every step: one that the sampled architecture did not
  use has gradient 0, decays and coasts on its momentum.
  """
  by_epoch = config.by_epoch(epochs)
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.add_decayed_weights(
      config.weight_decay, None if config.decay_batch_norm else _decays
    ),
    optax.sgd(
      lambda step: by_epoch(step // steps_per_epoch),
      momentum=config.momentum,
      nesterov=config.nesterov,
    ),
  )
