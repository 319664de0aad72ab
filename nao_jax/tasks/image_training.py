"""The final training of a convolutional network."""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from nao_jax import settings
from nao_jax.data import images, labels, stream
from nao_jax.data.digest import Digest
from nao_jax.errors import UserError
from nao_jax.networks.build import Network
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs.progress import WorkUnit
from nao_jax.settings import flatten
from nao_jax.spaces import cnn
from nao_jax.tasks import image_spaces
from nao_jax.tasks.image_config import SearchCnnConfig
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.training import keys
from nao_jax.training.feeds import Call, Feed, InMemory, Streamed
from nao_jax.training.recipe import TrainConfig
from nao_jax.training.stand_alone import Trainer, TrainState


@dataclasses.dataclass(frozen=True)
class Training:
  """A network and its training; implements `training.FinalTraining`.

  Attributes:
    config: the settings; `arch` in the published notation, and the network's op
      set, nodes and classes as the architecture and the data give them.
    image_shape: (H, W, C).
    examples: number of training images.
    mean: mean of each channel over the training images; full intensity is 1.
    std: the same for the standard deviation.
    data: digest of the data set, which tells it from others of the same name.
    class_weights: see `Recipe`.
  """

  config: TrainCnnConfig
  image_shape: tuple[int, ...]
  examples: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  data: Digest = Digest()
  class_weights: tuple[float, ...] = settings.field((), added=True)

  metric = "validation_error"
  numbers = (
    *("parameters", "steps"),
    *("test.error", "test.top_5_error", "test.loss", "test.examples"),
  )
  phase = "training steps"

  @functools.cached_property
  def tokens(self) -> tuple[int, ...]:
    """The architecture."""
    return tuple(self.network.space.parse(self.config.arch).tolist())

  @functools.cached_property
  def network(self) -> Network:
    """The network's description."""
    config = self.config
    layout = image_spaces.layout(config.space, mobile=config.mobile)
    return layout.resized(config.network)

  @functools.cached_property
  def trainer(self) -> Trainer:
    """The settings of the pure training functions."""
    config = self.config
    return Trainer(
      network=self.network,
      train=config.train,
      sgd=config.sgd,
      augment=config.augment,
      examples=self.examples,
      tokens=self.tokens,
      accumulate=config.accumulate,
      bfloat16=config.bfloat16,
      class_weights=self.class_weights,
    )

  @property
  def identity(self) -> dict[str, Any]:
    """Implements `FinalTraining.identity`."""
    return {"the data": flatten(self.data)}

  @property
  def each(self) -> WorkUnit:
    """Implements `FinalTraining.each`."""
    return WorkUnit(self.config.train.batch, "images")

  @property
  def total(self) -> int:
    """Implements `FinalTraining.total`."""
    return self.trainer.steps

  @property
  def normaliser(self) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The mean and std that normalise images, or None and None."""
    if self.config.standardize:
      return None, None
    return np.float32(self.mean), np.float32(self.std)

  def init(self) -> TrainState:
    """Implements `FinalTraining.init`."""
    return self.trainer.init(keys(self.config.seed)[0], self.image_shape)

  def feed(
    self,
    data: images.ImageData | stream.ImageStream,
    devices: int | None = None,
  ) -> InMemory | Streamed:
    """Returns the source of this training's examples."""
    mean, std = self.normaliser
    data = dataclasses.replace(data, mean=mean, std=std)
    if self.config.input == "stream":
      return Streamed(self.trainer, data, self.config.seed, devices)
    return InMemory(self.trainer, data, devices)

  def done(self, state: TrainState) -> int:
    """Implements `FinalTraining.done`."""
    return int(state.step)

  def epochs_done(self, state: TrainState) -> int:
    """Implements `FinalTraining.epochs_done`."""
    return int(state.step) // self.trainer.steps_per_epoch

  def end_epoch(self, state: TrainState, feed: Feed) -> tuple[TrainState, dict]:
    """Implements `FinalTraining.end_epoch`; the state stays as it is."""
    config = self.config
    rate = config.sgd.by_epoch(config.train.epochs)(self.epochs_done(state) - 1)
    report = {"learning_rate": float(rate)}
    if config.validation_fraction:
      measured = feed.measure(state, "validation")
      report["validation_error"] = measured["error"]
    return state, report

  def recover(self, call: Call) -> TrainState:
    """Raises UserError: a training that diverged does not go on."""
    raise UserError(
      f"the training diverged at step {int(call.state.step)} (loss "
      f"{call.losses[-1]}); give a smaller `sgd.learning_rate` and another "
      "`workdir`"
    )

  def result(self, state: TrainState, feed: Feed) -> dict:
    """Implements `FinalTraining.result`."""
    network, tokens = self.network, np.int32(self.tokens)
    height, _, channels = self.image_shape
    return {
      "space": network.space.name,
      "tokens": list(self.tokens),
      "text": self.config.arch,
      "parameters": cost(network, tokens, height, channels).parameters,
      "steps": self.trainer.steps,
      "test": feed.measure(state, "test"),
    }

  def lines(self, result: dict) -> tuple[str, ...]:
    """Implements `FinalTraining.lines`."""
    test = result["test"]
    return (
      f"{result['parameters']:,} parameters, {result['steps']} steps",
      f"test error {100 * test['error']:.2f} %, top 5 "
      f"{100 * test['top_5_error']:.2f} %, loss {test['loss']:.4f}, on "
      f"{test['examples']} images",
    )


