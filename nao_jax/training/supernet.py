"""Trains the supernet and scores architectures with it.

A step trains either one architecture on all devices, or several, each on its
share of the batch. Several architectures are spread over the devices; a device
with more than one trains them one after the other. Up to rounding, the results
do not depend on the number of devices, as no architecture is split between two.

Functions take `trainer`, the settings, and `axis_name`, the mapped axis over
which they average, BatchNorm's statistics included.

Shapes: B images per step, n architectures of [2, nodes, 4] per step (in general
`network.architecture_shape`), D devices, N architectures in the pool.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import optax

from nao_jax import parallel
from nao_jax.data.augment import normalise
from nao_jax.networks import build
from nao_jax.networks.build import Network
from nao_jax.networks.parameters import initialise
from nao_jax.training.recipe import (
  Images,
  Recipe,
  augmented,
  repeat_steps,
  to_bfloat16,
)


class TrainState(NamedTuple):
  """State of a training between two steps.

  Attributes:
    params: parameters of the network.
    optimiser: the optimiser's state.
    step: int32 [], number of steps done; each has its own randomness.
  """

  params: dict
  optimiser: optax.OptState
  step: jax.Array


class Batch(NamedTuple):
  """Images of one step, and the architectures that train on them.

  Attributes:
    images: float32 [B, H, W, C], normalised, or a device's part of them.
    labels: int32 [B].
    cells: int32 [2, nodes, 4]; or [n, 2, nodes, 4] with n = 1, or n a multiple
      of D that divides B; the same on all devices. Of the whole batch, the
      first B / n images are those of the first architecture.
  """

  images: jax.Array
  labels: jax.Array
  cells: jax.Array


class Steps(NamedTuple):
  """Examples and architectures of successive steps.

  Attributes:
    indices: int32 [steps, B], or a device's part of them.
    cells: int32 [steps, n, 2, nodes, 4], the same on all devices; see
      `draw_members` and `Batch`.
  """

  indices: jax.Array
  cells: jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer(Recipe):
  """Settings of a supernet's training; its methods are pure."""

  def init(self, key: jax.Array, data: Images) -> TrainState:
    """Returns the state before the first step; consumes the key."""
    cells = jnp.zeros(self.network.architecture_shape, jnp.int32)
    inputs = jnp.zeros((1, *data.images.shape[1:]))
    params = initialise(build.supernet(self.network), key, inputs, cells)
    step = jnp.zeros((), jnp.int32)
    # Under jit this is one program; otherwise each shape of zeros compiles one.
    return TrainState(params, jax.jit(self.optimiser.init)(params), step)


