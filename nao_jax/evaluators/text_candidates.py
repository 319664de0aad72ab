"""Candidates that model text, in training.

Shapes: D candidates, one on each device, B streams, T steps.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.evaluators import local
from nao_jax.networks.recurrent import Weights
from nao_jax.runs import pace
from nao_jax.runs.progress import Each
from nao_jax.spaces import rnn
from nao_jax.training import language
from nao_jax.training.recurrent import Trainer, programs

# After how many steps at most the host waits for the losses.
STEPS_A_LOOK = 10


@dataclasses.dataclass(frozen=True)
class TextCandidates:
  """Language models of one cell; a score is minus the mean nats a word.

  All epochs cut the text into the same stretches: places that are at different
  epochs then run one program.

  See `local.Candidates`.

  Attributes:
    trainer: the settings of each training.
    train: the text to learn.
    measured: the text to score with.
    seed: of weights, lengths and dropout, the same for all candidates.
    devices: how many local devices to use; all by default.
    last_only: measure after the last epoch alone.
  """

  trainer: Trainer
  train: np.ndarray
  measured: np.ndarray
  seed: int
  devices: int | None = None
  last_only: bool = False

  @property
  def epochs(self) -> int:
    """Of each training."""
    return self.trainer.train.epochs

  @property
  def places(self) -> int:
    """D."""
    return parallel.count(self.devices)

  @property
  def each(self) -> Each:
    """What a whole training reads."""
    return Each(self.epochs * len(self.train), "words")

  def start(self, tokens: np.ndarray) -> Weights:
    """See `local.Candidates`."""
    del tokens  # First weights do not depend on the cell.
    return jax.device_get(self.trainer.init(self._keys[0]))

  def epoch(
    self,
    tokens: list[np.ndarray],
    states: list,
    epochs: list[int],
    between: Callable[[], None] = lambda: None,
  ) -> list[tuple]:
    """See `local.Candidates`."""
    update, _ = programs(self.trainer, self.devices)
    own = [
      (state, self._zeros, rnn.to_cells(np.asarray(row)), np.int32(epoch))
      for state, row, epoch in zip(states, tokens, epochs, strict=True)
    ]
    weights, hidden, cells, epoch = parallel.distribute(
      jax.tree.map(lambda *x: np.stack(x), *own), devices=self.devices
    )
    steps = len(self._stretches)
    losses = []
    for start, end in pace.calls(0, steps, STEPS_A_LOOK):
      for number in range(start, end):
        weights, hidden, loss = update(
          weights,
          hidden,
          self._keys[1],
          epoch * steps + number,
          cells,
          *self._stretches[number],
        )
        losses.append(loss)
      jax.block_until_ready(loss)
      between()
    scores = self._scores(weights, cells, epochs)
    weights, losses = jax.device_get((weights, losses))
    return [
      (jax.tree.map(lambda x, at=at: x[at], weights), loss, scored)
      for at, (loss, scored) in enumerate(
        zip(np.mean(losses, 0), scores, strict=True)
      )
    ]

  def _scores(self, weights, cells, epochs) -> np.ndarray:
    """Minus the mean nats a word, [D]; minus infinity where not asked for."""
    wanted = local.measured_epochs(epochs, self.epochs, self.last_only)
    if not wanted.any():
      return np.full(len(wanted), -np.inf)
    _, score = programs(self.trainer, self.devices)
    scores = score(weights, cells[:, None], self._measured)
    return np.where(wanted, np.asarray(scores)[:, 0], -np.inf)

  @functools.cached_property
  def _keys(self) -> jax.Array:
    """Of the first weights, and of the steps."""
    return jax.random.split(jax.random.key(self.seed))

  @functools.cached_property
  def _zeros(self) -> np.ndarray:
    """The state before a text."""
    train, model = self.trainer.train, self.trainer.model
    return np.zeros((train.batch, model.width), np.float32)

  @functools.cached_property
  def _stretches(self) -> list[tuple[np.ndarray, np.int32]]:
    """The rows and the length of each."""
    train = self.trainer.train
    streams = text.streams(self.train, train.batch)
    return [
      (language.cut(streams, stretch), np.int32(stretch.length))
      for stretch in language.stretches(self.seed, 0, len(streams), train.bptt)
    ]

  @functools.cached_property
  def _measured(self) -> jax.Array:
    train = self.trainer.train
    streams = text.streams(self.measured, train.batch)
    windows = language.windows(streams, train.bptt)
    return parallel.replicate(windows, devices=self.devices)