def open_data(
  config: TrainCnnConfig | SearchCnnConfig, data_dir: str | os.PathLike
) -> images.ImageData | stream.ImageStream:
  """Opens the data set of a training or a search, in memory or streamed."""
  if config.input == "stream":
    return stream.open_stream(
      config.dataset,
      data_dir=data_dir,
      config=config.stream,
      validation_fraction=config.validation_fraction,
      seed=config.seed,
      test_split=config.test_split,
    )
  return images.load(
    config.dataset,
    data_dir=data_dir,
    validation_fraction=config.validation_fraction,
    seed=config.seed,
    test_split=config.test_split,
  )


def fit_to_data(
  config: TrainCnnConfig, data: images.ImageData | stream.ImageStream
) -> Training:
  """Returns the settings completed from architecture and data, checked."""
  image_spaces.warn_of_idle(config)
  config = with_architecture(config)
  network = dataclasses.replace(config.network, classes=data.classes)
  training = Training(
    config=dataclasses.replace(config, network=network),
    image_shape=tuple(data.image_shape),
    examples=data.train_examples,
    mean=tuple(data.mean.tolist()),
    std=tuple(data.std.tolist()),
    data=data.digest,
    class_weights=class_weights(config.train, data),
  )
  check_size(config, training.network, data.image_shape)
  return training


def class_weights(
  config: TrainConfig, data: images.ImageData | stream.ImageStream
) -> tuple[float, ...]:
  """Returns the weights of classes in the loss, or () if all count alike."""
  if not config.class_balance:
    return ()
  return labels.class_weights(data.class_counts, config.class_balance)


def with_architecture(config: TrainCnnConfig) -> TrainCnnConfig:
  """Returns the settings with the architecture's text, op set and nodes."""
  if config.space != "nao":
    space = image_spaces.layout(config.space, mobile=config.mobile).space
    return dataclasses.replace(
      config, arch=space.text(space.parse(config.arch))
    )
  found = cnn.resolve(
    config.arch, ops=config.network.ops, nodes=config.network.nodes
  )
  for name in ("ops", "nodes"):
    given, own = getattr(config.network, name), getattr(found, name)
    if given not in (own, getattr(NetworkConfig, name)):
      raise UserError(
        f"`network.{name}={given}`: `arch={config.arch}` says {own}; leave it "
        "out"
      )
  network = dataclasses.replace(
    config.network, ops=found.ops, nodes=found.nodes
  )
  return dataclasses.replace(
    config, arch=cnn.to_text(found.tokens), network=network
  )


def check_size(
  config: TrainCnnConfig | SearchCnnConfig,
  network: Network,
  shape: tuple[int, ...],
) -> None:
  """Checks that a network can be built for the images of a data set.

  Raises:
    UserError: the images are not square, or of a size that does not fit.
  """
  height, width, _ = shape
  source = f"`dataset={config.dataset}` ({'x'.join(map(str, shape))})"
  if config.input == "stream":
    source = f"`stream.size={height}`"
  if height != width:
    raise UserError(
      f"{source}: allowed: square images; prepare them from a folder with "
      "experiments.prepare_images and a `size`, or give `input=stream`"
    )
  try:
    with settings.within("network", network):
      network.check(height)
  except UserError as error:
    place = source
    if isinstance(network, NetworkConfig):
      place = f"{source}, `network.stem={network.stem}`"
    raise UserError(f"{place}: {error}") from error
