"""Optimisers and their schedules, as settings."""

from collections.abc import Callable
import dataclasses
import itertools

import optax

from nao_jax.settings import Only, field

SCHEDULES = ("cosine", "restarts", "step")


@dataclasses.dataclass(frozen=True)
class SgdConfig:
  """Stochastic gradient descent; the defaults are the official search's.

  Attributes:
    schedule: `cosine`, one over all epochs; `restarts`, a cosine that starts
      again at the top, each time for longer (Loshchilov and Hutter 2017); or
      `step`, which multiplies by `decay` after each epoch.
    learning_rate: of the first epoch.
    end_learning_rate: where a cosine ends.
    period: epochs before the first restart.
    period_factor: how many times as long each further period is.
    decay: of the schedule `step`.
    momentum: of the gradient.
    nesterov: look ahead along the momentum.
    weight_decay: times the weights, added to the clipped gradient.
    clip: largest global norm of the gradient.
  """

  ACTS_WITH = (
    Only(("end_learning_rate",), "schedule", ("cosine", "restarts")),
    Only(("period", "period_factor"), "schedule", ("restarts",)),
    Only(("decay",), "schedule", ("step",)),
    Only(("nesterov",), "momentum"),
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
  clip: float = field(5.0, above=0)

  def by_epoch(self, epochs: int) -> Callable:
    """The learning rate as a function of the epoch, counted from 0."""
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


def sgd(
  config: SgdConfig, *, epochs: int, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Clip, decay, momentum: PyTorch's order.

  The learning rate changes once an epoch, as in the official code. Every
  parameter takes part in every step: one that the sampled architecture did not
  use has gradient 0, decays and coasts on its momentum.
  """
  by_epoch = config.by_epoch(epochs)
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.add_decayed_weights(config.weight_decay),
    optax.sgd(
      lambda step: by_epoch(step // steps_per_epoch),
      momentum=config.momentum,
      nesterov=config.nesterov,
    ),
  )
