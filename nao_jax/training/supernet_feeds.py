"""Sources of a supernet's training examples: device memory, or a stream.

Both feeds have one method, which trains from any step of a round to its end. A
round that is resumed after step i trains on the same batches as one without
interruption.

Shapes: B images a step, D devices, n architectures a step.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data.augment import epoch_indices
from nao_jax.data.images import ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.runs import chunking
from nao_jax.training.feeds import CUT, cut, own_rows, program
from nao_jax.training.recipe import Images, padded
from nao_jax.training.supernet import (
  Steps,
  Trainer,
  TrainState,
  train_batch,
  train_steps,
)

# The most training steps in one call to the devices. Progress is shown, and
# interrupts are served, between calls.
STEPS_A_CALL = 25


@dataclasses.dataclass(frozen=True)
class InMemory:
  """Images that are kept on the devices and augmented there.

  Attributes:
    trainer: the settings.
    data: the data set; its training part is used.
    devices: number of devices of each process to use; all by default.
  """

  trainer: Trainer
  data: ImageData
  devices: int | None = None

  def train(
    self,
    state: TrainState,
    keys: jax.Array,
    epochs: range,
    cells: np.ndarray,
    first: int,
  ) -> Iterator[tuple[TrainState, np.ndarray]]:
    """Trains to the end of a round, some steps at a time.

    Args:
      state: the state after `first` steps of the round; it is donated.
      keys: the key of the order of the images, and the key of the steps.
      epochs: the numbers of the round's epochs.
      cells: int32 [steps, n, 2, nodes, 4], the architectures of each step.
      first: number of steps of the round that are done.

    Yields:
      The state after a call, and the call's losses.
    """
    order_key, step_key = keys
    batches = self.batches(order_key, epochs)
    step_key = parallel.replicate(step_key, devices=self.devices)
    in_axes, out_axes = (None, None, None, Steps(1, None), None), (None, None)
    steps = program(
      train_steps, self.trainer, self.devices, in_axes, out_axes, donate=(0,)
    )
    for start, end in chunking.calls(
      first, len(batches), STEPS_A_CALL, parallel.of_first
    ):
      rows = parallel.own_rows(
        padded(batches[start:end], STEPS_A_CALL), 1, devices=self.devices
      )
      count = np.int32(end - start)
      rows = Steps(rows, padded(cells[start:end], STEPS_A_CALL))
      state, losses = steps(state, step_key, self._train, rows, count)
      yield state, np.asarray(losses)[:count]

  def batches(self, key: jax.Array, epochs: range) -> np.ndarray:
    """Returns the examples of some epochs: int32 [steps, D, B / D]."""
    batch = self.trainer.train.batch
    orders = [
      epoch_indices(
        jax.random.fold_in(key, epoch), self.trainer.examples, batch
      )
      for epoch in epochs
    ]
    parts = parallel.count(self.devices)
    return np.concatenate(orders).reshape(-1, parts, batch // parts)

  @functools.cached_property
  def _train(self) -> Images:
    images = Images(*self.data.train, self.data.mean, self.data.std)
    return parallel.replicate(images, devices=self.devices)


@dataclasses.dataclass(frozen=True)
class Streamed:
  """Images that arrive augmented, batch by batch.

  Each process reads the images of its own devices. A round continues the stream
  where the round before ended, so that every epoch has its own order.

  Attributes:
    trainer: the settings.
    stream: the data set; its training part is used.
    devices: number of devices of each process to use; all by default.
  """

  trainer: Trainer
  stream: ImageStream
  devices: int | None = None

  def train(
    self,
    state: TrainState,
    keys: jax.Array,
    epochs: range,
    cells: np.ndarray,
    first: int,
  ) -> Iterator[tuple[TrainState, np.ndarray]]:
    """Does the same as `InMemory.train`; a call is one step.

    Raises:
      UserError: during the iteration, if an image of this or another process is
        damaged, or a worker that reads images died.
    """
    order_key, step_key = keys
    # The key is the same in every round, and so the stream continues.
    before = epochs.start * self.trainer.steps_per_epoch
    step_key = parallel.replicate(step_key, devices=self.devices)
    batch = self.trainer.train.batch
    rows = own_rows(batch, self.devices)
    in_axes, out_axes = (None, None, CUT, None), (None, None)
    update = program(
      train_batch, self.trainer, self.devices, in_axes, out_axes, donate=(0,)
    )
    batches = parallel.together(
      self.stream.train_batches(
        batch,
        seed=int(jax.random.bits(order_key)),
        first_step=before + first,
        rows=rows.ravel().tolist(),
      )
    )
    with contextlib.closing(batches):
      for chosen, examples in zip(cells[first:], batches, strict=False):
        images = cut(examples, rows, self.stream.mean, self.stream.std)
        state, loss = update(state, step_key, images, chosen)
        yield state, np.asarray(loss)[None]
