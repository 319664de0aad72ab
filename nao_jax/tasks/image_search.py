"""A complete search for a convolutional cell, from settings to a winner."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools

from absl import logging
import jax
import numpy as np

from nao_jax import parallel, settings
from nao_jax.data import digest
from nao_jax.data.images import ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.distributed.evaluator import EvaluatorHelper, TeamEvaluator
from nao_jax.distributed.processes import Team, leading
from nao_jax.drawing import convolutional
from nao_jax.errors import UserError
from nao_jax.evaluators import executors
from nao_jax.evaluators.executors import LOCAL, ExecutorConfig
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.evaluators.shared import (
  SharedWeights,
  check_each_step,
)
from nao_jax.metrics import ACCURACY
from nao_jax.objectives import Cost
from nao_jax.pool import Pool
from nao_jax.report import search_page
from nao_jax.runs import streams
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.trials import Trials
from nao_jax.runs.workdir import flatten
from nao_jax.search import finals, loop, rules
from nao_jax.search.journal import SearchJournal
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.strategies.choice import strategy
from nao_jax.tasks import image_costs
from nao_jax.tasks.image_presets import SearchCnnConfig
from nao_jax.tasks.image_training import check_size, open_data
from nao_jax.training import final as final_training
from nao_jax.training import memory_check
from nao_jax.training.candidate import Trainer as CandidateTrainer
from nao_jax.training.final import FinalConfig, FinalistConfig
from nao_jax.training.supernet import Trainer


@in_32_bits
def run(
  config: SearchCnnConfig,
  *,
  workdir: str,
  data_dir: str,
  architectures: Sequence[str] = (),
  trials: str | None = None,
  devices: int | None = None,
  checkpoints: CheckpointConfig = DEFAULT,
  plain: bool = False,
  latency: Cost | None = None,
  executor: ExecutorConfig = LOCAL,
  team: Team | None = None,
) -> dict | None:
  """Searches, compares the best cells with random ones, and writes the winner.

  Args:
    config: all settings.
    workdir: the workdir of the run; a stopped run is resumed, a finished run is
      reported.
    data_dir: the directory of TFDS data sets.
    architectures: architectures that start in the pool beside random ones; see
      `cnn.parse`.
    trials: with the evaluator `scratch`, the file of trials to share with other
      searches; a file in the workdir by default.
    devices: number of devices of each process to use; all by default.
    checkpoints: when the state within a round is saved.
    plain: whether to show progress as plain lines on a terminal, too.
    latency: the latency for a limit or for `objectives="score,latency"`,
      instead of a table: a function from tokens int32 [N, 8 nodes] in pairs,
      see `cnn.to_cells`, to [N], in the unit of the limit.
    executor: with the evaluator `scratch`, the place where candidates train.
    team: the processes that train shared weights together; the first process
      searches, and only it needs a workdir.

  Returns:
    The content of best.json; None in a helper process. The programs that JAX
    has compiled in this process are dropped on the way, to save memory.

  Raises:
    UserError: a setting, the data or the workdir does not allow the search. It
      is raised before anything long runs.
    Stopped: a signal stopped the run; the same call resumes it.
  """
  settings.validate(config)
  space = cnn.space(config.network.nodes, config.network.ops, config.encoding)
  given = _given(space, architectures)
  _check(config, given, devices, trials)
  executor.check(config.evaluator)
  if team is not None:
    rules.check_processes(config)
  image_costs.check(config, latency)
  config, data = _load(config, data_dir, devices)
  if executor.executor == "local":
    _check_memory(config, data, devices)
  if team is not None:
    team.compare({"the data": flatten(data.digest)})
    if not team.first:
      return team.help(_help(config, data, devices, team))
  with (
    leading(team),
    SearchJournal(
      workdir,
      _settings(config, data, given),
      config.search.rounds,
      checkpoints=checkpoints,
      plain=plain,
    ) as journal,
  ):
    if best := journal.finished():
      logging.info("%s holds this search, finished; nothing to do", workdir)
      return best
    file = trials or journal.path / "trials.sqlite"
    evaluator = _evaluator(config, data, file, devices, executor, team)
    constraint = image_costs.constraint(config, data.image_shape, latency)
    pool = _search(config, space, given, evaluator, constraint, journal)
    trainings = _trainings(config, data, file, devices, executor)
    best = _finish(config, pool, trainings, constraint, journal)
    best["image"] = list(data.image_shape)
    journal.finish(best)
    _show(best, config, journal)
    search_page.try_to_write(journal.path)
  return best


def _check_memory(
  config: SearchCnnConfig, data: ImageData | ImageStream, devices: int | None
) -> None:
  """Raises UserError if the search, or what trains after it, does not fit."""
  check = functools.partial(
    memory_check.check_search,
    image_shape=data.image_shape,
    held=data.validation_examples if config.input == "stream" else None,
    devices=devices,
  )
  check(_searched(config, data), each=config.architectures_per_step)
  for name, budget, count in (
    ("finalist", config.finalist, config.finalists),
    ("final", config.final, config.final.cells),
  ):
    if count:
      smaller = f"`{name}.channels` or `{name}.batch`"
      check(final_trainer(config, data, budget), smaller=smaller)


def _load(
  config: SearchCnnConfig, data_dir: str, devices: int | None
) -> tuple[SearchCnnConfig, ImageData | ImageStream]:
  """Returns the settings, adapted to the data, and the data."""
  data = open_data(config, data_dir)
  config = _fit_to_data(config, data, devices)
  if config.standardize:
    data = dataclasses.replace(data, mean=None, std=None)
  return config, data


def _settings(
  config: SearchCnnConfig, data: ImageData | ImageStream, given: np.ndarray
) -> dict:
  """Returns the settings that determine the result of a search."""
  settings = flatten(config)
  settings |= {f"data.{k}": v for k, v in flatten(data.digest).items()}
  settings["arch"] = [row.tolist() for row in given]
  if table := config.constraint.latency_table:
    read = image_costs.read_table(table, config.network.ops)
    settings["latency_table"] = digest.of_arrays(0, *map(np.asarray, read))
  return settings


def _help(config, data, devices, team: Team) -> dict[str, Callable]:
  """Runs a helper process's part of the search; see `Team.help`."""
  shared = _shared(config, data, devices)
  return EvaluatorHelper(shared, team, "search").handlers


