"""Training the supernet and scoring architectures with it.

Shapes: B images a step, D devices, N architectures of [2, nodes, 4].
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import optax

from nao_jax import parallel
from nao_jax.data.augment import AugmentConfig, augment, normalise
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig, drop_path_masks, initialise
from nao_jax.networks.supernet import Supernet
from nao_jax.training.optimisers import SgdConfig, sgd


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How the supernet trains; the defaults are the official search's.

  Attributes:
    epochs: over the training images, all rounds together.
    batch: B, over all devices; also the size of the batches that scoring
      normalises over (BatchNorm uses each batch's statistics, so it is part of
      the score).
    drop_path_keep: final probability that the last cell keeps a branch.
    label_smoothing: share of a label's weight that goes to all classes.
    auxiliary_weight: of the auxiliary head's loss.
  """

  epochs: int = 150
  batch: int = 64
  drop_path_keep: float = 0.9
  label_smoothing: float = 0.0
  auxiliary_weight: float = 0.4


class TrainState(NamedTuple):
  """What a step takes and gives back.

  Attributes:
    params: of the network.
    optimiser: its state.
    step: int32 [], steps done; each has its own randomness.
  """

  params: dict
  optimiser: optax.OptState
  step: jax.Array


class Images(NamedTuple):
  """Examples on the device, and what normalises them.

  Attributes:
    images: uint8 [n, H, W, C].
    labels: int32 [n].
    mean: float32 [C].
    std: float32 [C].
  """

  images: jax.Array
  labels: jax.Array
  mean: jax.Array
  std: jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer:
  """The settings of a training run; hashable, its methods are pure.

  Attributes:
    network: sizes of the supernet.
    train: the recipe.
    sgd: the optimiser.
    augment: random changes to the images.
    examples: number of training images.
  """

  network: NetworkConfig
  train: TrainConfig
  sgd: SgdConfig
  augment: AugmentConfig
  examples: int

  @property
  def steps_per_epoch(self) -> int:
    """Full batches; the rest of an epoch's random order is left out."""
    return self.examples // self.train.batch

  @property
  def optimiser(self) -> optax.GradientTransformation:
    """The optimiser with its schedule."""
    return sgd(
      self.sgd,
      epochs=self.train.epochs,
      steps_per_epoch=self.steps_per_epoch,
    )

  def init(self, key: jax.Array, data: Images) -> TrainState:
    """The state before the first step; consumes the key."""
    cells = jnp.zeros((2, self.network.nodes, 4), jnp.int32)
    inputs = jnp.zeros((1, *data.images.shape[1:]))
    params = initialise(Supernet(self.network), key, inputs, cells)
    step = jnp.zeros((), jnp.int32)
    return TrainState(params, self.optimiser.init(params), step)

  def check(self, devices: int | None = None, flag: str = "--batch") -> None:
    """Raises UserError if the batch does not fit the devices or the data."""
    parts = parallel.count(devices)
    if self.train.batch % parts:
      raise UserError(
        f"{flag}={self.train.batch}: {parts} devices share a batch evenly; "
        f"give a multiple of {parts}"
      )
    if not 1 <= self.train.batch <= self.examples:
      raise UserError(
        f"{flag}={self.train.batch}: there are {self.examples} training "
        "images; give a batch from 1 to that"
      )


