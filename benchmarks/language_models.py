"""Language models for a comparison, and their training.

Shapes: B streams, N nodes of a cell.
"""

from collections.abc import Callable
import dataclasses
import functools
import time
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import lstm
from nao_jax.data import text
from nao_jax.data.text import Corpus
from nao_jax.spaces import rnn
from nao_jax.training import language, recurrent
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.recurrent import Trainer


class Model(NamedTuple):
  """A language model that can be trained; lstm.py documents the functions.

  Attributes:
    parameters: number of parameters.
    columns: columns of its state, [B, columns].
    init: key -> weights.
    update: `State`, key, number, `Batch` -> the next `State`, loss.
    measure: weights, windows -> nats a word.
  """

  parameters: int
  columns: int
  init: Callable
  update: Callable
  measure: Callable


# One program for all cells, and one for the LSTM.
_OPTIONS = {"static_argnames": "trainer", "donate_argnums": 0}
_UPDATE_CELL = jax.jit(recurrent.update, **_OPTIONS)
_MEASURE_CELL = jax.jit(language.measure)
_UPDATE_LSTM = jax.jit(lstm.update, **_OPTIONS)
_MEASURE_LSTM = jax.jit(lstm.measure)


def of_cell(tokens: np.ndarray, trainer: Trainer) -> Model:
  """Returns the model of a cell, int32 [2 N]; N need not be the trainer's."""
  network = dataclasses.replace(trainer.model, nodes=len(tokens) // 2)
  trainer = dataclasses.replace(trainer, model=network)
  cell = np.asarray(rnn.to_cells(tokens))

  def update(state, key, number, batch):
    return _UPDATE_CELL(state, key, number, cell, batch, trainer=trainer)

  return Model(
    network.parameters,
    network.width,
    trainer.init,
    update,
    lambda weights, windows: _MEASURE_CELL(weights, cell, windows),
  )


def of_lstm(parameters: int, trainer: Trainer) -> Model:
  """Returns the LSTM whose number of parameters is nearest to `parameters`."""
  vocabulary = trainer.model.vocabulary
  width = lstm.width_for(parameters, vocabulary)
  network = dataclasses.replace(trainer.model, width=width)
  trainer = dataclasses.replace(trainer, model=network)
  return Model(
    lstm.parameters(width, vocabulary),
    lstm.STATES * width,
    functools.partial(lstm.init, config=network),
    functools.partial(_UPDATE_LSTM, trainer=trainer),
    _MEASURE_LSTM,
  )


def train(
  model: Model,
  corpus: Corpus,
  config: TextTrainConfig,
  seed: int,
  progress: Callable[[int, int], None],
) -> dict:
  """Trains a model, and measures it on the test text once.

  Args:
    model: the model to train.
    corpus: its training and test text are used.
    config: the training; the test text, too, is read in `batch` streams.
    seed: seed of weights, lengths and dropout.
    progress: called with the number of epochs done and of all epochs.

  Returns:
    The test perplexity, and the words a second of the fastest epoch: by the
    clock, and by the processor time of all threads. Other programs on the
    machine affect the second rate less than the first.
  """
  streams = text.streams(corpus.train, config.batch)
  test = text.streams(corpus.test, config.batch)
  first_key, step_key = jax.random.split(jax.random.key(seed))
  weights, number, seconds = model.init(first_key), 0, []
  progress(0, config.epochs)
  for epoch in range(config.epochs):
    windows = language.random_windows(seed, epoch, len(streams), config.bptt)
    start = time.monotonic(), time.process_time()
    weights, number = _epoch(model, weights, step_key, number, streams, windows)
    end = time.monotonic(), time.process_time()
    seconds.append(np.subtract(end, start))
    progress(epoch + 1, config.epochs)
  loss = model.measure(weights, language.windows(test, config.bptt))
  words = (len(streams) - 1) * config.batch
  by_clock, by_processor = words / np.min(seconds, axis=0)
  return {
    "test perplexity": float(np.exp(loss)),
    "words a second": float(by_clock),
    "words a processor second": float(by_processor),
  }


def _epoch(model: Model, weights, key, number, streams, windows):
  """Returns the weights after an epoch, and the number of the next step."""
  hidden = np.zeros((streams.shape[1], model.columns), np.float32)
  state = recurrent.State(weights, hidden)
  for window in windows:
    rows = language.cut(streams, window)
    batch = language.Batch(rows, np.int32(window.length))
    state, _ = model.update(state, key, np.int32(number), batch)
    number += 1
  return jax.block_until_ready(state.weights), number