def gradients(
  params: dict,
  key: jax.Array,
  batch: Batch,
  progress: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[dict, jax.Array]:
  """Computes the gradient of one architecture's loss on one batch.

  Args:
    params: parameters of the supernet.
    key: consumed; the same on all devices.
    batch: this device's part of the batch, with one architecture.
    progress: share of the training that is done, for drop-path.

  Returns:
    Gradient and loss, averaged over the whole batch.
  """
  images, labels, cells = batch
  path_key, dropout_key = jax.random.split(key)
  masks = trainer.masks(path_key, len(images), progress, axis_name)
  inputs, rngs = (images, cells, masks), {"dropout": dropout_key}
  value, gradient = jax.value_and_grad(batch_loss)(
    params, inputs, labels, rngs, trainer, axis_name
  )
  return parallel.mean((gradient, value), axis_name)


def batch_loss(
  params: dict,
  inputs: tuple,
  labels: jax.Array,
  rngs: dict,
  trainer: Trainer,
  axis_name: str | None = None,
) -> jax.Array:
  """Returns the loss of one architecture on one batch.

  Args:
    params: parameters of the supernet.
    inputs: images, cells int32 [2, nodes, 4], and drop-path factors.
    labels: int32 [B].
    rngs: a key for `dropout`.
  """
  if trainer.bfloat16:
    params, inputs = to_bfloat16((params, inputs))
  outputs = build.supernet(trainer.network, axis_name).apply(
    params, *inputs, deterministic=False, rngs=rngs
  )
  return trainer.loss(outputs, labels)


def mean_gradients(
  params: dict,
  key: jax.Array,
  batch: Batch,
  progress: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[dict, jax.Array]:
  """Computes the mean gradient of n architectures, each on B / n images.

  With one architecture, this is `gradients`. With more, each architecture's
  BatchNorm statistics are those of its own images. A parameter that only one
  architecture uses gets 1 / n of its gradient, an unused one gets 0.

  Args:
    params: see `gradients`.
    key: see `gradients`; each architecture folds in its number.
    batch: this device's part of the batch, with n architectures.
    progress: see `gradients`.

  Returns:
    Gradient and loss, averaged over the whole batch.
  """
  images, labels, cells = batch
  if len(cells) == 1:
    return gradients(
      params,
      key,
      Batch(images, labels, cells[0]),
      progress,
      trainer=trainer,
      axis_name=axis_name,
    )
  numbers = parallel.own_part(jnp.arange(len(cells)), 0, axis_name)
  own = parallel.own_part(cells, 0, axis_name)
  images, labels = (
    x.reshape(len(own), -1, *x.shape[1:]) for x in (images, labels)
  )

  def add(total, part):
    number, *rest = part
    part_key = jax.random.fold_in(key, number)
    found = gradients(params, part_key, Batch(*rest), progress, trainer=trainer)
    return jax.tree.map(jnp.add, total, found), None

  zeros = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
  total, _ = lax.scan(add, zeros, (numbers, images, labels, own))
  mean = jax.tree.map(lambda x: x / len(own), total)
  return parallel.mean(mean, axis_name)


def train_steps(
  state: TrainState,
  key: jax.Array,
  data: Images,
  steps: Steps,
  count: jax.Array | None = None,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[TrainState, jax.Array]:
  """Performs several steps in one program, with architectures for each step.

  Args:
    state: the training state, the same on all devices.
    key: the random key of the whole run; step i uses the key with i folded in.
    data: the training images, whole on every device.
    steps: this device's examples, and the architectures.
    count: int32 [], number of these steps to perform; all if None.

  Returns:
    The new state and the losses [steps]; 0 for the steps that were not
    performed, NaN for the steps that changed nothing because their gradient was
    not finite.
  """

  def step(state, row):
    indices, cells = row
    _, augment_key, loss_key = _step_keys(key, state.step)
    images = augmented(augment_key, data, indices, trainer.augment, axis_name)
    batch = Batch(images, data.labels[indices], cells)
    return _update(state, loss_key, batch, trainer, axis_name)

  return repeat_steps(step, state, steps, count)


def train_batch(
  state: TrainState,
  key: jax.Array,
  data: Images,
  cells: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[TrainState, jax.Array]:
  """Takes one step on a batch that arrives augmented.

  Args:
    state: the same on all devices.
    key: of the whole run, as for `train_steps`.
    data: this device's B / D images.
    cells: int32 [n, 2, nodes, 4], the same on all devices.

  Returns:
    The new state and the loss; see `train_steps`.
  """
  loss_key = _step_keys(key, state.step)[2]
  images = normalise(data.images, data.mean, data.std)
  batch = Batch(images, data.labels, cells)
  return _update(state, loss_key, batch, trainer, axis_name)


def _update(
  state: TrainState,
  key: jax.Array,
  batch: Batch,
  trainer: Trainer,
  axis_name: str | None,
) -> tuple[TrainState, jax.Array]:
  """Takes a step on a batch, if its gradient is finite."""
  gradient, loss = mean_gradients(
    state.params,
    key,
    batch,
    trainer.progress(state.step),
    trainer=trainer,
    axis_name=axis_name,
  )
  updates, optimiser = trainer.optimiser.update(
    gradient, state.optimiser, state.params
  )
  params = optax.apply_updates(state.params, updates)
  # One diverging architecture among thousands must not destroy the shared
  # weights. A step is skipped, too, if its gradient's norm overflows (1e19).
  sound = jnp.isfinite(optax.tree.norm(gradient))
  params, optimiser = jax.tree.map(
    functools.partial(jnp.where, sound),
    (params, optimiser),
    (state.params, state.optimiser),
  )
  loss = jnp.where(sound, loss, jnp.nan)
  return TrainState(params, optimiser, state.step + 1), loss


def _step_keys(key: jax.Array, step: jax.Array) -> jax.Array:
  """Returns the keys of the drawn members, the augmentation and the loss."""
  return jax.random.split(jax.random.fold_in(key, step), 3)


@functools.partial(jax.jit, static_argnames="each")
def draw_members(
  key: jax.Array,
  steps: jax.Array,
  count: int,
  chances: jax.Array | None = None,
  *,
  each: int = 1,
) -> jax.Array:
  """Draws which members of a pool each step trains.

  Args:
    key: the random key of the whole run, that of `train_steps`.
    steps: int32 [steps], the numbers of the steps.
    count: N, the number of members.
    chances: float32 [N], the probability of each member; required if a step
      trains several; otherwise uniform by default.
    each: n, the members that a step trains. They are distinct, so with n > 1
      only the first is drawn with exactly these chances; if N < n, some train
      twice.

  Returns:
    int32 [steps, n].
  """

  def draw(step):
    member_key = _step_keys(key, step)[0]
    if chances is None:
      return jax.random.randint(member_key, (), 0, count)[None]
    if each == 1:
      return jax.random.choice(member_key, len(chances), p=chances)[None]
    drawn = jax.random.choice(
      member_key, len(chances), (min(each, len(chances)),), False, chances
    )
    return jnp.resize(drawn, each)

  return jax.vmap(draw)(steps)


def score(
  params: dict,
  pool: jax.Array,
  data: Images,
  indices: jax.Array,
  counted: jax.Array,
  *,
  network: Network,
  bfloat16: bool = False,
) -> jax.Array:
  """Returns the accuracy of each architecture on the same set of examples.

  Args:
    params: parameters of the supernet.
    pool: int32 [N, 2, nodes, 4].
    data: the examples.
    indices: int32 [batches, B]; the last batch is padded with earlier examples,
      which only complete its BatchNorm statistics.
    counted: bool [batches, B], true once for every example.
    network: the sizes.
    bfloat16: see `Recipe`.

  Returns:
    float32 [N] in [0, 1].
  """
  if bfloat16:
    params = to_bfloat16(params)
  model = build.supernet(build.without_auxiliary(network))

  def right(cells, batch):
    indices, counted = batch
    images = normalise(data.images[indices], data.mean, data.std)
    if bfloat16:
      images = to_bfloat16(images)
    logits, _ = model.apply(params, images, cells)
    hits = jnp.argmax(logits, -1) == data.labels[indices]
    return jnp.sum(hits & counted)

  def accuracy(cells):
    hits = lax.map(functools.partial(right, cells), (indices, counted))
    return jnp.sum(hits) / jnp.sum(counted)

  return lax.map(accuracy, pool)
