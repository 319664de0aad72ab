"""The task of convolutional cells on images."""

import dataclasses
import functools
import os
from typing import Any

from absl import logging
import numpy as np

from nao_jax import settings
from nao_jax.data import digest
from nao_jax.data.images import ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.errors import UserError
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.shared import SharedWeights, check_each_step
from nao_jax.networks.build import Network
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.objectives import Cost, CostConstraint
from nao_jax.settings import flatten
from nao_jax.strategies.proxies import Proxy
from nao_jax.tasks import image_costs, image_proxies, image_spaces
from nao_jax.tasks.image_cells import ImageCells
from nao_jax.tasks.image_config import SearchCnnConfig
from nao_jax.tasks.image_finals import ImageFinalConfig, ImageFinalistConfig
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.image_training import (
  check_size,
  class_weights,
  fit_to_data,
  open_data,
)
from nao_jax.tasks.task import Stage
from nao_jax.tasks.training import FinalTraining
from nao_jax.training import memory_check
from nao_jax.training.candidate import Trainer as CandidateTrainer
from nao_jax.training.feeds import Feed
from nao_jax.training.supernet import Trainer


@dataclasses.dataclass(frozen=True)
class Images:
  """Convolutional cells that classify images; implements `task.Task`.

  Attributes:
    data_dir: the directory of TFDS data sets.
    latency: the latency for a limit or for `objectives="score,latency"`,
      instead of a table: a function from tokens int32 [N, L] of the space
      (with `space=nao` in pairs, see `cnn.to_cells`) to [N], in the unit of
      the limit.
    own: with `space=own`, cells of one's own, from `edge_config.own_cells`;
      their sizes are those of the settings. Names of operations and the edges
      must stay the same for a run to be resumed and for trials to be shared,
      which is checked; so must their functions, which is not.
    signals: signals of one's own, beside those of the setting `proxies`; of
      those, too, only the names are checked.
  """

  data_dir: str | os.PathLike
  latency: Cost | None = None
  own: EdgeNetworkConfig | None = None
  signals: tuple[Proxy, ...] = ()

  def cells(self, settings: dict[str, Any]) -> ImageCells:
    """Implements `Task.cells`."""
    return ImageCells(settings, self.own)

  def open(self, config: SearchCnnConfig, devices: int | None) -> "OpenImages":
    """Implements `Task.open`."""
    image_spaces.check(config.space, self.own)
    if config.evaluator == "shared":
      check_each_step(
        config.architectures_per_step,
        config.train.batch,
        config.search.pool_size,
        devices,
      )
    image_costs.check(config, self.latency)
    image_proxies.check(config, self.signals)
    data = open_data(config, self.data_dir)
    layout = image_spaces.layout(config.space, self.own, config.mobile)
    config = _fit_to_data(config, data, devices, layout)
    image_spaces.warn_of_idle(config)
    if config.standardize:
      data = dataclasses.replace(data, mean=None, std=None)
    own = self.latency, self.own, tuple(self.signals)
    return OpenImages(config, data, devices, *own)

  def open_training(
    self, config: TrainCnnConfig, devices: int | None
  ) -> tuple[FinalTraining, Feed]:
    """Implements `Task.open_training`."""
    data = open_data(config, self.data_dir)
    training = fit_to_data(config, data)
    training.trainer.check(devices)
    memory_check.check_network(
      training.trainer,
      training.image_shape,
      held=training.examples if config.input == "memory" else 0,
      devices=devices,
    )
    return training, training.feed(data, devices)


