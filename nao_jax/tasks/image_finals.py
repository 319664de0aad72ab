"""Settings for training convolutional cells from scratch after a search.

Both trainings use networks/candidate.py, where the cell is data.
"""

import dataclasses

from nao_jax.networks.macro import MOST_CELLS, MOST_CHANNELS, NetworkConfig
from nao_jax.search.config import FinalConfig, FinalistConfig
from nao_jax.settings import Only, field


@dataclasses.dataclass(frozen=True)
class ImageFinalistConfig(FinalistConfig):
  """Settings of a finalist's training; defaults from the official PyTorch code.

  Everything else comes from the search: the optimiser (with one cosine over
  these epochs in any case), the images, and the weight of the auxiliary head.

  Attributes:
    batch: images per step.
    channels: width of the first stage.
    cells_per_stage: normal cells in each of the three stages.
    drop_path_keep: final probability that the last cell keeps a branch.
    dropout: probability of dropping a feature before the classifier.
    auxiliary: add a second classifier, on the output of the second reduction
      cell.
    by_signals: whether cells rank by the mean of their ranks by score and by
      each quick signal of `proxies`: in the choice of the first finalists,
      among finalists, and in what the strategy learns from them. Short
      trainings favour small cells, which numbers of parameters make up for.
  """

  batch: int = field(64, least=1)
  channels: int = field(20, least=2, most=MOST_CHANNELS)
  cells_per_stage: int = field(3, least=1, most=MOST_CELLS)
  drop_path_keep: float = field(0.8, above=0, most=1)
  dropout: float = field(0.4, least=0, below=1)
  auxiliary: bool = True
  by_signals: bool = field(False, added=True)

  def network(self, network: NetworkConfig) -> NetworkConfig:
    """Returns the search's network, resized for the finalists."""
    return dataclasses.replace(
      network,
      channels=self.channels,
      cells_per_stage=self.cells_per_stage,
      auxiliary=self.auxiliary,
      dropout=self.dropout,
    )


@dataclasses.dataclass(frozen=True)
class ImageFinalConfig(FinalConfig):
  """Settings of the final comparison of cells on the test part; ours.

  The best cells are compared with random ones. Everything else comes from the
  search, with one cosine over these epochs.

  Attributes:
    channels: width of the first stage.
    cells_per_stage: normal cells in each of the three stages.
    batch: images per step.
    drop_path_keep: final probability that the last cell keeps a branch.
  """

  ACTS_WITH = (
    *FinalConfig.ACTS_WITH,
    Only(("batch", "drop_path_keep"), "cells"),
  )

  channels: int = field(20, least=2, most=MOST_CHANNELS)
  cells_per_stage: int = field(3, least=1, most=MOST_CELLS)
  batch: int = field(64, least=1)
  drop_path_keep: float = field(1.0, above=0, most=1)

  def network(self, network: NetworkConfig) -> NetworkConfig:
    """Returns the search's network, resized for the final comparison."""
    return dataclasses.replace(
      network,
      channels=self.channels,
      cells_per_stage=self.cells_per_stage,
      auxiliary=False,
    )
