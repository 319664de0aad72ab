"""Source of a supernet's training examples: device memory, or a stream.

A round that is resumed after step i trains on the same batches as one without
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
from nao_jax.training.feeds import CUT, STEPS_A_CALL, cut, own_rows, program
from nao_jax.training.recipe import Images, padded
from nao_jax.training.supernet import (
  Steps,
  Trainer,
  TrainState,
  train_batch,
  train_steps,
)


@dataclasses.dataclass(frozen=True)
class SupernetFeed:
  """Training examples of a supernet.

  Images in memory are kept on the devices and augmented there. Streamed images
  arrive augmented, batch by batch; each process reads those of its own devices,
  and a round continues the stream where the round before ended, so that every
  epoch has its own order.

  Attributes:
    trainer: the settings.
    data: the data set; its training part is used.
    devices: number of devices of each process to use; all by default.
  """

  trainer: Trainer
  data: ImageData | ImageStream
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
      The state after a call, and the call's losses; of a stream, a call is one
      step.

    Raises:
      UserError: during the iteration, if a streamed image of this or another
        process is damaged, or a worker that reads images died.
    """
    order_key, step_key = keys
    step_key = parallel.replicate(step_key, devices=self.devices)
    if isinstance(self.data, ImageStream):
      # The key is the same in every round, and so the stream continues.
      seed = int(jax.random.bits(order_key))
      before = epochs.start * self.trainer.steps_per_epoch
      batches = self._streamed(seed, before + first)
      return self._train_batches(state, step_key, batches, cells[first:])
    batches = self.batches(order_key, epochs)
    return self._train_in_memory(state, step_key, batches, cells, first)

  def _train_in_memory(self, state, key, batches, cells, first):
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
      state, losses = steps(state, key, self._train, rows, count)
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

  def _train_batches(self, state, key, batches, cells):
    in_axes, out_axes = (None, None, CUT, None), (None, None)
    update = program(
      train_batch, self.trainer, self.devices, in_axes, out_axes, donate=(0,)
    )
    with contextlib.closing(batches):
      for chosen, images in zip(cells, batches, strict=False):
        state, loss = update(state, key, images, chosen)
        yield state, np.asarray(loss)[None]

  def _streamed(self, seed: int, first: int) -> Iterator[Images]:
    """Yields this process's parts of the batches from a step on."""
    batch, data = self.trainer.train.batch, self.data
    rows = own_rows(batch, self.devices)
    batches = data.train_batches(
      batch, seed=seed, first_step=first, rows=rows.ravel().tolist()
    )
    with contextlib.closing(parallel.together(batches)) as batches:
      for examples in batches:
        yield cut(examples, rows, data.mean, data.std)
