"""Training one architecture from scratch, several times at once.

Shapes: R repeats (each with its own initial weights and order of examples), B
images a step.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from nao_jax.data.augment import (
  AugmentConfig,
  augment,
  epoch_indices,
  eval_batches,
  normalise,
)
from nao_jax.data.images import ImageData
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig, drop_path_masks, initialise
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.training.optimisers import SgdConfig, sgd
from nao_jax.training.supernet import Images, cross_entropy


@dataclasses.dataclass(frozen=True)
class ScratchConfig:
  """How the best cells and random ones are trained from scratch.

  Attributes:
    cells: how many of the best, and how many random ones; 0 for none.
    repeats: R, trainings of each with other random numbers.
    epochs: over the training images.
    channels: width of the first stage.
    cells_per_stage: normal cells in each of the three stages.
    batch: B.
    drop_path_keep: final probability that the last cell keeps a branch.
    specialise: build and compile the stand-alone network of each cell. If not,
      each trains alone in the supernet's program, which is compiled once: for
      trainings that are shorter than a compile.
  """

  cells: int = 3
  repeats: int = 3
  epochs: int = 10
  channels: int = 20
  cells_per_stage: int = 3
  batch: int = 64
  drop_path_keep: float = 1.0
  specialise: bool = True

  def network(self, network: NetworkConfig) -> NetworkConfig:
    """The search's network at the sizes of these trainings."""
    return dataclasses.replace(
      network,
      channels=self.channels,
      cells_per_stage=self.cells_per_stage,
      auxiliary=False,
    )

  def check(self, examples: int) -> None:
    """Raises UserError for sizes that cannot work."""
    if not 1 <= self.batch <= examples:
      raise UserError(
        f"--final_batch={self.batch}: allowed: 1 to {examples}, the training "
        "images"
      )
    for name, least in (("cells", 0), ("repeats", 1), ("epochs", 1)):
      if getattr(self, name) < least:
        raise UserError(
          f"--final_{name}={getattr(self, name)}: allowed: {least} or more"
        )


@dataclasses.dataclass(frozen=True)
class ScratchTrainer:
  """The settings of these trainings.

  Attributes:
    network: sizes; channels and cells are taken from `config`.
    config: the budget.
    sgd: the optimiser; its cosine ends with the epochs.
    augment: random changes to the images.
    data: trains on the train part, is measured on the test part.
  """

  network: NetworkConfig
  config: ScratchConfig
  sgd: SgdConfig
  augment: AugmentConfig
  data: ImageData

  def test_accuracy(
    self,
    tokens: np.ndarray,
    key: jax.Array,
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> np.ndarray:
    """Trains one architecture R times, then looks at the test part once.

    Args:
      tokens: int32 [L].
      key: consumed; the same key gives all architectures the same order of
        examples.
      progress: told the epochs done and all of them.

    Returns:
      float32 [R], accuracies in [0, 1].
    """
    config = self.config
    model = StandAlone(
      config.network(self.network), tuple(int(token) for token in tokens)
    )
    count = len(self.data.train.labels)
    optimiser = sgd(
      self.sgd, epochs=config.epochs, steps_per_epoch=count // config.batch
    )
    keys = jax.random.split(key, config.repeats)
    train, test = (
      Images(*part, self.data.mean, self.data.std)
      for part in (self.data.train, self.data.test)
    )
    inputs = jnp.zeros((1, *train.images.shape[1:]))
    variables = jax.tree.map(
      lambda *values: jnp.stack(values),
      *(initialise(model, key, inputs) for key in keys),
    )
    state = variables, jax.vmap(optimiser.init)(variables["params"])
    epoch = jax.jit(
      jax.vmap(
        functools.partial(
          _epoch,
          model=model,
          optimiser=optimiser,
          config=config,
          augmentation=self.augment,
        ),
        in_axes=(0, 0, None, None),
      )
    )
    for number in range(config.epochs):
      state = epoch(state, keys, train, jnp.asarray(number))
      jax.block_until_ready(state)
      progress(number + 1, config.epochs)
    hits = jax.jit(
      jax.vmap(
        functools.partial(_hits, model=model, batch=config.batch),
        in_axes=(0, None),
      )
    )(state[0], test)
    return np.asarray(hits) / len(test.labels)


def _epoch(state, key, data, number, *, model, optimiser, config, augmentation):
  """One pass over the training images."""
  order_key, *step_keys = jax.random.split(jax.random.fold_in(key, number), 2)
  order = epoch_indices(order_key, len(data.labels), config.batch)
  progress = number / config.epochs

  def step(state, step_input):
    variables, optimiser_state = state
    indices, key = step_input
    augment_key, path_key, dropout_key = jax.random.split(key, 3)
    images = augment(
      augment_key,
      data.images[indices],
      mean=data.mean,
      std=data.std,
      config=augmentation,
    )
    masks = None
    if config.drop_path_keep < 1:
      masks = drop_path_masks(
        path_key, model.config, config.batch, config.drop_path_keep, progress
      )

    def loss(params):
      (logits, _), updated = model.apply(
        variables | {"params": params},
        images,
        masks,
        deterministic=False,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_key},
      )
      return cross_entropy(logits, data.labels[indices]), updated

    gradient, updated = jax.grad(loss, has_aux=True)(variables["params"])
    updates, optimiser_state = optimiser.update(
      gradient, optimiser_state, variables["params"]
    )
    params = optax.apply_updates(variables["params"], updates)
    return ({"params": params} | updated, optimiser_state), None

  keys = jax.random.split(step_keys[0], len(order))
  return lax.scan(step, state, (order, keys))[0]


def _hits(variables, data, *, model, batch):
  """How many examples are classified right; each counts once."""

  def right(batch):
    indices, counted = batch
    images = normalise(data.images[indices], data.mean, data.std)
    logits, _ = model.apply(variables, images)
    return jnp.sum((jnp.argmax(logits, -1) == data.labels[indices]) & counted)

  return jnp.sum(lax.map(right, eval_batches(len(data.labels), batch)))
