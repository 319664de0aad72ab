"""Training one architecture from scratch, several times at once.

Shapes: R repeats (each with its own initial weights and order of examples), B
images a step.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.data.augment import AugmentConfig, epoch_indices, eval_batches
from nao_jax.data.images import ImageData
from nao_jax.errors import UserError
from nao_jax.networks.macro import MOST_CELLS, MOST_CHANNELS, NetworkConfig
from nao_jax.runs import pace
from nao_jax.settings import Only, field
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Images, TrainConfig, padded
from nao_jax.training.stand_alone import Trainer, measure_batches, train_steps

# How much work one call to the device holds at most.
STEPS_A_CALL = 25


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

  ACTS_WITH = (
    Only(
      ("repeats", "epochs", "batch", "drop_path_keep", "specialise"), "cells"
    ),
  )

  cells: int = field(3, least=0)
  repeats: int = field(3, least=1)
  epochs: int = field(10, least=1)
  channels: int = field(20, least=2, most=MOST_CHANNELS)
  cells_per_stage: int = field(3, least=1, most=MOST_CELLS)
  batch: int = field(64, least=1)
  drop_path_keep: float = field(1.0, above=0, most=1)
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
        f"`batch={self.batch}`: allowed: 1 to {examples}, the training images"
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

  def test_accuracies(
    self,
    key: jax.Array,
    tokens: np.ndarray,
    known: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> Iterator[float]:
    """Trains one architecture R times, then looks at the test part once.

    Args:
      key: consumed; the same key gives all architectures the same order of
        examples.
      tokens: int32 [L].
      known: accuracies that are there already, the first ones.
      progress: told the steps done and all of them, about once a second.

    Yields:
      Accuracies in [0, 1]; R with those that are known. They are measured at
      the same time, as the trainings go side by side in one program.
    """
    if known >= self.config.repeats:
      return
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
    for done, trained in _train(state, keys, train, trainer):
      state = trained
      progress(done, trainer.steps)
    batches = eval_batches(len(test.labels), self.config.batch)
    measured = jax.jit(
      jax.vmap(
        functools.partial(measure_batches, trainer=trainer),
        in_axes=(0, None, None, None),
      )
    )(state, test, *batches)
    accuracies = np.float32(measured.right / measured.examples)
    yield from accuracies[known:].tolist()

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


def _train(state, keys, data, trainer: Trainer) -> Iterator[tuple[int, Any]]:
  """The steps done and the state [R, ...] after each call to the device."""
  order_keys, step_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
  steps = jax.jit(
    jax.vmap(
      functools.partial(train_steps, trainer=trainer),
      in_axes=(0, 0, None, 0, None),
    )
  )
  for epoch in range(trainer.train.epochs):
    # [steps, R, B]
    order = np.stack([_order(key, epoch, trainer) for key in order_keys], 1)
    for start, end in pace.calls(0, len(order), STEPS_A_CALL):
      rows = padded(order[start:end], STEPS_A_CALL).swapaxes(0, 1)
      state, _ = steps(state, step_keys, data, rows, np.int32(end - start))
      jax.block_until_ready(state)
      yield epoch * len(order) + end, state


def _order(key, epoch: int, trainer: Trainer) -> np.ndarray:
  """An epoch's examples, [steps, B]."""
  key = jax.random.fold_in(key, epoch)
  return np.asarray(epoch_indices(key, trainer.examples, trainer.train.batch))