@dataclasses.dataclass(frozen=True)
class OpenImages:
  """Images and the settings of a search on them; implements `task.OpenTask`.

  Attributes:
    config: the settings, with the number of classes.
    data: the images, in memory or streamed.
    devices: number of devices of each process to use; all by default.

  The others are those of `Images`.
  """

  config: SearchCnnConfig
  data: ImageData | ImageStream
  devices: int | None = None
  latency: Cost | None = None
  own: EdgeNetworkConfig | None = None
  signals: tuple[Proxy, ...] = ()

  @property
  def identity(self) -> dict[str, Any]:
    """Implements `OpenTask.identity`."""
    config = self.config
    found = {f"data.{k}": v for k, v in flatten(self.data.digest).items()}
    if table := config.constraint.latency_table:
      read = image_costs.read_table(table, config.network.ops)
      found["latency_table"] = digest.of_arrays(0, *map(np.asarray, read))
    if self.signals:
      found["signals"] = [signal.name for signal in self.signals]
    return found | image_spaces.described(self.own)

  @property
  def outcome(self) -> dict[str, Any]:
    """Implements `OpenTask.outcome`: the shape of an image."""
    return {"image": list(self.data.image_shape)}

  @functools.cached_property
  def _layout(self) -> Network:
    return image_spaces.layout(self.config.space, self.own, self.config.mobile)

  @functools.cached_property
  def constraint(self) -> CostConstraint | None:
    """Implements `OpenTask.constraint`."""
    return image_costs.constraint(
      self.config, self.data.image_shape, self.latency, self._layout
    )

  def proxies(self) -> tuple[Proxy, ...]:
    """Implements `OpenTask.proxies`."""
    config = self.config
    return self._signals(image_proxies.parse(config.proxies, config.space))

  def ranking(self) -> tuple[Proxy, ...]:
    """Implements `OpenTask.ranking`."""
    config = self.config
    if not (config.finalists and config.finalist.by_signals):
      return ()
    # Slow signals are not even made, as that reads images.
    found = self._signals(image_proxies.quick(config.proxies, config.space))
    return tuple(signal for signal in found if signal.quick)

  def _signals(self, names: list[str]) -> tuple[Proxy, ...]:
    """Makes the named signals, and adds the caller's."""
    network = self._layout.resized(self.config.network)
    found = image_proxies.proxies(names, network, self.data, self.config.seed)
    return *found, *self.signals

  def check_memory(self) -> None:
    """Implements `OpenTask.check_memory`."""
    config, data = self.config, self.data
    check = functools.partial(
      memory_check.check_search,
      image_shape=data.image_shape,
      held=data.validation_examples if config.input == "stream" else None,
      devices=self.devices,
    )
    trainer = _trainer(config, data, self._layout)
    if config.evaluator == "scratch":
      trainer = CandidateTrainer(**vars(trainer))
    check(trainer, each=config.architectures_per_step)
    for name, count in (
      ("finalist", config.finalists),
      ("final", config.final.cells),
    ):
      if count:
        budget = getattr(config, name)
        check(final_trainer(config, data, budget, self._layout), stage=name)

  def shared(self) -> SharedWeights:
    """Implements `OpenTask.shared`."""
    config = self.config
    trainer = _trainer(config, self.data, self._layout)
    network = image_spaces.supernet(config, trainer.network)
    return SharedWeights(
      dataclasses.replace(trainer, network=network),
      self.data,
      config.search.rounds + 1,
      self.devices,
      config.sampling,
      config.train_only_new,
      config.architectures_per_step,
      config.sampling_power,
      config.score_images,
      trainer.network,
    )

  def candidates(self) -> tuple[ImageCandidates, dict[str, Any]]:
    """Implements `OpenTask.candidates`."""
    config, data = self.config, self.data
    trainer = CandidateTrainer(**vars(_trainer(config, data, self._layout)))
    candidates = ImageCandidates(trainer, data, config.seed, self.devices)
    return candidates, _protocol(config, data) | image_spaces.described(
      self.own
    )

  def retrained(self, stage: Stage) -> tuple[ImageCandidates, dict[str, Any]]:
    """Implements `OpenTask.retrained`."""
    data, budget = self.data, stage.budget
    trainer = final_trainer(self.config, data, budget, self._layout)
    config = dataclasses.replace(
      self.config,
      seed=stage.seed,
      network=budget.network(self.config.network),
      train=trainer.train,
      sgd=trainer.sgd,
      prune=False,
    )
    measured = {"part": stage.part, "last_only": stage.last_only}
    measured |= image_spaces.described(self.own)
    if stage.part == "test":
      measured["test"] = data.digest.test
    candidates = ImageCandidates(
      trainer, data, stage.seed, self.devices, stage.part, stage.last_only
    )
    return candidates, _protocol(config, data) | measured


