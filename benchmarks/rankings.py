"""Supernets and architectures of a comparison of rankings."""

import dataclasses

import numpy as np

from nao_jax.data import digest
from nao_jax.data.images import ImageData
from nao_jax.evaluators.shared import SharedWeights
from nao_jax.networks.build import Network
from nao_jax.networks.cost import cost
from nao_jax.spaces.space import Space
from nao_jax.tasks import image_spaces
from nao_jax.tasks.image_config import SearchCnnConfig
from nao_jax.training import supernet


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The architectures, the images and the settings of a comparison.

  Attributes:
    config: the settings that all variants share.
    data: the images.
    space: the search space.
    pool: int32 [N, L], the architectures that supernets train on.
    rows: int32 [C, L], the architectures to compare.
  """

  config: SearchCnnConfig
  data: ImageData
  space: Space
  pool: np.ndarray
  rows: np.ndarray

  @property
  def parameters(self) -> list[int]:
    """Parameters of the stand-alone network of each row."""
    own = network(self.config)
    size, _, channels = self.data.image_shape
    return [cost(own, row, size, channels).parameters for row in self.rows]


def part(data: ImageData) -> str:
  """Returns the digest of the examples that train, which a split chooses."""
  return digest.of_arrays(data.classes, *data.train)


def evaluator(
  compared: Comparison, config: SearchCnnConfig, rounds: int
) -> SharedWeights:
  """Returns what trains and scores with shared weights.

  Args:
    compared: the images.
    config: the settings of a variant.
    rounds: number of measurements of a supernet.
  """
  settings = recipe(config)
  alone = settings.pop("network")
  trainer = supernet.Trainer(
    network=image_spaces.supernet(config, alone),
    **settings,
    examples=len(compared.data.train.labels),
  )
  return SharedWeights(
    trainer,
    compared.data,
    rounds,
    sampling=config.sampling,
    each_step=config.architectures_per_step,
    power=config.sampling_power,
    score_images=config.score_images,
    alone=alone,
  )


def network(config: SearchCnnConfig) -> Network:
  """Returns the network of one architecture."""
  layout = image_spaces.layout(config.space, mobile=config.mobile)
  return layout.resized(config.network)


def recipe(config: SearchCnnConfig) -> dict:
  """Returns the settings of a trainer of one architecture by name."""
  own = network(config)
  names = ("train", "sgd", "augment")
  return {name: getattr(config, name) for name in names} | {"network": own}
