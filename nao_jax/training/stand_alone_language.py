"""Trains and measures the language model of one recurrent cell.

The optimiser is gradient descent with triggered averaging: once the validation
loss has not improved for some epochs, the training begins to keep the mean of
the weights of all steps from there on (Merity et al. 2018, "non-monotonically
triggered"), and that mean is measured.

Shapes: E epochs, T steps of a bptt window, B streams, H width, D devices, N
nodes.
"""

from collections.abc import Iterator
import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.data.text import Corpus
from nao_jax.networks.recurrent import LanguageModelConfig, Weights
from nao_jax.spaces import rnn
from nao_jax.training import language, recurrent
from nao_jax.training.feeds import Call, program
from nao_jax.training.language import TextTrainConfig, Window
from nao_jax.training.recurrent import Model

# Number of windows that are dispatched before their losses are read.
WINDOWS_A_CALL = 25


class TrainState(NamedTuple):
  """State that determines how a training goes on.

  Attributes:
    model: the weights and their mean.
    hidden: [B, H], the state that the cell carries on to the next bptt window.
    epoch: int32 [], number of epochs done.
    step: int32 [], number of bptt windows done in the current epoch.
    roll_backs: int32 [], number of times the training went back to `best`.
    validation: float32 [E], the loss after each epoch done; infinity for the
      others.
    best: the model after the epoch with the lowest validation loss; before the
      first one, the untrained model.
  """

  model: Model
  hidden: jax.Array
  epoch: jax.Array
  step: jax.Array
  roll_backs: jax.Array
  validation: jax.Array
  best: Model

  @property
  def losses(self) -> list[float]:
    """Validation losses so far."""
    return self.validation[: int(self.epoch)].tolist()

  @property
  def epochs_of_best(self) -> int:
    """Number of epochs that `best` was trained for."""
    return int(np.argmin(self.losses)) + 1 if self.losses else 0


@dataclasses.dataclass(frozen=True)
class Trainer:
  """Settings of one model's training; hashable.

  Attributes:
    network: the sizes.
    train: the training settings.
    tokens: the architecture.
  """

  network: LanguageModelConfig
  train: TextTrainConfig
  tokens: tuple[int, ...]

  @property
  def cell(self) -> np.ndarray:
    """The architecture, int32 [N, 2]."""
    return rnn.to_cells(np.int32(self.tokens))

  @property
  def steps(self) -> recurrent.Trainer:
    """The settings of a single step."""
    return recurrent.Trainer(self.network, self.train)

  def init(self, key: jax.Array) -> TrainState:
    """Returns the state before the first step; consumes the key."""
    weights = self.steps.init(key)
    model = recurrent.not_averaged(weights)
    return TrainState(
      model=model,
      hidden=self.zeros(),
      epoch=np.int32(0),
      step=np.int32(0),
      roll_backs=np.int32(0),
      validation=np.full(self.train.epochs, np.inf, np.float32),
      best=model,
    )

  def zeros(self) -> np.ndarray:
    """Returns the hidden state at the start of every epoch, [B, H]."""
    return np.zeros((self.train.batch, self.network.width), np.float32)

  def windows(self, state: TrainState, seed: int, rows: int) -> list[Window]:
    """Returns the bptt windows of the current epoch.

    Args:
      state: the state at any step of the epoch.
      seed: the seed of the lengths of the windows.
      rows: number of words of each stream.
    """
    # The generator takes a large seed as the sequence of its 32-bit words.
    seed += int(state.roll_backs) << 32
    epoch, bptt = int(state.epoch), self.train.bptt
    return list(language.random_windows(seed, epoch, rows, bptt))


def _train_window(state, key, number, batch, *, trainer, axis_name=None):
  """Performs `recurrent.update_averaged` with the trainer's cell."""
  return recurrent.update_averaged(
    state,
    key,
    number,
    trainer.cell,
    batch,
    trainer=trainer.steps,
    axis_name=axis_name,
  )


@functools.partial(jax.jit, static_argnames="trainer")
def measure(
  weights: Weights, windows: jax.Array, *, trainer: Trainer
) -> jax.Array:
  """Returns the mean nats per word of a text.

  Every device that has the arguments measures the whole text: these texts are
  small, and are read in few streams.

  Args:
    weights: the weights of the cell.
    windows: the result of `language.windows`.
    trainer: the settings.
  """
  return language.measure(weights, trainer.cell, windows)


def end_epoch(
  state: TrainState, loss: float, *, trainer: Trainer, patience: int
) -> TrainState:
  """Returns the state at the start of the next epoch.

  Args:
    state: the state after the last bptt window of an epoch.
    loss: the validation loss, in nats per word.
    trainer: the settings.
    patience: see `recurrent.averages_from_now_on`.
  """
  validation = np.array(state.validation)
  validation[int(state.epoch)] = loss
  improved = validation[int(state.epoch)] < min([np.inf, *state.losses])
  ended = state._replace(
    hidden=trainer.zeros(),
    epoch=np.int32(state.epoch + 1),
    step=np.int32(0),
    validation=validation,
    best=state.model if improved else state.best,
  )
  model = recurrent.after_epoch(state.model, ended.losses, patience)
  return ended._replace(model=model)


