"""Trains and measures the network of one architecture.

Functions take `trainer`, the settings; `architecture`, further inputs of the
network after the images, if any; and `axis_name`, the mapped axis over which
they average, BatchNorm's statistics included, or sum what is measured.

Shapes: B images per step, D devices, M micro-batches per step.
"""

import dataclasses
from typing import NamedTuple

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import optax

from nao_jax import parallel
from nao_jax.data.augment import normalise
from nao_jax.errors import UserError
from nao_jax.networks import build
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
    batch_stats: BatchNorm's running statistics.
    optimiser: the optimiser's state.
    step: int32 [], number of steps done; each has its own randomness.
  """

  params: dict
  batch_stats: dict
  optimiser: optax.OptState
  step: jax.Array


class Measured(NamedTuple):
  """Sums over examples; divided by `examples`, they are means.

  Attributes:
    examples: int32 [], number of examples counted.
    right: int32 [], number of examples whose label has the largest logit.
    in_top_5: int32 [], number whose label is among the five largest logits.
    loss: float32 [], cross-entropy in nats.
  """

  examples: jax.Array
  right: jax.Array
  in_top_5: jax.Array
  loss: jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer(Recipe):
  """Settings of one network's training; its methods are pure.

  Attributes:
    tokens: the architecture.
    accumulate: M, the number of parts into which a batch is cut to save memory;
      their gradients are averaged, and each has its own BatchNorm statistics.
      Each device cuts its own part, so results depend on the number of devices.
  """

  tokens: tuple[int, ...]
  accumulate: int = 1

  def model(self, axis_name: str | None = None) -> nn.Module:
    """Returns the network."""
    return build.stand_alone(self.network, self.tokens, axis_name)

  def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> TrainState:
    """Returns the state before the first step; consumes the key."""
    images = jnp.zeros((1, *image_shape))
    return self.start(initialise(self.model(), key, images))

  def start(self, variables: dict) -> TrainState:
    """Returns the state before the first step, from a network's variables."""
    params, step = variables["params"], jnp.zeros((), jnp.int32)
    stats = variables.get("batch_stats", {})
    return TrainState(params, stats, self.optimiser.init(params), step)

  def check(
    self, devices: int | None = None, where: str = "train.batch"
  ) -> None:
    """Implements `Recipe.check`; micro-batches must be of equal size, too."""
    super().check(devices, where)
    parts = parallel.count(devices) * self.accumulate
    if self.accumulate < 1 or self.train.batch % parts:
      raise UserError(
        f"`accumulate={self.accumulate}`: `{where}={self.train.batch}` is cut "
        f"into that many equal parts for each of {parallel.count(devices)} "
        "devices; give a divisor"
      )


def gradients(
  state: TrainState,
  key: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  *,
  trainer: Trainer,
  architecture: tuple = (),
  axis_name: str | None = None,
) -> tuple[dict, dict, jax.Array]:
  """Computes the gradient of the loss on one batch.

  Args:
    state: the training state, the same on all devices.
    key: consumed; the same on all devices.
    images: float32 [B / D, H, W, C], this device's part.
    labels: int32 [B / D].

  Returns:
    Gradient, new running statistics, and loss, averaged over the whole batch.
  """
  path_key, dropout_key = jax.random.split(key)
  progress = trainer.progress(state.step)
  masks = trainer.masks(path_key, len(images), progress, axis_name)
  parts = trainer.accumulate

  def add_part(carry, part):
    stats, total = carry
    number, images, labels, masks = part
    rngs = {"dropout": jax.random.fold_in(dropout_key, number)}
    inputs = images, *architecture, masks
    (loss, stats), gradient = jax.value_and_grad(batch_loss, has_aux=True)(
      state.params, stats, inputs, labels, rngs, trainer, axis_name
    )
    return (stats, jax.tree.map(jnp.add, total, gradient)), loss

  inputs = (
    jnp.arange(parts),
    _cut(images, parts),
    _cut(labels, parts),
    _cut_masks(masks, parts),
  )
  zeros = jax.tree.map(jnp.zeros_like, state.params)
  (stats, total), losses = lax.scan(
    add_part, (state.batch_stats, zeros), inputs
  )
  mean = jax.tree.map(lambda sum_: sum_ / parts, total)
  gradient, loss = parallel.mean((mean, jnp.mean(losses)), axis_name)
  return gradient, stats, loss


def _cut(x, parts: int):
  """Reshapes [B, ...] to [M, B / M, ...]."""
  return x.reshape(parts, -1, *x.shape[1:])


def _cut_masks(masks, parts: int):
  """Reshapes [cells, 2 nodes, B] to [M, cells, 2 nodes, B / M]; or None."""
  if masks is None:
    return None
  return jnp.moveaxis(_cut(jnp.moveaxis(masks, 2, 0), parts), 1, 3)


