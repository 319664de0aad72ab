"""Sources of a training's examples: device memory, or a stream.

A `Feed` trains on its examples from any state on, and measures. A training that
resumes at step i sees the same batches as one that was never interrupted.

Shapes: B images per step, D devices.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data.augment import epoch_indices, eval_batches
from nao_jax.data.images import Examples, ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.runs import chunking
from nao_jax.training.recipe import Images, padded
from nao_jax.training.stand_alone import (
  Measured,
  Trainer,
  TrainState,
  measure,
  measure_batches,
  train_batch,
  train_steps,
)

# Largest number of steps in one call to the devices.
STEPS_A_CALL = 25


class Call(NamedTuple):
  """Results of a call to the devices, which performs some steps.

  Attributes:
    state: the state after the steps.
    losses: float32 [steps].
    work: amount of work done: steps of images, or words of a text.
    ends_epoch: whether the last step is the last one of an epoch.
  """

  state: Any
  losses: np.ndarray
  work: int
  ends_epoch: bool

  @property
  def diverged(self) -> bool:
    """True if a loss is not finite."""
    return not np.isfinite(self.losses).all()


class Feed(Protocol):
  """The data of a training, of which it reads some in each step.

  Attributes:
    measures_together: whether all processes measure together; otherwise the
      first one measures alone.
  """

  measures_together: bool = True

  def for_helpers(self, state: Any) -> Any:
    """Returns the parts of a state that other processes need to train.

    By default it is all of it.
    """
    return state

  def train(self, state: Any, key: jax.Array) -> Iterator[Call]:
    """Trains at least to the end of an epoch, some steps at a time.

    Args:
      state: the state after any step.
      key: the random key of the whole training.
    """

  def measure(self, state: Any, part: str) -> dict:
    """Measures on a part of the data; JSON-like.

    Args:
      state: the state, or the part of it that is measured.
      part: `validation` or `test`.
    """


@dataclasses.dataclass(frozen=True)
class InMemory(Feed):
  """Images that live on the devices and are augmented there.

  Each device holds all images, as each step may use any of them.

  Attributes:
    trainer: the settings.
    data: the images, with the statistics that normalise them.
    devices: how many of each process to use; all by default.
  """

  trainer: Trainer
  data: ImageData
  devices: int | None = None

  def train(self, state: TrainState, key: jax.Array) -> Iterator[Call]:
    """Implements `Feed.train`; trains to the end of the last epoch."""
    step = int(state.step)
    order_key, step_key = jax.random.split(key)
    place = functools.partial(parallel.replicate, devices=self.devices)
    state, step_key, train = place((state, step_key, self._place("train")))
    in_axes, out_axes = (None, None, None, (1, None)), (None, None)
    steps = program(train_steps, self.trainer, self.devices, in_axes, out_axes)
    per_epoch = self.trainer.steps_per_epoch
    for epoch in range(step // per_epoch, self.trainer.train.epochs):
      order = self._order(jax.random.fold_in(order_key, epoch))
      first = max(step - epoch * per_epoch, 0)
      for start, end in chunking.calls(
        first, per_epoch, STEPS_A_CALL, parallel.of_first
      ):
        rows = parallel.own_rows(
          padded(order[start:end], STEPS_A_CALL), 1, devices=self.devices
        )
        count = np.int32(end - start)
        state, losses = steps(state, step_key, train, (rows, count))
        losses = np.asarray(losses)[:count]
        yield Call(state, losses, len(losses), end == per_epoch)

  def measure(self, state: TrainState, part: str) -> dict:
    """Measures the network on a part of the data.

    Args:
      state: the state of its training.
      part: `validation` or `test`.

    Returns:
      JSON-like: `examples`, `error`, `top_5_error` in [0, 1], `loss` in nats.
    """
    state, images = _without_optimiser(state, self.devices), self._place(part)
    parts, batch = _evaluation_batch(self.trainer, self.devices)
    indices, counted = (
      parallel.own_rows(
        x.reshape(-1, parts, batch // parts), 1, devices=self.devices
      )
      for x in eval_batches(len(images.labels), batch)
    )
    measured = program(
      measure_batches, self.trainer, self.devices, (None, None, 1, 1)
    )
    return _means(measured(state, images, indices, counted))

  def _order(self, key) -> np.ndarray:
    """Returns the examples of an epoch in order: [steps, D, B / D]."""
    batch = self.trainer.train.batch
    order = np.asarray(epoch_indices(key, self.trainer.examples, batch))
    return order.reshape(len(order), parallel.count(self.devices), -1)

  def _place(self, part: str) -> Images:
    data = self.data
    images = Images(*getattr(data, part), data.mean, data.std)
    return parallel.replicate(images, devices=self.devices)


@dataclasses.dataclass(frozen=True)
class Streamed(Feed):
  """Images that arrive augmented, batch by batch.

  Each process reads the images of its own devices.

  Attributes:
    trainer: the settings.
    stream: the images, with the statistics that normalise them.
    seed: the seed of the images' order and augmentation.
    devices: how many of each process to use; all by default.
  """

  trainer: Trainer
  stream: ImageStream
  seed: int
  devices: int | None = None

  def train(self, state: TrainState, key: jax.Array) -> Iterator[Call]:
    """Trains like `InMemory.train`; a call is one step.

    Raises:
      UserError: during the iteration, if an image of this or of another process
        is damaged, or if a worker that reads images died.
    """
    step = int(state.step)
    _, step_key = jax.random.split(key)
    state, step_key = parallel.replicate(
      (state, step_key), devices=self.devices
    )
    rows = own_rows(self.trainer.train.batch, self.devices)
    batches = parallel.together(
      self.stream.train_batches(
        self.trainer.train.batch,
        seed=self.seed,
        first_step=step,
        rows=rows.ravel().tolist(),
      )
    )
    in_axes, out_axes = (None, None, CUT), (None, None)
    update = program(train_batch, self.trainer, self.devices, in_axes, out_axes)
    per_epoch = self.trainer.steps_per_epoch
    numbers = range(step + 1, self.trainer.steps + 1)
    for number, examples in zip(numbers, batches, strict=False):
      images = cut(examples, rows, self.stream.mean, self.stream.std)
      state, loss = update(state, step_key, images)
      yield Call(state, np.asarray(loss)[None], 1, number % per_epoch == 0)

  def measure(self, state: TrainState, part: str) -> dict:
    """Measures like `InMemory.measure`; there is no validation part."""
    assert part == "test", part
    state = _without_optimiser(state, self.devices)
    _, batch = _evaluation_batch(self.trainer, self.devices)
    measured = program(measure, self.trainer, self.devices, (None, CUT, 0))
    total = None
    rows = own_rows(batch, self.devices)
    batches = self.stream.test_batches(batch, rows.ravel().tolist())
    for examples, counted in parallel.together(batches):
      counted = counted.reshape(rows.shape)
      images = cut(examples, rows, self.stream.mean, self.stream.std)
      sums = measured(state, images, counted)
      total = sums if total is None else jax.tree.map(np.add, total, sums)
    return _means(total)


# Each device gets its own images, and all the normalisation statistics.
CUT = Images(0, 0, None, None)


def own_rows(batch: int, devices: int | None) -> np.ndarray:
  """Returns the rows of a batch for this process's devices: [D, B / D]."""
  rows = np.arange(batch).reshape(parallel.count(devices), -1)
  return parallel.own_rows(rows, devices=devices)


