"""Training of candidates that classify images.

Shapes: D candidates, one on each device, B images a batch.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import functools

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data.augment import epoch_indices, eval_batches
from nao_jax.data.images import ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.evaluators import local
from nao_jax.runs import chunking
from nao_jax.runs.progress import WorkUnit
from nao_jax.training.candidate import Trainer
from nao_jax.training.feeds import CUT, STEPS_A_CALL, program
from nao_jax.training.recipe import Images, padded
from nao_jax.training.stand_alone import (
  Measured,
  TrainState,
  measure,
  measure_batches,
  train_batch,
  train_steps,
)


@dataclasses.dataclass(frozen=True)
class ImageCandidates:
  """Image networks of networks/candidate.py; the score is an accuracy.

  Implements `local.Candidates`.

  Attributes:
    trainer: settings of each training.
    data: the data set; networks are trained on its train part, which a stream
      reads again for each epoch.
    seed: seed of weights, order and augmentation, the same for all candidates.
    devices: number of local devices to use; all by default.
    part: the part of the data that accuracies are measured on, as a whole:
      `validation` or `test`.
    last_only: whether to measure after the last epoch alone.
  """

  trainer: Trainer
  data: ImageData | ImageStream
  seed: int
  devices: int | None = None
  part: str = "validation"
  last_only: bool = False

  @property
  def epochs(self) -> int:
    """Number of epochs of each training."""
    return self.trainer.train.epochs

  @property
  def each(self) -> WorkUnit:
    """Work unit: the images that a whole training reads."""
    return WorkUnit(self.epochs * self.trainer.examples, "images")

  def start(self, tokens: np.ndarray) -> TrainState:
    """Implements `local.Candidates.start`."""
    cells = self.trainer.network.to_cells(tokens)
    state = self.trainer.init(self._keys[0], self.data.image_shape, cells)
    return jax.device_get(state)

  def epoch(
    self,
    tokens: list[np.ndarray],
    states: list,
    epochs: list[int],
    between: Callable[[], None] = lambda: None,
  ) -> list[tuple]:
    """Implements `local.Candidates.epoch`."""
    cells = [(self.trainer.network.to_cells(row),) for row in tokens]
    states, architecture = parallel.distribute(
      jax.tree.map(lambda *x: np.stack(x), *zip(states, cells, strict=True)),
      devices=self.devices,
    )
    train = self._stream_epoch if self._streamed else self._train_epoch
    states, losses = train(states, architecture, epochs, between)
    accuracies = self._measure(states, architecture, epochs)
    states = jax.device_get(states)
    return [
      (jax.tree.map(lambda x, at=at: x[at], states), loss, accuracy)
      for at, (loss, accuracy) in enumerate(
        zip(losses.mean(1), accuracies, strict=True)
      )
    ]

  def _train_epoch(self, states, architecture, epochs, between):
    """Returns the new states and the losses, [D, steps]."""
    axes = (0, None, None, (0, None), 0)
    steps = program(_train_steps, self.trainer, self.devices, axes, 0)
    losses = []
    orders = np.stack([self._order(epoch) for epoch in epochs], 1)
    for start, end in chunking.calls(0, len(orders), STEPS_A_CALL):
      rows = padded(orders[start:end], STEPS_A_CALL).swapaxes(0, 1)
      batches = rows, np.int32(end - start)
      states, loss = steps(
        states, self._step_key, self._train, batches, architecture
      )
      losses.append(np.asarray(loss)[:, : end - start])
      between()
    return states, np.concatenate(losses, 1)

  def _stream_epoch(self, states, architecture, epochs, between):
    """Trains like `_train_epoch`; candidates in one epoch share a stream."""
    per_epoch, batch = self.trainer.steps_per_epoch, self.trainer.train.batch
    axes = (0, None, CUT, 0)
    update = program(_train_batch, self.trainer, self.devices, axes, 0)
    losses = []
    with contextlib.ExitStack() as stack:
      opened = {
        epoch: stack.enter_context(
          contextlib.closing(
            self.data.train_batches(
              batch, seed=self.seed, first_step=epoch * per_epoch
            )
          )
        )
        for epoch in dict.fromkeys(epochs)
      }
      for _ in range(per_epoch):
        made = {epoch: next(batches) for epoch, batches in opened.items()}
        examples = map(np.stack, zip(*(made[x] for x in epochs), strict=True))
        images = Images(*examples, self.data.mean, self.data.std)
        states, loss = update(states, self._step_key, images, architecture)
        losses.append(np.asarray(loss))
        between()
    return states, np.stack(losses, 1)

  def _measure(self, states, architecture, epochs) -> np.ndarray:
    """Returns accuracies, [D]; minus infinity for those not to be measured."""
    wanted = local.measured_epochs(epochs, self.epochs, self.last_only)
    if not wanted.any():
      return np.full(len(wanted), -np.inf)
    if self._streamed and self.part == "test":
      measured = self._measure_stream(states, architecture)
    else:
      axes = (0, None, None, None, 0)
      run = program(_measure_batches, self.trainer, self.devices, axes, 0)
      images, indices, counted = self._measured
      measured = run(states, images, indices, counted, architecture)
    accuracies = np.asarray(measured.right) / np.asarray(measured.examples)
    return np.where(wanted, accuracies, -np.inf)

  def _measure_stream(self, states, architecture) -> Measured:
    """Returns sums over the test part, which is decoded in every call: [D]."""
    axes = (0, None, None, 0)
    measured = program(_measure_batch, self.trainer, self.devices, axes, 0)
    batches = self.data.test_batches(self.trainer.train.batch)
    sums = [
      measured(
        states,
        Images(*examples, self.data.mean, self.data.std),
        counted,
        architecture,
      )
      for examples, counted in batches
    ]
    return jax.tree.map(lambda *parts: np.sum(parts, 0), *sums)

  @property
  def _streamed(self) -> bool:
    return isinstance(self.data, ImageStream)

  def _order(self, epoch: int) -> np.ndarray:
    """Returns the indices of an epoch's examples, [steps, B]."""
    key = jax.random.fold_in(self._keys[1], epoch)
    batch = self.trainer.train.batch
    return np.asarray(epoch_indices(key, self.trainer.examples, batch))

  @functools.cached_property
  def _keys(self) -> jax.Array:
    """Keys of the first weights, of the order and of the steps."""
    return jax.random.split(jax.random.key(self.seed), 3)

  @functools.cached_property
  def _step_key(self) -> jax.Array:
    return parallel.replicate(self._keys[2], devices=self.devices)

  @functools.cached_property
  def _train(self) -> Images:
    images = Images(*self.data.train, self.data.mean, self.data.std)
    return parallel.replicate(images, devices=self.devices)

  @functools.cached_property
  def _measured(self) -> tuple[Images, np.ndarray, np.ndarray]:
    """Images to measure, the indices of their batches, and which ones count.

    Images are padded to whole batches, so that parts of nearly the same size
    share a program.
    """
    part, batch = getattr(self.data, self.part), self.trainer.train.batch
    whole = -(-len(part.labels) // batch) * batch
    images = Images(
      padded(part.images, whole),
      padded(part.labels, whole),
      self.data.mean,
      self.data.std,
    )
    batches = eval_batches(len(part.labels), batch)
    return parallel.replicate((images, *batches), devices=self.devices)


def _on_own_device(function: Callable) -> Callable:
  """Adapts a function of stand_alone.py to one candidate on each device.

  The result takes the architecture as its last positional argument.
  """

  @functools.wraps(function)
  def adapted(*arguments, trainer, axis_name):
    del axis_name  # Nothing is averaged over the devices.
    *rest, architecture = arguments
    return function(*rest, trainer=trainer, architecture=architecture)

  return adapted


_train_steps = _on_own_device(train_steps)
_train_batch = _on_own_device(train_batch)
_measure_batch = _on_own_device(measure)
_measure_batches = _on_own_device(measure_batches)
