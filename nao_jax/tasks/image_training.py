"""The training of one network, from settings to its test error."""

import dataclasses
import functools
import os
import time

from absl import logging
import jax
import numpy as np

from nao_jax import parallel, settings
from nao_jax.data import images, stream
from nao_jax.data.digest import Digest
from nao_jax.distributed.processes import Team, leading
from nao_jax.distributed.training import FeedHelper, TeamFeed
from nao_jax.errors import UserError
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs import checkpoint, streams
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.workdir import Workdir, flatten
from nao_jax.spaces import cnn
from nao_jax.tasks.image_presets import SearchCnnConfig
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.training import memory_check
from nao_jax.training.feeds import InMemory, Streamed
from nao_jax.training.stand_alone import Trainer, TrainState


@dataclasses.dataclass(frozen=True)
class Training:
  """A network and its training: all that determines the result.

  Attributes:
    config: the settings; `arch` in the published notation, and the network's op
      set, nodes and classes as the architecture and the data give them.
    image_shape: (H, W, C).
    examples: number of training images.
    mean: mean of each channel over the training images; full intensity is 1.
    std: the same for the standard deviation.
    data: digest of the data set, which tells it from others of the same name.
  """

  config: TrainCnnConfig
  image_shape: tuple[int, ...]
  examples: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  data: Digest = Digest()

  @functools.cached_property
  def tokens(self) -> tuple[int, ...]:
    """The architecture."""
    network = self.config.network
    found = cnn.resolve(self.config.arch, ops=network.ops, nodes=network.nodes)
    return tuple(found.tokens.tolist())

  @functools.cached_property
  def trainer(self) -> Trainer:
    """The settings of the pure training functions."""
    config = self.config
    return Trainer(
      network=config.network,
      train=config.train,
      sgd=config.sgd,
      augment=config.augment,
      examples=self.examples,
      tokens=self.tokens,
      accumulate=config.accumulate,
      bfloat16=config.bfloat16,
    )

  @property
  def normaliser(self) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The mean and std that normalise images, or None and None."""
    if self.config.standardize:
      return None, None
    return np.float32(self.mean), np.float32(self.std)

  def pack(self, state: TrainState) -> tuple[TrainState, np.ndarray]:
    """Returns the content of a checkpoint: the state and its architecture."""
    return state, np.int32(self.tokens)

  def restore(self, directory: str | os.PathLike) -> TrainState | None:
    """Restores the newest state in a directory of checkpoints, if there is one.

    Raises:
      UserError: the state is of another architecture.
    """
    template = self.pack(self.init())
    found = checkpoint.restore(directory, template, exact=True)
    if found is None:
      return None
    state, tokens = found
    if tuple(tokens.tolist()) != self.tokens:
      raise UserError(
        f"{directory}: holds another architecture, "
        f"{' '.join(map(str, tokens))}; this is {self.config.arch}"
      )
    return state

  def init(self) -> TrainState:
    """Returns the state before the first step."""
    return self.trainer.init(self.keys()[0], self.image_shape)

  def feed(
    self,
    data: images.ImageData | stream.ImageStream,
    devices: int | None = None,
  ) -> InMemory | Streamed:
    """Returns the source of this training's examples."""
    if self.config.input == "stream":
      seed = self.config.seed
      return Streamed(self.trainer, data, seed, *self.normaliser, devices)
    return InMemory(self.trainer, data, *self.normaliser, devices)

  def keys(self) -> jax.Array:
    """Returns two keys: of the initial state, and of the training."""
    return jax.random.split(jax.random.key(self.config.seed))


@in_32_bits
def run(
  config: TrainCnnConfig,
  *,
  workdir: str | os.PathLike,
  data_dir: str | os.PathLike,
  devices: int | None = None,
  checkpoints: CheckpointConfig = DEFAULT,
  plain: bool = False,
  team: Team | None = None,
) -> dict | None:
  """Trains one network and measures it once on the test part.

  Args:
    config: all settings.
    workdir: the workdir of the run; a stopped run is resumed, a finished run is
      reported.
    data_dir: the directory of TFDS data sets.
    devices: number of devices of each process to use; all by default.
    checkpoints: when the state is saved.
    plain: whether to show progress as plain lines on a terminal, too.
    team: the processes that train together; only the first one needs a workdir.

  Returns:
    The content of result.json; None in a helper process.

  Raises:
    UserError: a setting, the data or the workdir does not allow the training,
      which is raised before anything long runs; or the training diverged.
    Stopped: a signal stopped the run; the same call resumes it.
  """
  check(config, devices)
  data = open_data(config, data_dir)
  training = fit_to_data(config, data)
  training.trainer.check(devices)
  memory_check.check_network(
    training.trainer,
    training.image_shape,
    held=training.examples if config.input == "memory" else 0,
    devices=devices,
  )
  feed = training.feed(data, devices)
  if team is not None:
    team.compare({"the data": flatten(data.digest)})
    if not team.first:
      return team.help(FeedHelper(feed, team, training.init()).handlers)
    feed = TeamFeed(feed, team)
  with (
    leading(team),
    Workdir(
      workdir, flatten(training), "result.json", checkpoints, plain=plain
    ) as journal,
  ):
    if result := journal.finished(*_SHOWN):
      logging.info("%s holds this training, finished; nothing to do", workdir)
    else:
      state = _train(training, feed, journal)
      result = _result(training, feed.measure(state, "test"))
      journal.finish(result)
    _show(result, journal)
  return result