def batch_loss(
  params: dict,
  stats: dict,
  inputs: tuple,
  labels: jax.Array,
  rngs: dict,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[jax.Array, dict]:
  """Returns the loss of one micro-batch, and the new running statistics.

  Args:
    params: parameters of the network.
    stats: the running statistics before the micro-batch.
    inputs: images, the architecture if it is data, and drop-path factors.
    labels: int32 [B / M].
    rngs: a key for `dropout`.
  """
  if trainer.bfloat16:
    params, inputs = to_bfloat16((params, inputs))
  outputs, updated = trainer.model(axis_name).apply(
    {"params": params, "batch_stats": stats},
    *inputs,
    deterministic=False,
    mutable=["batch_stats"],
    rngs=rngs,
  )
  return trainer.loss(outputs, labels), updated.get("batch_stats", {})


def train_steps(
  state: TrainState,
  key: jax.Array,
  data: Images,
  batches: tuple[jax.Array, jax.Array | None],
  *,
  trainer: Trainer,
  architecture: tuple = (),
  axis_name: str | None = None,
) -> tuple[TrainState, jax.Array]:
  """Performs some steps in one program, on images that live on the device.

  Args:
    state: the training state, the same on all devices.
    key: the random key of the whole run; step i uses the key with i folded in.
    data: the training images, whole on every device.
    batches: this device's examples, int32 [steps, B / D]; and the number of
      these steps to perform, int32 [], or None for all.

  Returns:
    The new state and the losses [steps]; 0 for the steps that were not
    performed.
  """

  def step(state, indices):
    augment_key, loss_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    images = augmented(augment_key, data, indices, trainer.augment, axis_name)
    labels = data.labels[indices]
    return _update(
      state, loss_key, images, labels, trainer, architecture, axis_name
    )

  return repeat_steps(step, state, *batches)


def train_batch(
  state: TrainState,
  key: jax.Array,
  data: Images,
  *,
  trainer: Trainer,
  architecture: tuple = (),
  axis_name: str | None = None,
) -> tuple[TrainState, jax.Array]:
  """Performs one step on a batch that arrives augmented.

  Args:
    state: the training state, the same on all devices.
    key: the random key of the whole run, as for `train_steps`.
    data: this device's B / D images.

  Returns:
    The new state and the loss.
  """
  _, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
  images = normalise(data.images, data.mean, data.std)
  return _update(
    state, loss_key, images, data.labels, trainer, architecture, axis_name
  )


def _update(state, key, images, labels, trainer, architecture, axis_name):
  gradient, stats, loss = gradients(
    state,
    key,
    images,
    labels,
    trainer=trainer,
    architecture=architecture,
    axis_name=axis_name,
  )
  updates, optimiser = trainer.optimiser.update(
    gradient, state.optimiser, state.params
  )
  params = optax.apply_updates(state.params, updates)
  return TrainState(params, stats, optimiser, state.step + 1), loss


def measure(
  state: TrainState,
  data: Images,
  counted: jax.Array,
  *,
  trainer: Trainer,
  architecture: tuple = (),
  axis_name: str | None = None,
) -> Measured:
  """Measures the network on one batch.

  Args:
    state: the training state; its parameters and running statistics are used.
    data: this device's part of the batch.
    counted: bool [B / D], which of the images count.
  """
  images, labels, mean, std = data
  logits = classify(
    state, images, mean, std, trainer=trainer, architecture=architecture
  )
  _, best = lax.top_k(logits, min(5, logits.shape[-1]))
  hits = (best == labels[:, None]) & counted[:, None]
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return parallel.total(
    Measured(
      examples=jnp.sum(counted),
      right=jnp.sum(hits[:, 0]),
      in_top_5=jnp.sum(hits),
      loss=jnp.sum(jnp.where(counted, losses, 0)),
    ),
    axis_name,
  )


def measure_batches(
  state: TrainState,
  data: Images,
  indices: jax.Array,
  counted: jax.Array,
  *,
  trainer: Trainer,
  architecture: tuple = (),
  axis_name: str | None = None,
) -> Measured:
  """Applies `measure` to batches of images that live on the device.

  Args:
    state: see `measure`.
    data: the images, whole on every device.
    indices: int32 [batches, B / D], this device's examples.
    counted: bool [batches, B / D]; every example should count once.
  """

  def one(batch):
    indices, counted = batch
    part = data._replace(
      images=data.images[indices], labels=data.labels[indices]
    )
    return measure(
      state,
      part,
      counted,
      trainer=trainer,
      architecture=architecture,
      axis_name=axis_name,
    )

  return jax.tree.map(jnp.sum, lax.map(one, (indices, counted)))


def classify(
  state: TrainState,
  images: jax.Array,
  mean: jax.Array | None,
  std: jax.Array | None,
  *,
  trainer: Trainer,
  architecture: tuple = (),
) -> jax.Array:
  """Returns the logits [B, classes] of images uint8 [B, H, W, C]; inference.

  Args:
    state: the training state; its parameters and running statistics are used.
    images: the images as they are stored, not normalised.
    mean: float32 [C], or None if each image is standardised by itself.
    std: float32 [C], or None.
    trainer: the settings; the auxiliary head is left out.
  """
  network = build.without_auxiliary(trainer.network)
  model = dataclasses.replace(trainer, network=network).model()
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  images = normalise(images, mean, std)
  return model.apply(variables, images, *architecture)[0]
