"""Scores of recurrent cells from shared weights.

Shapes: A architectures, L tokens, D devices, B streams.
"""

import dataclasses
import functools
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.evaluators import Keep, Progress, forget
from nao_jax.evaluators.shared import (
  NO_SCORES,
  count_bad,
  mean_loss,
  score_pool,
)
from nao_jax.networks.recurrent import Weights
from nao_jax.runs import chunking
from nao_jax.runs.progress import WorkUnit
from nao_jax.spaces import rnn
from nao_jax.training import language
from nao_jax.training.recurrent import State, Trainer, programs
from nao_jax.training.supernet import draw_members

# The most architectures that a device scores in one call, and the most training
# steps after which the host waits for the losses.
ARCHITECTURES_A_CALL = 4
STEPS_A_LOOK = 10


class SharedLanguageState(NamedTuple):
  """State of the evaluator, between two rounds or within one.

  Attributes:
    weights: the shared weights.
    hidden: [D, B / D, H], the hidden state of the recurrent network after the
      last step, for the devices of all processes.
    epoch: int32 [], number of epochs done.
    window: int32 [], number of bptt windows done in this epoch.
    scores: float32 [n], scores of the first members of the pool; empty until
      all epochs of a round are done, and between rounds.
    bad: int32 [], number of last steps in succession without a finite gradient.
  """

  weights: Weights
  hidden: jax.Array
  epoch: np.ndarray
  window: np.ndarray
  scores: np.ndarray
  bad: np.ndarray = np.int32(0)


@dataclasses.dataclass(frozen=True)
class SharedLanguage:
  """Evaluator whose state is a `SharedLanguageState`.

  A score is minus the mean loss in nats per word on the validation text, which
  is the same for all architectures; the hidden state starts at zero and is
  carried through the text.

  Attributes:
    trainer: settings of the training with shared weights.
    corpus: its training and validation text are used, the test text never.
    seed: seed of the lengths of the bptt windows.
    rounds: number of calls of `score`; the epochs are divided evenly among
      them.
    score_tokens: number of words of the validation text to score with, from
      its beginning; 0 for all.
    devices: number of devices of each process to use; all by default.
    each_step: n, number of architectures that train on a bptt window, each on
      its share of the streams; see `shared.check_each_step`.
  """

  trainer: Trainer
  corpus: text.Corpus
  seed: int
  rounds: int
  score_tokens: int = 0
  devices: int | None = None
  each_step: int = 1

  def init(self, key: jax.Array) -> SharedLanguageState:
    """Returns the state with untrained weights; consumes the key."""
    train, width = self.trainer.train, self.trainer.model.width
    zeros = np.zeros((train.batch, width), np.float32)
    start = np.int32(0)
    return self.replicate(
      SharedLanguageState(
        self.trainer.init(key), zeros, start, start, NO_SCORES
      )
    )

  def replicate(self, state: SharedLanguageState) -> SharedLanguageState:
    """Implements `Evaluator.replicate`.

    The state may come from another number of devices.
    """
    parts, width = parallel.count(self.devices), self.trainer.model.width
    hidden = np.asarray(state.hidden).reshape(parts, -1, width)
    return state._replace(
      weights=parallel.replicate(state.weights, devices=self.devices),
      hidden=hidden,
    )

  def score(
    self,
    state: SharedLanguageState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[SharedLanguageState, np.ndarray]:
    """Trains the weights on the pool for a round, then scores the pool.

    Implements `Evaluator.score`.

    Raises:
      UserError: the training diverged.
    """
    cells = np.asarray(rnn.to_cells(tokens))
    epochs = self.trainer.train.epochs // self.rounds
    while state.epoch < (round_ + 1) * epochs:
      epoch_key = jax.random.fold_in(key, int(state.epoch))
      state = self._epoch(state, epoch_key, cells, progress, keep)
    _, score = programs(self.trainer, self.devices)
    each = WorkUnit(len(self._valid_text), "words")
    scores = score_pool(
      lambda shares: score(state.weights, shares, self._valid),
      cells,
      state,
      lambda done: progress("score pool", done, len(cells), "", each),
      keep,
      a_call=ARCHITECTURES_A_CALL,
      devices=self.devices,
    )
    return state._replace(scores=NO_SCORES), scores

  def _epoch(self, state, key, cells, progress, keep) -> SharedLanguageState:
    """Trains the rest of an epoch and returns the state at its end."""
    update, _ = programs(self.trainer, self.devices)
    train, epoch, first = self.trainer.train, int(state.epoch), state.window
    title = f"train epoch {epoch + 1} of {train.epochs}"
    windows = list(
      language.random_windows(self.seed, epoch, len(self._train), train.bptt)
    )
    draw_key, step_key = jax.random.split(key)
    drawn = self._drawn(draw_key, len(windows), len(cells))
    training = self._training_state(state)
    losses, words = [], len(self._train) * train.batch
    each = WorkUnit(words / len(windows), "words")
    progress(title, int(first), len(windows), "", each)
    for start, end in chunking.calls(
      int(first), len(windows), STEPS_A_LOOK, parallel.of_first
    ):
      found = []
      for number in range(start, end):
        training, loss = update(
          training,
          step_key,
          np.int32(number),
          cells[drawn[number]],
          self._batch(windows[number]),
        )
        found.append(loss)
      found = jax.device_get(found)
      losses += found
      when = f" of epoch {epoch + 1}"
      state = state._replace(
        weights=training.weights,
        hidden=parallel.gather(training.hidden),
        window=np.int32(end),
        bad=count_bad(state.bad, found, end, len(windows), when=when),
      )
      keep(state, end - start)
      progress(title, end, len(windows), "", each)
    _log(epoch, losses)
    return state._replace(epoch=np.int32(epoch + 1), window=np.int32(0))

  def _training_state(self, state: SharedLanguageState) -> State:
    """Returns the state of the steps; an epoch begins without hidden state."""
    hidden = parallel.distribute(state.hidden, devices=self.devices)
    if not state.window:
      hidden = jax.tree.map(jnp.zeros_like, hidden)
    return State(state.weights, hidden)

  def _batch(self, window: language.Window) -> language.Batch:
    rows = language.cut(self._train, window)
    return language.Batch(rows, np.int32(window.length))

  def _drawn(self, key, count: int, members: int) -> np.ndarray:
    """Draws the members that train on each window, [count] or [count, n]."""
    if self.each_step == 1:
      return np.asarray(jax.random.randint(key, (count,), 0, members))
    chances = np.full(members, 1 / members, np.float32)
    numbers = np.arange(count, dtype=np.int32)
    return np.asarray(
      draw_members(key, numbers, members, chances, each=self.each_step)
    )

  @functools.cached_property
  def _train(self) -> np.ndarray:
    streams = text.streams(self.corpus.train, self.trainer.train.batch)
    return language.by_device(streams, self.devices)

  @property
  def _valid_text(self) -> np.ndarray:
    return self.corpus.validation[: self.score_tokens or None]

  @functools.cached_property
  def _valid(self) -> jax.Array:
    train = self.trainer.train
    streams = text.streams(self._valid_text, train.batch)
    windows = language.windows(streams, train.bptt)
    return parallel.replicate(windows, devices=self.devices)


def _log(epoch: int, losses: list[float]) -> None:
  """Logs the mean loss of an epoch, if any of its losses is finite."""
  if (loss := mean_loss(losses)) is not None:
    logging.info(
      "epoch %d: mean training loss %.4f, perplexity %.1f",
      epoch + 1,
      loss,
      np.exp(loss),
    )
