"""Training and measuring the language model of one recurrent cell.

Plain gradient descent, averaged from a time on: when the validation loss has
not improved for some epochs, the training begins to keep the mean of the
weights of all steps from there on (Merity et al. 2018, "non-monotonically
triggered"), and what is measured is that mean.

Shapes: E epochs, T steps of a stretch, B streams, H width, D devices.
"""

from collections.abc import Iterator
import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.data.text import Corpus
from nao_jax.errors import UserError
from nao_jax.networks.recurrent import LanguageModelConfig, Weights
from nao_jax.spaces import rnn
from nao_jax.training import language, recurrent
from nao_jax.training.feeds import program
from nao_jax.training.language import Stretch, TextTrainConfig
from nao_jax.training.recurrent import Model

# How many are under way before their losses are looked at.
STRETCHES_A_CALL = 25


class TrainState(NamedTuple):
  """Everything that decides how a training goes on.

  Attributes:
    model: its weights.
    hidden: [B, H], what the cell hands on to the next stretch.
    epoch: int32 [], epochs done.
    step: int32 [], stretches done in the epoch that has begun.
    roll_backs: int32 [], how often the training went back to `best`.
    validation: float32 [E], the loss after each epoch done; then infinity.
    best: the model after the epoch with the lowest of them; before the first,
      the untrained one.
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
    """The validation losses so far."""
    return self.validation[: int(self.epoch)].tolist()

  @property
  def epochs_of_best(self) -> int:
    """How many epochs `best` has seen."""
    return int(np.argmin(self.losses)) + 1 if self.losses else 0


@dataclasses.dataclass(frozen=True)
class Trainer:
  """The settings of one model's training; hashable.

  Attributes:
    network: the sizes.
    train: the training.
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
    """The state before the first step; consumes the key."""
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
    """What the cell starts every epoch with, [B, H]."""
    return np.zeros((self.train.batch, self.network.width), np.float32)

  def check(self, devices: int | None = None) -> None:
    """Raises UserError if the devices cannot share the streams evenly."""
    parts = parallel.count(devices)
    if self.train.batch % parts:
      raise UserError(
        f"`train.batch={self.train.batch}`: {parts} devices share the streams "
        f"evenly; give a multiple of {parts}, or `devices`"
      )


def train_stretch(
  model: Model,
  hidden: jax.Array,
  key: jax.Array,
  number: jax.Array,
  tokens: jax.Array,
  length: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[Model, jax.Array, jax.Array]:
  """One step.

  Args:
    model: the same on all devices.
    hidden: [B / D, H], the state before, of this device's streams.
    key: of the epoch.
    number: int32 [], of the step; the key folds it in.
    tokens: int32 [T + 1, B / D], this device's part of `language.cut`.
    length: int32 [], steps of the stretch that count.
    trainer: the settings.
    axis_name: the mapped axis over which to average.

  Returns:
    The new model, the new state, and the loss in nats a word.
  """
  return recurrent.update_averaged(
    model,
    hidden,
    key,
    number,
    trainer.cell,
    tokens,
    length,
    trainer=trainer.steps,
    axis_name=axis_name,
  )


@functools.partial(jax.jit, static_argnames="trainer")
def measure(
  weights: Weights, windows: jax.Array, *, trainer: Trainer
) -> jax.Array:
  """Mean nats a word of a text.

  Every device that has the arguments measures all of it: texts to measure are
  small, and are read in few streams.

  Args:
    weights: of the cell.
    windows: what `language.windows` gives.
    trainer: the settings.
  """
  return language.measure(weights, trainer.cell, windows)


def end_epoch(
  state: TrainState, loss: float, *, trainer: Trainer, patience: int
) -> TrainState:
  """The state at the start of the next epoch.

  Args:
    state: after the last stretch of an epoch.
    loss: of validation, in nats a word.
    trainer: the settings.
    patience: see `averages_from_now_on`.
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
  """The state after the best epoch so far, to go on with other randomness.

  Args:
    state: of a training that diverged.
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


class Call(NamedTuple):
  """What some stretches led to.

  Attributes:
    state: after them.
    losses: float32 [stretches], nats a word.
    words: how many they predicted.
  """

  state: TrainState
  losses: np.ndarray
  words: int

  @property
  def diverged(self) -> bool:
    """Whether a loss is not a number."""
    return not np.isfinite(self.losses).all()


class Reader:
  """A text, as a training reads it.

  Attributes:
    words: that an epoch predicts.
  """

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
      seed: of the lengths of the stretches.
      eval_batch: streams to measure the validation part with; the test part is
        measured as one.
      devices: how many of each process to use; all by default.

    Raises:
      UserError: the text is too short for so many streams.
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
    self.words = (len(self._streams) - 1) * trainer.train.batch

  def words_read(self, state: TrainState) -> int:
    """That the training predicted so far, but for what it took back."""
    done = self._stretches(state)[: int(state.step)]
    rows = done[-1].start + done[-1].length if done else 0
    return int(state.epoch) * self.words + rows * self._trainer.train.batch

  def train(self, state: TrainState, key: jax.Array) -> Iterator[Call]:
    """Trains to the end of the epoch, some stretches at a time.

    Args:
      state: at any step of it.
      key: of the whole run.
    """
    step, axes = int(state.step), (None, 0, None)
    trained = program(
      train_stretch,
      self._trainer,
      self._devices,
      (*axes, None, 1, None),
      axes,
    )
    for number in (state.roll_backs, state.epoch):
      key = jax.random.fold_in(key, number)
    model, key = parallel.replicate((state.model, key), devices=self._devices)
    hidden = parallel.distribute(self._cut(state.hidden), devices=self._devices)
    for stretches in _batched(self._stretches(state)[step:]):
      losses = []
      for stretch in stretches:
        tokens = language.cut(self._streams, stretch)
        number, length = np.int32(step), np.int32(stretch.length)
        model, hidden, loss = trained(
          model, hidden, key, number, tokens, length
        )
        losses.append(loss)
        step += 1
      yield Call(
        state._replace(
          model=model,
          hidden=parallel.gather(np.asarray(hidden)).reshape(
            state.hidden.shape
          ),
          step=np.int32(step),
        ),
        np.array(jax.device_get(losses)),
        sum(s.length for s in stretches) * self._trainer.train.batch,
      )

  def measure(self, model: Model, part: str) -> dict:
    """How good the mean weights of a model are.

    Args:
      model: of its training.
      part: `validation` or `test`.

    Returns:
      JSON-like: `loss` in nats a word, `perplexity`, `words`.
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

  def _stretches(self, state: TrainState) -> list[Stretch]:
    """Those of the epoch that has begun."""
    # The generator takes a large seed as the sequence of its 32-bit words.
    seed = self._seed + (int(state.roll_backs) << 32)
    rows, bptt = len(self._streams), self._trainer.train.bptt
    return list(language.stretches(seed, int(state.epoch), rows, bptt))

  def _cut(self, hidden) -> np.ndarray:
    """[B, H] to [D, B / D, H]."""
    parts = parallel.count(self._devices)
    return np.asarray(hidden).reshape(parts, -1, hidden.shape[1])


def _batched(stretches: list[Stretch]) -> Iterator[list[Stretch]]:
  stretches = iter(stretches)
  while batch := list(itertools.islice(stretches, STRETCHES_A_CALL)):
    yield batch