def _fit_to_data(
  config: SearchCnnConfig,
  data: ImageData | ImageStream,
  devices: int | None,
  layout: Network,
) -> SearchCnnConfig:
  """Returns the settings with the data's number of classes, checked."""
  network = dataclasses.replace(config.network, classes=data.classes)
  config = dataclasses.replace(config, network=network)
  if not data.validation_examples:
    raise UserError(
      f"`validation_fraction={config.validation_fraction}`: no image is left "
      "to score with; give more"
    )
  check_size(config, layout.resized(network), data.image_shape)
  # A candidate trains on one device, the supernet on all of them.
  on = 1 if config.evaluator == "scratch" else devices
  _trainer(config, data, layout).check(on)
  config = _with_small_batches(config, data.train_examples)
  asked = {"final": config.final.cells, "finalist": config.finalists}
  for name in (name for name, cells in asked.items() if cells):
    budget = getattr(config, name)
    with settings.within("network", network), settings.within(name, budget):
      layout.resized(budget.network(network)).check(data.image_shape[0])
    final_trainer(config, data, budget, layout).check(1, f"{name}.batch")
  return config


def _with_small_batches(
  config: SearchCnnConfig, examples: int
) -> SearchCnnConfig:
  """Reduces the finalists' batch to all images if there are fewer.

  Every preset has finalists, also when a user tries it on a few images.
  """
  batch = config.finalist.batch
  if not config.finalists or batch <= examples:
    return config
  logging.warning(
    "`finalist.batch=%d`: batches are of %d, all training images",
    batch,
    examples,
  )
  finalist = dataclasses.replace(config.finalist, batch=examples)
  return dataclasses.replace(config, finalist=finalist)


def _trainer(
  config: SearchCnnConfig, data: ImageData | ImageStream, layout: Network
) -> Trainer:
  return Trainer(
    network=layout.resized(config.network),
    train=config.train,
    sgd=config.sgd,
    augment=config.augment,
    examples=data.train_examples,
    class_weights=class_weights(config.train, data),
    bfloat16=config.bfloat16,
  )


def _protocol(
  config: SearchCnnConfig, data: ImageData | ImageStream
) -> dict[str, Any]:
  """Returns the settings that determine a candidate's score, but for tokens."""
  names = ("validation_fraction", "seed", "prune", "standardize")
  parts = ("network", "train", "sgd", "augment")
  streamed = {}
  if config.input == "stream":
    # No image depends on the number of workers.
    streamed = {"stream": flatten(config.stream)}
    del streamed["stream"]["workers"]
  return (
    {name: getattr(config, name) for name in names}
    | {name: flatten(getattr(config, name)) for name in parts}
    # Trials of before had one space.
    | ({} if config.space == "nao" else {"space": config.space})
    | ({"mobile": flatten(config.mobile)} if config.space == "mobile" else {})
    | ({"bfloat16": True} if config.bfloat16 else {})
    # The digest identifies the data set; its name may be given to other data
    # later.
    | {"data": data.digest.train}
    | streamed
  )


def final_trainer(
  config: SearchCnnConfig,
  data: ImageData | ImageStream,
  budget: ImageFinalConfig | ImageFinalistConfig,
  layout: Network = image_spaces.NAO,
) -> CandidateTrainer:
  """Returns the settings of trainings after the search.

  Args:
    config: the settings of the search.
    data: the data, of which only the sizes of the classes matter.
    budget: the settings that only these trainings have.
    layout: a network of the space, see `image_spaces.layout`.
  """
  changed = {
    "network": layout.resized(budget.network(config.network)),
    "train": dataclasses.replace(
      config.train,
      epochs=budget.epochs,
      batch=budget.batch,
      drop_path_keep=budget.drop_path_keep,
    ),
    "sgd": dataclasses.replace(config.sgd, schedule="cosine"),
  }
  return CandidateTrainer(**vars(_trainer(config, data, layout)) | changed)
