"""The final training of a recurrent cell."""

import dataclasses
import functools
from typing import Any

from absl import logging
import numpy as np

from nao_jax.data.text import Corpus
from nao_jax.errors import UserError
from nao_jax.runs.progress import WorkUnit
from nao_jax.spaces import rnn
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.tasks.training import keys
from nao_jax.training import stand_alone_language
from nao_jax.training.feeds import Call, Feed
from nao_jax.training.stand_alone_language import Reader, Trainer, TrainState

# A training that diverges this often would diverge again.
MOST_ROLL_BACKS = 5


@dataclasses.dataclass(frozen=True)
class Training:
  """A cell and its training; implements `training.FinalTraining`.

  Attributes:
    config: the settings; `arch` in the published notation, and the network's
      nodes and vocabulary as the architecture and the text give them.
    train_words: number of words of the training text.
    corpus: digest of the whole text.
  """

  config: TrainRnnConfig
  train_words: int
  corpus: str

  metric = "validation_perplexity"
  numbers = (
    *("parameters", "epochs", "best_epoch", "validation.perplexity"),
    *("test.perplexity", "test.loss", "test.words"),
  )
  phase = "training words"
  each = WorkUnit(1, "words")

  @functools.cached_property
  def tokens(self) -> tuple[int, ...]:
    """The architecture."""
    return tuple(rnn.resolve(self.config.arch).tolist())

  @functools.cached_property
  def trainer(self) -> Trainer:
    """The settings of the pure training functions."""
    return Trainer(self.config.network, self.config.train, self.tokens)

  @property
  def identity(self) -> dict[str, Any]:
    """Implements `FinalTraining.identity`."""
    return {"`text`": self.corpus}

  @property
  def total(self) -> int:
    """Implements `FinalTraining.total`."""
    return self.config.train.epochs * self.words

  @property
  def words(self) -> int:
    """Number of words that an epoch predicts."""
    return (self._rows - 1) * self.config.train.batch

  @property
  def _rows(self) -> int:
    """Number of words of each stream."""
    return self.train_words // self.config.train.batch

  def reader(self, corpus: Corpus, devices: int | None = None) -> Reader:
    """Returns the text, split into this training's streams."""
    config = self.config
    return Reader(self.trainer, corpus, config.seed, config.eval_batch, devices)

  def init(self) -> TrainState:
    """Implements `FinalTraining.init`."""
    return self.trainer.init(keys(self.config.seed)[0])

  def done(self, state: TrainState) -> int:
    """Returns the number of words predicted so far, without undone epochs."""
    windows = self.trainer.windows(state, self.config.seed, self._rows)
    done = windows[: int(state.step)]
    rows = done[-1].start + done[-1].length if done else 0
    return int(state.epoch) * self.words + rows * self.config.train.batch

  def epochs_done(self, state: TrainState) -> int:
    """Implements `FinalTraining.epochs_done`."""
    return int(state.epoch)

  def end_epoch(
    self, state: TrainState, feed: Feed
  ) -> tuple[TrainState, dict] | None:
    """Implements `FinalTraining.end_epoch`; may begin to average."""
    measured = feed.measure(state.model, "validation")
    if not np.isfinite(measured["loss"]):
      return None
    ended = stand_alone_language.end_epoch(
      state,
      measured["loss"],
      trainer=self.trainer,
      patience=self.config.patience,
    )
    return ended, {
      "validation_loss": measured["loss"],
      "validation_perplexity": measured["perplexity"],
      "averaging": bool(state.model.averaging),
    }

  def recover(self, call: Call) -> TrainState:
    """Returns to the state after the best epoch, with new random numbers.

    Raises:
      UserError: the training diverged too often.
    """
    state = call.state
    where = f"in epoch {state.epoch}, at step {state.step} at the latest"
    if state.roll_backs == MOST_ROLL_BACKS:
      raise UserError(
        f"the training diverged {MOST_ROLL_BACKS + 1} times, now {where}; give "
        "a smaller `train.learning_rate` or `train.clip`, and another `workdir`"
      )
    logging.warning(
      "the training diverged %s; it goes back to %s, and on with other random "
      "numbers",
      where,
      f"the end of epoch {state.epochs_of_best - 1}, the best one"
      if state.epochs_of_best
      else "the beginning",
    )
    return stand_alone_language.roll_back(state, trainer=self.trainer)

  def result(self, state: TrainState, feed: Feed) -> dict:
    """Implements `FinalTraining.result`; measures the best model."""
    config = self.config
    return {
      "space": rnn.space(config.network.nodes).name,
      "tokens": list(self.tokens),
      "text": config.arch,
      "parameters": config.network.parameters,
      "epochs": config.train.epochs,
      "best_epoch": state.epochs_of_best - 1,
      "averaged": bool(state.best.averaging),
      "roll_backs": int(state.roll_backs),
      "validation": feed.measure(state.best, "validation"),
      "test": feed.measure(state.best, "test"),
    }

  def lines(self, result: dict) -> tuple[str, ...]:
    """Implements `FinalTraining.lines`."""
    test = result["test"]
    return (
      f"{result['parameters']:,} parameters; the best of {result['epochs']} "
      f"epochs is number {result['best_epoch'] + 1}, with validation "
      f"perplexity {result['validation']['perplexity']:.2f}",
      f"test perplexity {test['perplexity']:.2f}, loss {test['loss']:.4f}, on "
      f"{test['words']} words",
    )


def fit_to_text(config: TrainRnnConfig, corpus: Corpus) -> Training:
  """Returns the settings, completed from the architecture and the text."""
  tokens = rnn.resolve(config.arch)
  network = dataclasses.replace(
    config.network, nodes=len(tokens) // 2, vocabulary=corpus.vocabulary
  )
  return Training(
    config=dataclasses.replace(
      config, arch=rnn.to_text(tokens), network=network
    ),
    train_words=len(corpus.train),
    corpus=corpus.digest,
  )
