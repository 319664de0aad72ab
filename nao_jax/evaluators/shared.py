"""Scores from shared weights: train the supernet on the pool, score the pool.

Shapes: N architectures, L tokens, D devices, B images a batch.
"""

from collections.abc import Callable
import dataclasses
import functools

from absl import logging
import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data.augment import epoch_indices, eval_batches
from nao_jax.data.images import Examples, ImageData
from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn
from nao_jax.training.recipe import Images, largest_divisor
from nao_jax.training.supernet import Trainer, TrainState, score, train_steps

# Called with the phase, the work done, all of the phase's work and, if there is
# more to say, a note.
Progress = Callable[..., None]

# How much work one call to the devices holds at most; progress is seen, and
# an interrupt served, between calls.
STEPS_A_CALL = 25
ARCHITECTURES_A_CALL = 10


def score_pool(
  score: Callable[[np.ndarray], jax.Array],
  cells: np.ndarray,
  progress: Progress,
  *,
  a_call: int,
  devices: int | None,
) -> np.ndarray:
  """Scores architectures some at a time, shared out to the devices.

  Args:
    score: takes cells [D, n, ...] and gives their scores [D, n].
    cells: [N, ...].
    progress: told how many are scored.
    a_call: n, how many a device scores in one call at most.
    devices: how many local devices there are; all by default.

  Returns:
    float32 [N].
  """
  parts = parallel.count(devices)
  size = min(a_call * parts, len(cells))
  size += -size % parts
  scores = []
  progress("score pool", 0, len(cells))
  for start in range(0, len(cells), size):
    chunk = cells[start : start + size]
    padded = np.resize(chunk, (size, *chunk.shape[1:]))
    found = score(padded.reshape(parts, -1, *chunk.shape[1:]))
    scores.append(np.asarray(found).reshape(-1)[: len(chunk)])
    progress("score pool", start + len(chunk), len(cells))
  return np.concatenate(scores)


@dataclasses.dataclass(frozen=True)
class SharedWeights:
  """An evaluator whose state is the supernet's.

  Attributes:
    trainer: the settings of the training.
    data: train and validation part are used, the test part never.
    rounds: how many times `score` will be called; the epochs are divided
      evenly among them.
    devices: how many local devices to use; all by default.
  """

  trainer: Trainer
  data: ImageData
  rounds: int
  devices: int | None = None

  def init(self, key: jax.Array) -> TrainState:
    """An untrained supernet; consumes the key."""
    return self.replicate(self.trainer.init(key, self._train))

  def replicate(self, state: TrainState) -> TrainState:
    """Places a state (a restored one, say) where `score` wants it."""
    return parallel.replicate(state, devices=self.devices)

  def score(
    self,
    state: TrainState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
  ) -> tuple[TrainState, np.ndarray]:
    """Trains on the pool for a round, then scores all of it.

    Args:
      state: from `init` or from the round before.
      key: of the whole run: steps and epochs fold their number in.
      tokens: int32 [N, L], the pool.
      round_: number of this round, from 0.
      progress: told how far it is.

    Returns:
      The new state and the validation accuracies, float32 [N].
    """
    cells = np.asarray(cnn.to_cells(tokens))
    state = self._train_round(state, key, cells, round_, progress)
    return state, self._score(state.params, cells, progress)

  def _train_round(self, state, key, cells, round_, progress):
    order_key, step_key = jax.random.split(key)
    put = functools.partial(parallel.replicate, devices=self.devices)
    pool, step_key = put((cells, step_key))
    calls = self._batches(order_key, round_)
    progress("train supernet", 0, len(calls))
    losses = []
    for call, indices in enumerate(calls):
      state, loss = self._train_steps(
        state, step_key, self._train, pool, indices
      )
      losses.append(np.asarray(loss))
      progress("train supernet", call + 1, len(calls))
    loss = float(np.mean(losses))
    logging.info("round %d: mean training loss %.4f", round_, loss)
    if not np.isfinite(loss):
      logging.warning(
        "round %d: the supernet diverged; a smaller --learning_rate may help",
        round_,
      )
    return state

  def _batches(self, key, round_) -> np.ndarray:
    """A round's examples: [calls, steps, D, B / D]."""
    epochs = self.trainer.train.epochs // self.rounds
    batch = self.trainer.train.batch
    orders = [
      epoch_indices(
        jax.random.fold_in(key, epoch), self.trainer.examples, batch
      )
      for epoch in range(round_ * epochs, (round_ + 1) * epochs)
    ]
    indices = np.concatenate(orders)
    steps = largest_divisor(len(indices), STEPS_A_CALL)
    return indices.reshape(
      -1,
      steps,
      parallel.count(self.devices),
      batch // parallel.count(self.devices),
    )

  def _score(self, params, cells, progress) -> np.ndarray:
    return score_pool(
      lambda shares: self._score_chunk(
        params, shares, self._valid, *self._valid_batches
      ),
      cells,
      progress,
      a_call=ARCHITECTURES_A_CALL,
      devices=self.devices,
    )

  @functools.cached_property
  def _train_steps(self):
    return parallel.spread(
      functools.partial(
        train_steps, trainer=self.trainer, axis_name=parallel.AXIS
      ),
      in_axes=(None, None, None, None, 1),
      out_axes=(None, None),
      devices=self.devices,
    )

  @functools.cached_property
  def _score_chunk(self):
    network: NetworkConfig = self.trainer.network
    return parallel.spread(
      functools.partial(score, network=network),
      in_axes=(None, 0, None, None, None),
      devices=self.devices,
    )

  @functools.cached_property
  def _train(self) -> Images:
    return self._place(self.data.train)

  @functools.cached_property
  def _valid(self) -> Images:
    return self._place(self.data.validation)

  def _place(self, examples: Examples) -> Images:
    images = Images(*examples, self.data.mean, self.data.std)
    return parallel.replicate(images, devices=self.devices)

  @functools.cached_property
  def _valid_batches(self):
    batches = eval_batches(
      len(self.data.validation.labels), self.trainer.train.batch
    )
    return parallel.replicate(batches, devices=self.devices)


@dataclasses.dataclass(frozen=True)
class Alone:
  """Trains one architecture at a time in the supernet's program.

  No weight is shared, since there is nobody to share it with. The network is
  the search's: loose ends go through a 1x1 convolution, and BatchNorm uses the
  statistics of each batch, in the measurement too.

  Attributes:
    trainer: the settings.
    data: trains on the train part, is measured on the test part.
    repeats: trainings of each architecture with other random numbers.
    devices: how many local devices to use; all by default.
  """

  trainer: Trainer
  data: ImageData
  repeats: int
  devices: int | None = None

  @functools.cached_property
  def _evaluator(self) -> SharedWeights:
    data = dataclasses.replace(self.data, validation=self.data.test)
    return SharedWeights(self.trainer, data, 1, self.devices)

  def test_accuracy(
    self,
    tokens: np.ndarray,
    key: jax.Array,
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> np.ndarray:
    """As `ScratchTrainer.test_accuracy`, but `progress` counts repeats."""
    accuracies = []
    for repeat in range(self.repeats):
      init_key, run_key = jax.random.split(jax.random.fold_in(key, repeat))
      _, scores = self._evaluator.score(
        self._evaluator.init(init_key),
        run_key,
        tokens[None],
        0,
        lambda phase, done, total: None,
      )
      accuracies += scores.tolist()
      progress(repeat + 1, self.repeats)
    return np.array(accuracies, np.float32)
