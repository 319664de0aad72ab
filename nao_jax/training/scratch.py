"""Training one architecture from scratch, several times at once.

Shapes: R repeats (each with its own initial weights and order of examples), B
images a step.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.data.augment import AugmentConfig, epoch_indices, eval_batches
from nao_jax.data.images import ImageData
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Images, TrainConfig
from nao_jax.training.stand_alone import Trainer, measure_batches, train_steps


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
    trainer = self._trainer(tokens)
    train, test = (
      Images(*part, self.data.mean, self.data.std)
      for part in (self.data.train, self.data.test)
    )
    keys, first_keys = jax.random.split(key, (2, self.config.repeats))
    shape = train.images.shape[1:]
    state = jax.tree.map(
      lambda *values: jnp.stack(values),
      *(trainer.init(key, shape) for key in first_keys),
    )
    epoch = jax.jit(
      jax.vmap(
        functools.partial(_epoch, trainer=trainer), in_axes=(0, 0, None, None)
      )
    )
    for number in range(self.config.epochs):
      state, _ = epoch(state, keys, train, jnp.asarray(number))
      jax.block_until_ready(state)
      progress(number + 1, self.config.epochs)
    batches = eval_batches(len(test.labels), self.config.batch)
    measured = jax.jit(
      jax.vmap(
        functools.partial(measure_batches, trainer=trainer),
        in_axes=(0, None, None, None),
      )
    )(state, test, *batches)
    return np.float32(measured.right / measured.examples)

  def _trainer(self, tokens) -> Trainer:
    config = self.config
    return Trainer(
      network=config.network(self.network),
      train=TrainConfig(
        epochs=config.epochs,
        batch=config.batch,
        drop_path_keep=config.drop_path_keep,
      ),
      sgd=self.sgd,
      augment=self.augment,
      examples=len(self.data.train.labels),
      tokens=tuple(int(token) for token in tokens),
    )


def _epoch(state, key, data, number, *, trainer):
  """One pass over the training images."""
  order_key, step_key = jax.random.split(key)
  order = epoch_indices(
    jax.random.fold_in(order_key, number), trainer.examples, trainer.train.batch
  )
  return train_steps(state, step_key, data, order, trainer=trainer)
