"""Scores of recurrent cells from shared weights.

Shapes: A architectures, L tokens, D devices, B streams.
"""

import dataclasses
import functools

from absl import logging
import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.evaluators.shared import Progress, score_pool
from nao_jax.networks.recurrent import Weights
from nao_jax.spaces import rnn
from nao_jax.training import language
from nao_jax.training.recurrent import Trainer, programs

# How much work one call to the devices holds at most, and after how many steps
# the host waits for the losses.
ARCHITECTURES_A_CALL = 4
STEPS_A_LOOK = 10


@dataclasses.dataclass(frozen=True)
class SharedLanguage:
  """An evaluator whose state is the shared weights.

  A score is minus the mean nats a word of the validation text, the same text
  for all, read from a zero state that is carried to the end.

  Attributes:
    trainer: the settings of the training, of shared weights.
    corpus: its training and validation text are used, the test text never.
    seed: of the order of lengths.
    rounds: how many times `score` will be called; the epochs are divided
      evenly among them.
    score_tokens: words of the validation text to score with, from its
      beginning; 0 for all of it.
    devices: how many local devices to use; all by default.
  """

  trainer: Trainer
  corpus: text.Corpus
  seed: int
  rounds: int
  score_tokens: int = 0
  devices: int | None = None

  def init(self, key: jax.Array) -> Weights:
    """Untrained weights; consumes the key."""
    return self.replicate(self.trainer.init(key))

  def replicate(self, state: Weights) -> Weights:
    """Places a state (a restored one, say) where `score` wants it."""
    return parallel.replicate(state, devices=self.devices)

  def score(
    self,
    state: Weights,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
  ) -> tuple[Weights, np.ndarray]:
    """Trains on the pool for a round, then scores all of it.

    Args:
      state: from `init` or from the round before.
      key: of the whole run: epochs and steps fold their number in.
      tokens: int32 [A, L], the pool.
      round_: number of this round, from 0.
      progress: told how far it is.

    Returns:
      The new state and the scores, float32 [A].
    """
    cells = np.asarray(rnn.to_cells(tokens))
    epochs = self.trainer.train.epochs // self.rounds
    losses = []
    for epoch in range(round_ * epochs, (round_ + 1) * epochs):
      epoch_key = jax.random.fold_in(key, epoch)
      state, loss = self._epoch(state, epoch_key, cells, epoch, progress)
      losses.append(loss)
    loss = float(np.mean(losses))
    logging.info(
      "round %d: mean training loss %.4f, perplexity %.1f",
      round_,
      loss,
      np.exp(loss),
    )
    if not np.isfinite(loss):
      logging.warning(
        "round %d: the model diverged; a smaller --learning_rate may help",
        round_,
      )
    return state, self._score(state, cells, progress)

  def _epoch(self, state, key, cells, epoch, progress):
    """The state after an epoch, and the mean loss of its steps."""
    update, _ = programs(self.trainer, self.devices)
    train = self.trainer.train
    title = f"train epoch {epoch + 1} of {train.epochs}"
    stretches = list(
      language.stretches(self.seed, epoch, len(self._train), train.bptt)
    )
    draw_key, step_key = jax.random.split(key)
    drawn = np.asarray(
      jax.random.randint(draw_key, (len(stretches),), 0, len(cells))
    )
    hidden = self._zeros()
    losses = []
    progress(title, 0, len(stretches))
    for number, stretch in enumerate(stretches):
      state, hidden, loss = update(
        state,
        hidden,
        step_key,
        np.int32(number),
        cells[drawn[number]],
        self._by_device(language.cut(self._train, stretch)),
        np.int32(stretch.length),
      )
      losses.append(loss)
      if number % STEPS_A_LOOK == 0 or number + 1 == len(stretches):
        loss.block_until_ready()
        progress(title, number + 1, len(stretches))
    return state, np.mean(jax.device_get(losses))

  def _score(self, state, cells, progress) -> np.ndarray:
    _, score = programs(self.trainer, self.devices)
    return score_pool(
      lambda shares: score(state, shares, self._valid),
      cells,
      progress,
      a_call=ARCHITECTURES_A_CALL,
      devices=self.devices,
    )

  def _zeros(self) -> jax.Array:
    """The state before a text, [D, B / D, H]."""
    parts = parallel.count(self.devices)
    train, width = self.trainer.train, self.trainer.model.width
    zeros = np.zeros((parts, train.batch // parts, width), np.float32)
    return parallel.distribute(zeros, devices=self.devices)

  def _by_device(self, rows: np.ndarray) -> np.ndarray:
    """Rows [T, B] to [D, T, B / D]."""
    return np.stack(np.split(rows, parallel.count(self.devices), axis=1))

  @functools.cached_property
  def _train(self) -> np.ndarray:
    return text.streams(self.corpus.train, self.trainer.train.batch)

  @functools.cached_property
  def _valid(self) -> jax.Array:
    train = self.trainer.train
    tokens = self.corpus.validation[: self.score_tokens or None]
    windows = language.windows(text.streams(tokens, train.batch), train.bptt)
    return parallel.replicate(windows, devices=self.devices)