def cut(
  examples: Examples,
  rows: np.ndarray,
  mean: np.ndarray | None,
  std: np.ndarray | None,
) -> Images:
  """Reshapes the rows of a batch, with the devices along a new first axis.

  Args:
    examples: the rows of a batch that `own_rows` returned.
    rows: what `own_rows` returned.
    mean: float32 [C] to normalise by, or None; see `augment.normalise`.
    std: float32 [C], or None.
  """
  images, labels = (x.reshape(*rows.shape, *x.shape[1:]) for x in examples)
  return Images(images, labels, mean, std)


@functools.lru_cache(maxsize=16)
def program(
  function: Callable,
  trainer: Trainer,
  devices: int | None,
  in_axes: tuple,
  out_axes: Any = None,
  donate: tuple[int, ...] = (),
) -> Callable:
  """Compiles a training or measuring function for every device.

  Equal trainings in one process share their programs, for example a training
  that is resumed. The function takes `trainer` and `axis_name`; the other
  arguments are those of `parallel.spread`.
  """
  return parallel.spread(
    functools.partial(function, trainer=trainer, axis_name=parallel.AXIS),
    in_axes,
    out_axes,
    devices=devices,
    donate=donate,
  )


def _without_optimiser(state: TrainState, devices: int | None) -> TrainState:
  """Replicates the parts of a state that a measurement needs on the devices."""
  return parallel.replicate(state._replace(optimiser=()), devices=devices)


def _evaluation_batch(trainer: Trainer, devices: int | None) -> tuple[int, int]:
  """Returns the number of devices, and a batch size that they share evenly."""
  parts = parallel.count(devices)
  return parts, parts * -(-trainer.train.batch // parts)


def _means(sums: Measured) -> dict:
  count = int(sums.examples)
  return {
    "examples": count,
    "error": 1 - int(sums.right) / count,
    "top_5_error": 1 - int(sums.in_top_5) / count,
    "loss": float(sums.loss) / count,
  }