def _search(config, space, given, evaluator, constraint, journal) -> Pool:
  """Runs the search; returns the last pool, in pairs."""
  search_key, _ = _keys(config)
  with evaluator as opened:
    pool = loop.run(
      space,
      _Recoding(opened, config.encoding),
      search_key,
      config.search,
      strategy=strategy(
        config, space, constraint is not None and constraint.uses_cost_gradient
      ),
      given=given,
      journal=journal,
      constraint=image_costs.recoded(constraint, config.encoding),
    )
  return pool._replace(tokens=_in_pairs(pool.tokens, config.encoding))


def _finish(config, pool: Pool, trainings, constraint, journal) -> dict:
  """Runs the trainings after the search; returns the content of best.json."""
  # The search's programs are no longer needed, and those of the trainings are
  # about to be compiled: together they are the largest part of the memory.
  jax.clear_caches()
  _, final_key = _keys(config)
  # Each device trains a cell of its own, without help from other processes.
  with parallel.alone():
    return finals.run(trainings, pool, config, final_key, journal, constraint)


def _keys(config) -> jax.Array:
  """Returns the keys of the search, and of the trainings after it."""
  return jax.random.split(jax.random.key(config.seed))


def _in_pairs(tokens: np.ndarray, encoding: str) -> np.ndarray:
  """Converts tokens of any encoding to pairs, which all else reads."""
  return cnn.to_tokens(cnn.to_cells(tokens, encoding))


@dataclasses.dataclass(frozen=True)
class _Recoding:
  """An evaluator for a pool in another encoding."""

  evaluator: SharedWeights | FromScratch | TeamEvaluator
  encoding: str

  def init(self, key):
    return self.evaluator.init(key)

  def replicate(self, state):
    return self.evaluator.replicate(state)

  def score(self, state, key, tokens, round_, progress, keep):
    tokens = _in_pairs(tokens, self.encoding)
    return self.evaluator.score(state, key, tokens, round_, progress, keep)

  def score_async(
    self, state, key, tokens, round_, progress, keep, *, max_pending
  ):
    """Implements `score_async`, for evaluators that have it."""
    tokens = _in_pairs(tokens, self.encoding)
    return self.evaluator.score_async(
      state, key, tokens, round_, progress, keep, max_pending=max_pending
    )


def _given(space: Space, architectures: Sequence[str]) -> np.ndarray:
  rows = [cnn.parse(space, text, "architectures") for text in architectures]
  given = np.array(rows, np.int32).reshape(-1, space.length)
  if len(set(space.keys(given))) < len(given):
    raise UserError("`architectures`: two of them are the same function")
  return given


def _check(config: SearchCnnConfig, given: np.ndarray, devices, trials) -> None:
  """Checks the settings that can be checked before the data are known."""
  rules.check_trials(config, trials)
  if len(given) > config.search.pool_size:
    raise UserError(
      f"`architectures`: {len(given)} of them do not fit "
      f"`search.pool_size={config.search.pool_size}`"
    )
  parallel.check(devices)
  if config.evaluator == "shared":
    check_each_step(
      config.architectures_per_step,
      config.train.batch,
      config.search.pool_size,
      devices,
    )