def check(config: TrainCnnConfig, devices: int | None = None) -> None:
  """Raises UserError for settings that are invalid whatever the data."""
  settings.validate(config)
  parallel.check(devices)


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
    config.network, ops=found.ops, nodes=found.nodes, classes=data.classes
  )
  check_size(config, network, data.image_shape)
  return Training(
    config=dataclasses.replace(
      config, arch=cnn.to_text(found.tokens), network=network
    ),
    image_shape=tuple(data.image_shape),
    examples=data.train_examples,
    mean=tuple(data.mean.tolist()),
    std=tuple(data.std.tolist()),
    data=data.digest,
  )


def check_size(
  config: TrainCnnConfig | SearchCnnConfig,
  network: NetworkConfig,
  shape: tuple[int, ...],
) -> None:
  """Checks that a network can be built for the images of a data set.

  Args:
    config: the settings that the data come from.
    network: the sizes.
    shape: (H, W, C) of the images.

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
    raise UserError(
      f"{source}, `network.stem={network.stem}`: {error}"
    ) from error


def _train(
  training: Training, feed: InMemory | Streamed | TeamFeed, journal: Workdir
) -> TrainState:
  """Trains from the last checkpoint to the end."""
  journal.check_space(training.pack(training.init()))
  state = training.restore(journal.checkpoints)
  first = 0 if state is None else int(state.step)
  if state is None:
    state = training.init()
  else:
    logging.info("resuming after step %d", first)
  journal.rewind("epoch", first // training.trainer.steps_per_epoch)
  log = _Log(training, feed, journal, first)
  calls = feed.train(state, training.keys()[1], first)
  for state, losses in calls:
    log.add(state, losses)
    last = log.step == training.trainer.steps
    journal.keep(training.pack(state), len(losses), last=last)
    log.show()
  return state


class _Log:
  """Progress of a training for the user; stops a training that diverged.

  Attributes:
    step: number of steps done so far.
  """

  def __init__(self, training, feed, journal: Workdir, step: int):
    self.step = step
    self._training, self._feed, self._journal = training, feed, journal
    self._losses, self._times = [], []
    journal.progress.best = journal.lowest("validation_error")

  def add(self, state: TrainState, losses: np.ndarray) -> None:
    """Counts the steps and losses of one call."""
    trainer = self._training.trainer
    self.step += len(losses)
    self._losses += losses.tolist()
    self._times.append((time.monotonic(), self.step))
    if not np.isfinite(losses).all():
      raise UserError(
        f"the training diverged at step {self.step} (loss {losses[-1]}); "
        "give a smaller `sgd.learning_rate` and another `workdir`"
      )
    epoch, into = divmod(self.step, trainer.steps_per_epoch)
    if into == 0:
      self._report(state, epoch - 1)

  def show(self) -> None:
    """Shows the progress so far."""
    steps = self._training.trainer.steps
    each = WorkUnit(self._training.config.train.batch, "images")
    self._journal.progress("training steps", self.step, steps, each=each)

  def _report(self, state, epoch: int) -> None:
    config = self._training.config
    report = {
      "epoch": epoch,
      # If the epoch was resumed after a stop, only the steps since then.
      "steps": len(self._losses),
      "loss": float(np.mean(self._losses)),
      "learning_rate": float(config.sgd.by_epoch(config.train.epochs)(epoch)),
    }
    (start, first), (end, last) = self._times[0], self._times[-1]
    if last > first:
      rate = (last - first) * config.train.batch / (end - start)
      report["images_per_second"] = round(rate, 1)
    if config.validation_fraction:
      measured = self._feed.measure(state, "validation")
      report["validation_error"] = measured["error"]
    self._journal.report("epoch", report)
    self._journal.progress.best = self._journal.lowest("validation_error")
    logging.info(
      "epoch %d: %s",
      epoch,
      ", ".join(f"{k} {v:.4g}" for k, v in report.items() if k != "epoch"),
    )
    self._losses, self._times = [], self._times[-1:]


def _result(training: Training, test: dict) -> dict:
  network = training.config.network
  found = cnn.Architecture(
    network.ops, network.nodes, np.int32(training.tokens)
  )
  return {
    "space": found.space.name,
    "tokens": list(training.tokens),
    "text": training.config.arch,
    "parameters": cost(
      network, found.tokens, training.image_shape[0], training.image_shape[2]
    ).parameters,
    "steps": training.trainer.steps,
    "test": test,
  }


# The keys of a result that `_show` needs.
_SHOWN = (
  *("parameters", "steps"),
  *("test.error", "test.top_5_error", "test.loss", "test.examples"),
)


def _show(result: dict, journal: Workdir) -> None:
  test = result["test"]
  console = streams.console()
  console.print(
    f"{result['parameters']:,} parameters, {result['steps']} steps",
    highlight=False,
  )
  console.print(
    f"test error {100 * test['error']:.2f} %, top 5"
    f" {100 * test['top_5_error']:.2f} %, loss {test['loss']:.4f}, on"
    f" {test['examples']} images; in {journal.path / 'result.json'}",
    highlight=False,
    markup=False,
    soft_wrap=True,
  )