def gradients(
  params: dict,
  key: jax.Array,
  images: jax.Array,
  labels: jax.Array,
  cells: jax.Array,
  progress: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[dict, jax.Array]:
  """The gradient of one architecture's loss on one batch.

  Args:
    params: of the supernet.
    key: consumed; the same on all devices.
    images: float32 [B / D, H, W, C], this device's part.
    labels: int32 [B / D].
    cells: int32 [2, nodes, 4], the same on all devices.
    progress: share of the training that is done, for drop-path.
    trainer: the settings.
    axis_name: the mapped axis over which to average.

  Returns:
    Gradient and loss, averaged over the whole batch.
  """
  config = trainer.train
  path_key, dropout_key = jax.random.split(key)
  masks = None
  if config.drop_path_keep < 1:
    masks = drop_path_masks(
      path_key, trainer.network, config.batch, config.drop_path_keep, progress
    )
    masks = parallel.own_part(masks, 2, axis_name)
  model = Supernet(trainer.network, axis_name)

  def loss(params):
    logits, auxiliary = model.apply(
      params,
      images,
      cells,
      masks,
      deterministic=False,
      rngs={"dropout": dropout_key},
    )
    entropy = functools.partial(
      cross_entropy, labels=labels, smoothing=config.label_smoothing
    )
    total = entropy(logits)
    if auxiliary is not None:
      total += config.auxiliary_weight * entropy(auxiliary)
    return total

  value, gradient = jax.value_and_grad(loss)(params)
  return parallel.mean((gradient, value), axis_name)


def cross_entropy(logits, labels, smoothing: float = 0.0) -> jax.Array:
  """Mean over the batch, in nats.

  Args:
    logits: [B, classes].
    labels: int32 [B].
    smoothing: share of a label's weight that is spread over all classes.
  """
  targets = optax.smooth_labels(
    jax.nn.one_hot(labels, logits.shape[-1]), smoothing
  )
  return jnp.mean(optax.softmax_cross_entropy(logits, targets))


def train_steps(
  state: TrainState,
  key: jax.Array,
  data: Images,
  pool: jax.Array,
  indices: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[TrainState, jax.Array]:
  """Some steps in one program, each with one architecture from the pool.

  Args:
    state: the same on all devices.
    key: of the whole run; step i uses what is folded in for i.
    data: the training images, whole on every device.
    pool: int32 [N, 2, nodes, 4], drawn from uniformly.
    indices: int32 [steps, B / D], this device's examples.
    trainer: the settings.
    axis_name: the mapped axis.

  Returns:
    The new state and the losses [steps].
  """
  total = trainer.train.epochs * trainer.steps_per_epoch

  def step(state, indices):
    pool_key, augment_key, loss_key = jax.random.split(
      jax.random.fold_in(key, state.step), 3
    )
    member = jax.random.randint(pool_key, (), 0, len(pool))
    images = _augmented(augment_key, data, indices, trainer.augment, axis_name)
    gradient, loss = gradients(
      state.params,
      loss_key,
      images,
      data.labels[indices],
      pool[member],
      jnp.minimum(state.step / total, 1),
      trainer=trainer,
      axis_name=axis_name,
    )
    updates, optimiser = trainer.optimiser.update(
      gradient, state.optimiser, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, optimiser, state.step + 1), loss

  return lax.scan(step, state, indices)


def _augmented(key, data, indices, config, axis_name):
  """Each example has its own key, by its place in the whole batch."""
  count = len(indices)
  first = 0 if axis_name is None else lax.axis_index(axis_name) * count
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))
  change = functools.partial(
    augment, mean=data.mean, std=data.std, config=config
  )
  return jax.vmap(lambda key, image: change(key, image[None])[0])(
    keys, data.images[indices]
  )


def score(
  params: dict,
  pool: jax.Array,
  data: Images,
  indices: jax.Array,
  counted: jax.Array,
  *,
  network: NetworkConfig,
) -> jax.Array:
  """The accuracy of each architecture on the same, whole set of examples.

  Args:
    params: of the supernet.
    pool: int32 [N, 2, nodes, 4].
    data: the examples.
    indices: int32 [batches, B]; the last batch is filled up with examples that
      were seen before, which only complete its BatchNorm statistics.
    counted: bool [batches, B]; every example counts once.
    network: the sizes.

  Returns:
    float32 [N] in [0, 1].
  """
  model = Supernet(dataclasses.replace(network, auxiliary=False))

  def right(cells, batch):
    indices, counted = batch
    images = normalise(data.images[indices], data.mean, data.std)
    logits, _ = model.apply(params, images, cells)
    hits = jnp.argmax(logits, -1) == data.labels[indices]
    return jnp.sum(hits & counted)

  def accuracy(cells):
    hits = lax.map(functools.partial(right, cells), (indices, counted))
    return jnp.sum(hits) / jnp.sum(counted)

  return lax.map(accuracy, pool)