def roll_back(state: TrainState, *, trainer: Trainer) -> TrainState:
  """Returns to the state after the best epoch, with new randomness from there.

  Args:
    state: the state of a training that diverged.
    trainer: the settings.
  """
  epoch = state.epochs_of_best
  validation = np.array(state.validation)
  validation[epoch:] = np.inf
  return TrainState(
    model=state.best,
    hidden=trainer.zeros(),
    epoch=np.int32(epoch),
    step=np.int32(0),
    roll_backs=np.int32(state.roll_backs + 1),
    validation=validation,
    best=state.best,
  )


class Reader:
  """A text, split into the streams and bptt windows that a training reads.

  Implements `feeds.Feed`. Measurements are of the mean weights of a `Model`.
  """

  measures_together = False

  def __init__(
    self,
    trainer: Trainer,
    corpus: Corpus,
    seed: int,
    eval_batch: int,
    devices: int | None = None,
  ):
    """Lays the text out in streams.

    Args:
      trainer: the settings.
      corpus: the text.
      seed: the seed of the lengths of the bptt windows.
      eval_batch: number of streams to measure the validation part with; the
        test part is measured as one stream.
      devices: how many of each process to use; all by default.

    Raises:
      UserError: if the text is too short for the number of streams.
    """
    self._trainer, self._seed, self._devices = trainer, seed, devices
    streams = text.streams(corpus.train, trainer.train.batch)
    self._streams = language.by_device(streams, devices)
    self._parts = {
      "validation": text.streams(
        corpus.validation, eval_batch, where="eval_batch"
      ),
      "test": text.streams(corpus.test, 1),
    }

  def for_helpers(self, state: TrainState) -> TrainState:
    """Implements `Feed.for_helpers`: what an epoch needs."""
    return state._replace(validation=(), best=())

  def train(self, state: TrainState, key: jax.Array) -> Iterator[Call]:
    """Implements `Feed.train`; trains to the end of the epoch.

    Yields:
      At least one call, without steps if the epoch has no more.
    """
    for number in (state.roll_backs, state.epoch):
      key = jax.random.fold_in(key, number)
    model, key = parallel.replicate((state.model, key), devices=self._devices)
    hidden = parallel.distribute(self._cut(state.hidden), devices=self._devices)
    trained = recurrent.State(model, hidden)
    windows, step = self._windows(state), int(state.step)
    while True:
      several = windows[step : step + WINDOWS_A_CALL]
      trained, losses = self._train(trained, key, step, several)
      step += len(several)
      yield Call(
        state._replace(
          model=trained.weights,
          hidden=parallel.gather(np.asarray(trained.hidden)).reshape(
            state.hidden.shape
          ),
          step=np.int32(step),
        ),
        losses,
        sum(s.length for s in several) * self._trainer.train.batch,
        ends_epoch=step == len(windows),
      )
      if step == len(windows):
        return

  def _train(
    self,
    state: recurrent.State,
    key: jax.Array,
    step: int,
    windows: list[Window],
  ) -> tuple[recurrent.State, np.ndarray]:
    """Trains on some bptt windows, of which `step` is the first one's number.

    Returns the state on the devices, and the losses, [windows].
    """
    axes = recurrent.State(None, 0)
    train = program(
      _train_window,
      self._trainer,
      self._devices,
      (axes, None, None, language.Batch(1, None)),
      (axes, None),
    )
    losses = []
    for number, window in enumerate(windows, step):
      tokens = language.cut(self._streams, window)
      batch = language.Batch(tokens, np.int32(window.length))
      state, loss = train(state, key, np.int32(number), batch)
      losses.append(loss)
    return state, np.array(jax.device_get(losses), np.float32)

  def measure(self, model: Model, part: str) -> dict:
    """Measures the mean weights of a model.

    Args:
      model: the model of this training.
      part: `validation` or `test`.

    Returns:
      JSON-like: `loss` in nats per word, `perplexity`, `words`.
    """
    streams = self._parts[part]
    weights, windows = parallel.replicate(
      (model.mean, language.windows(streams, self._trainer.train.bptt)),
      devices=self._devices,
    )
    loss = float(measure(weights, windows, trainer=self._trainer))
    return {
      "loss": loss,
      "perplexity": float(np.exp(loss)),
      "words": (len(streams) - 1) * streams.shape[1],
    }

  def _windows(self, state: TrainState) -> list[Window]:
    return self._trainer.windows(state, self._seed, len(self._streams))

  def _cut(self, hidden) -> np.ndarray:
    """Reshapes [B, H] to [D, B / D, H]."""
    parts = parallel.count(self._devices)
    return np.asarray(hidden).reshape(parts, -1, hidden.shape[1])
