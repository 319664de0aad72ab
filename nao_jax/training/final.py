"""How convolutional cells train from scratch after a search: settings.

Both trainings are those of networks/candidate.py, in which the cell is data.
"""

import dataclasses

from nao_jax.networks.macro import MOST_CELLS, MOST_CHANNELS, NetworkConfig
from nao_jax.settings import Only, field
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig


@dataclasses.dataclass(frozen=True)
class FinalistConfig:
  """How a finalist trains; the defaults are the official code's (PyTorch).

  All else is the search's: the optimiser, with one cosine over these epochs
  whatever its schedule, the images, and the weight of the auxiliary head.

  Attributes:
    epochs: over the training images.
    batch: images a step.
    channels: width of the first stage.
    cells_per_stage: normal cells in each of the three stages.
    drop_path_keep: final probability that the last cell keeps a branch.
    dropout: probability of dropping a feature before the classifier.
    auxiliary: give the second reduction cell's output a classifier of its own.
  """

  epochs: int = field(10, least=1)
  batch: int = field(64, least=1)
  channels: int = field(20, least=2, most=MOST_CHANNELS)
  cells_per_stage: int = field(3, least=1, most=MOST_CELLS)
  drop_path_keep: float = field(0.8, above=0, most=1)
  dropout: float = field(0.4, least=0, below=1)
  auxiliary: bool = True

  def network(self, network: NetworkConfig) -> NetworkConfig:
    """The search's network at the sizes of these trainings."""
    return dataclasses.replace(
      network,
      channels=self.channels,
      cells_per_stage=self.cells_per_stage,
      auxiliary=self.auxiliary,
      dropout=self.dropout,
    )


@dataclasses.dataclass(frozen=True)
class FinalConfig:
  """How the best cells and random ones are compared on the test part; ours.

  All else is the search's, with one cosine over these epochs.

  Attributes:
    cells: how many of the best, and how many random ones; 0 for none.
    repeats: trainings of each with other random numbers.
    epochs: over the training images.
    channels: width of the first stage.
    cells_per_stage: normal cells in each of the three stages.
    batch: images a step.
    drop_path_keep: final probability that the last cell keeps a branch.
  """

  ACTS_WITH = (Only(("repeats", "epochs", "batch", "drop_path_keep"), "cells"),)

  cells: int = field(3, least=0)
  repeats: int = field(3, least=1)
  epochs: int = field(10, least=1)
  channels: int = field(20, least=2, most=MOST_CHANNELS)
  cells_per_stage: int = field(3, least=1, most=MOST_CELLS)
  batch: int = field(64, least=1)
  drop_path_keep: float = field(1.0, above=0, most=1)

  def network(self, network: NetworkConfig) -> NetworkConfig:
    """The search's network at the sizes of these trainings."""
    return dataclasses.replace(
      network,
      channels=self.channels,
      cells_per_stage=self.cells_per_stage,
      auxiliary=False,
    )


def train(
  config: FinalistConfig | FinalConfig, search: TrainConfig
) -> TrainConfig:
  """How the network trains; what these settings leave open is the search's."""
  return dataclasses.replace(
    search,
    epochs=config.epochs,
    batch=config.batch,
    drop_path_keep=config.drop_path_keep,
  )


def one_cosine(search: SgdConfig) -> SgdConfig:
  """The optimiser of a search, with one cosine over all epochs."""
  return dataclasses.replace(search, schedule="cosine")