def _fit_to_data(config, data, devices) -> SearchCnnConfig:
  """Returns the settings with the data's number of classes, checked."""
  network = dataclasses.replace(config.network, classes=data.classes)
  config = dataclasses.replace(config, network=network)
  if not data.validation_examples:
    raise UserError(
      f"`validation_fraction={config.validation_fraction}`: no image is left "
      "to score with; give more"
    )
  check_size(config, network, data.image_shape)
  # A candidate trains on one device, the supernet on all of them.
  on = 1 if config.evaluator == "scratch" else devices
  _trainer(config, data).check(on)
  config = _with_small_batches(config, data.train_examples)
  asked = {"final": config.final.cells, "finalist": config.finalists}
  for name in (name for name, cells in asked.items() if cells):
    budget = getattr(config, name)
    with (
      settings.within("network", network),
      settings.within(name, budget),
    ):
      budget.network(network).check(data.image_shape[0])
    final_trainer(config, data, budget).check(1, f"{name}.batch")
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


def _trainer(config: SearchCnnConfig, data: ImageData | ImageStream) -> Trainer:
  return Trainer(
    network=config.network,
    train=config.train,
    sgd=config.sgd,
    augment=config.augment,
    examples=data.train_examples,
  )


def _searched(
  config: SearchCnnConfig, data: ImageData | ImageStream
) -> Trainer | CandidateTrainer:
  """Returns the settings for training members of the pool."""
  trainer = _trainer(config, data)
  if config.evaluator == "shared":
    return trainer
  return CandidateTrainer(**vars(trainer))


@contextlib.contextmanager
def _evaluator(
  config, data, trials, devices, executor: ExecutorConfig, team: Team | None
) -> Iterator[SharedWeights | FromScratch | TeamEvaluator]:
  """Yields the evaluator; its workers end with the context."""
  if config.evaluator == "shared":
    shared = _shared(config, data, devices)
    yield shared if team is None else TeamEvaluator(shared, team, "search")
    return
  space = cnn.space(config.network.nodes, config.network.ops)
  candidates = ImageCandidates(
    _searched(config, data), data, config.seed, devices
  )
  known = Trials(trials, space.name, _protocol(config, data))
  with executors.from_scratch(
    executor, candidates, space, known, prune=config.prune
  ) as evaluator:
    yield evaluator


def _shared(config, data, devices) -> SharedWeights:
  return SharedWeights(
    _trainer(config, data),
    data,
    config.search.rounds + 1,
    devices,
    config.sampling,
    config.train_only_new,
    config.architectures_per_step,
  )


def _protocol(config: SearchCnnConfig, data: ImageData | ImageStream) -> dict:
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
    # The digest stands for the data set; its name may stand for other data
    # later.
    | {"data": data.digest.train}
    | streamed
  )


def final_trainer(
  config: SearchCnnConfig,
  data: ImageData | ImageStream,
  budget: FinalConfig | FinalistConfig,
) -> CandidateTrainer:
  """Returns the settings of trainings after the search.

  Args:
    config: the settings of the search.
    data: the data, of which only the number of training images matters.
    budget: the settings that only these trainings have.
  """
  return CandidateTrainer(
    network=budget.network(config.network),
    train=final_training.train(budget, config.train),
    sgd=final_training.one_cosine(config.sgd),
    augment=config.augment,
    examples=data.train_examples,
  )


def _trainings(
  config, data, trials, devices, executor: ExecutorConfig
) -> finals.Trainings:
  """Returns how cells train after the search; see `finals.Trainings`."""
  space = cnn.space(config.network.nodes, config.network.ops)

  def opened(budget, number, part, last_only):
    trainer = final_trainer(config, data, budget)
    own = dataclasses.replace(
      config,
      seed=finals.seed(config.seed, number),
      network=trainer.network,
      train=trainer.train,
      sgd=trainer.sgd,
      prune=False,
    )
    candidates = ImageCandidates(
      trainer, data, own.seed, devices, part, last_only
    )
    measured = {"part": part, "last_only": last_only}
    if part == "test":
      measured["test"] = data.digest.test
    known = Trials(trials, space.name, _protocol(own, data) | measured)
    return executors.from_scratch(executor, candidates, space, known)

  return finals.Trainings(
    space,
    cnn.to_text,
    ACCURACY,
    lambda: opened(config.finalist, 0, "validation", False),
    lambda number: opened(config.final, number, "test", True),
  )


def _show(best: dict, config: SearchCnnConfig, journal: SearchJournal) -> None:
  """Shows the result as a table and a drawing."""
  finals.show(best, ACCURACY, digits=4)
  names = cnn.OP_SETS[config.network.ops]
  pictures = [
    journal.path / f"best.{suffix}" for suffix in ("png", "svg", "pdf")
  ]
  convolutional.draw_cells(best["tokens"], names, pictures, title="best cells")
  streams.console().print(f"drawn in {pictures[0]}", highlight=False)
