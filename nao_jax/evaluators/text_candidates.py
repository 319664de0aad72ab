"""Training of candidates that model text.

Shapes: D candidates, one on each device, B streams, T steps.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.evaluators import local
from nao_jax.networks.recurrent import Weights
from nao_jax.runs import chunking
from nao_jax.runs.progress import WorkUnit
from nao_jax.spaces import rnn
from nao_jax.training import language
from nao_jax.training.language import Batch
from nao_jax.training.recurrent import (
  Model,
  State,
  Trainer,
  after_epoch,
  not_averaged,
  programs,
)

# The most training steps after which the host waits for the losses.
STEPS_A_LOOK = 10

# Averaging begins when the loss of an epoch is above the best loss of the
# epochs that are more than this many epochs before it (official code).
PATIENCE = 5


class Averaged(NamedTuple):
  """State of a candidate whose weights are averaged.

  Attributes:
    model: the weights and their mean.
    losses: float32 [epochs], measured loss after each epoch; infinity for
      epochs to come.
  """

  model: Model
  losses: np.ndarray


@dataclasses.dataclass(frozen=True)
class TextCandidates:
  """Language models of one cell; the score is minus the mean nats per word.

  All epochs cut the text into the same bptt windows, so that places that are at
  different epochs run one program.

  Implements `local.Candidates`.

  Attributes:
    trainer: settings of each training.
    train: the text to train on.
    measured: the text to score with.
    seed: seed of weights, window lengths and dropout, the same for all
      candidates.
    devices: number of local devices to use; all by default.
    last_only: whether to measure after the last epoch alone.
    averaged: whether to score the mean of the weights once the score has not
      improved for `PATIENCE` epochs.
  """

  trainer: Trainer
  train: np.ndarray
  measured: np.ndarray
  seed: int
  devices: int | None = None
  last_only: bool = False
  averaged: bool = False

  @property
  def epochs(self) -> int:
    """Number of epochs of each training."""
    return self.trainer.train.epochs

  @property
  def each(self) -> WorkUnit:
    """Work unit: the words that a whole training reads."""
    return WorkUnit(self.epochs * len(self.train), "words")

  def start(self, tokens: np.ndarray) -> Weights | Averaged:
    """Implements `local.Candidates.start`."""
    del tokens  # First weights do not depend on the cell.
    weights = jax.device_get(self.trainer.init(self._keys[0]))
    if not self.averaged:
      return weights
    losses = np.full(self.epochs, np.inf, np.float32)
    return Averaged(not_averaged(weights), losses)

  def epoch(
    self,
    tokens: list[np.ndarray],
    states: list,
    epochs: list[int],
    between: Callable[[], None] = lambda: None,
  ) -> list[tuple]:
    """Implements `local.Candidates.epoch`."""
    update, _ = programs(self.trainer, self.devices, self.averaged)
    models = [state.model if self.averaged else state for state in states]
    own = [
      (model, self._zeros, rnn.to_cells(np.asarray(row)), np.int32(epoch))
      for model, row, epoch in zip(models, tokens, epochs, strict=True)
    ]
    model, hidden, cells, epoch = parallel.distribute(
      jax.tree.map(lambda *x: np.stack(x), *own), devices=self.devices
    )
    state, steps, losses = State(model, hidden), len(self._windows), []
    for start, end in chunking.calls(0, steps, STEPS_A_LOOK):
      for number in range(start, end):
        state, loss = update(
          state,
          self._keys[1],
          epoch * steps + number,
          cells,
          self._windows[number],
        )
        losses.append(loss)
      jax.block_until_ready(loss)
      between()
    model = state.weights
    measured = model.mean if self.averaged else model
    scores = self._scores(measured, cells, epochs)
    model, losses = jax.device_get((model, losses))
    models = [
      jax.tree.map(lambda x, at=at: x[at], model) for at in range(len(states))
    ]
    if self.averaged:
      models = list(map(_after_epoch, states, models, epochs, scores))
    return list(zip(models, np.mean(losses, 0), scores, strict=True))

  def _scores(self, weights, cells, epochs) -> np.ndarray:
    """Returns minus the mean nats per word, [D].

    Minus infinity for candidates that are not to be measured.
    """
    wanted = local.measured_epochs(epochs, self.epochs, self.last_only)
    if not wanted.any():
      return np.full(len(wanted), -np.inf)
    _, score = programs(self.trainer, self.devices)
    scores = score(weights, cells[:, None], self._measured)
    return np.where(wanted, np.asarray(scores)[:, 0], -np.inf)

  @functools.cached_property
  def _keys(self) -> jax.Array:
    """Keys of the first weights and of the steps."""
    return jax.random.split(jax.random.key(self.seed))

  @functools.cached_property
  def _zeros(self) -> np.ndarray:
    """Hidden state before a text."""
    train, model = self.trainer.train, self.trainer.model
    return np.zeros((train.batch, model.width), np.float32)

  @functools.cached_property
  def _windows(self) -> list[Batch]:
    """The bptt windows of the training text."""
    train = self.trainer.train
    streams = text.streams(self.train, train.batch)
    return [
      Batch(language.cut(streams, window), np.int32(window.length))
      for window in language.random_windows(
        self.seed, 0, len(streams), train.bptt
      )
    ]

  @functools.cached_property
  def _measured(self) -> jax.Array:
    train = self.trainer.train
    streams = text.streams(self.measured, train.batch)
    windows = language.windows(streams, train.bptt)
    return parallel.replicate(windows, devices=self.devices)


def _after_epoch(
  state: Averaged, model: Model, epoch: int, score: float
) -> Averaged:
  """Returns the state with which a candidate's next epoch begins."""
  losses = state.losses.copy()
  losses[epoch] = -score
  model = after_epoch(model, losses[: epoch + 1].tolist(), PATIENCE)
  return Averaged(model, losses)
