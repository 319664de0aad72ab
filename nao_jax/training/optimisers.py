"""Optimisers and their schedules, as settings."""

from collections.abc import Callable
import dataclasses
import itertools

import optax

from nao_jax.errors import UserError

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

  schedule: str = "cosine"
  learning_rate: float = 0.025
  end_learning_rate: float = 0.001
  period: int = 10
  period_factor: int = 2
  decay: float = 0.97
  momentum: float = 0.9
  nesterov: bool = False
  weight_decay: float = 3e-4
  clip: float = 5.0

  def check(self) -> None:
    """Raises UserError for a schedule that does not exist."""
    if self.schedule not in SCHEDULES:
      raise UserError(
        f"--schedule={self.schedule}: unknown; allowed: {', '.join(SCHEDULES)}"
      )

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
