"""A complete search for a task, from settings to a winner."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os
import pathlib
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from nao_jax import parallel, settings
from nao_jax.distributed.evaluator import EvaluatorHelper, TeamEvaluator
from nao_jax.distributed.team import leading
from nao_jax.errors import UserError
from nao_jax.evaluators import Evaluator, executors
from nao_jax.evaluators.executors import LOCAL, ExecutorConfig
from nao_jax.evaluators.local import Candidates
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs import checkpoint, status, streams
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.trials import Trials
from nao_jax.search import final_tables, finals, loop
from nao_jax.search.config import ExperimentConfig
from nao_jax.search.journal import SearchJournal
from nao_jax.search.proposer import Proposer
from nao_jax.settings import flatten
from nao_jax.spaces.space import Space
from nao_jax.strategies import proxies
from nao_jax.strategies.choice import strategy
from nao_jax.strategies.proxies import Proxy
from nao_jax.tasks.shown import Best
from nao_jax.tasks.task import (
  DEFAULT_OPTIONS,
  Cells,
  OpenTask,
  RunOptions,
  Stage,
  Task,
)

# Files that loggers get at the end of a search.
_RESULTS = (
  *("best.json", "best.png", "best.svg", "best.pdf"),
  *("history.jsonl", "report.html"),
)


class _Setup(NamedTuple):
  """Executor, files and options of the trainings of a search.

  Attributes:
    executor: the place where candidates train.
    trials: the file of their results.
    options: devices and processes.
  """

  executor: ExecutorConfig
  trials: str | pathlib.Path
  options: RunOptions


@in_32_bits
def run(
  task: Task,
  config: ExperimentConfig,
  *,
  workdir: str | os.PathLike,
  architectures: Sequence[str] = (),
  trials: str | None = None,
  executor: ExecutorConfig = LOCAL,
  options: RunOptions = DEFAULT_OPTIONS,
) -> dict | None:
  """Searches, compares the best cells with random ones, and writes the winner.

  Args:
    task: the cells and the data.
    config: all settings of the task.
    workdir: the workdir of the run; a stopped run is resumed; a finished one is
      not repeated, its result is returned.
    architectures: architectures that start in the pool beside random ones, as
      the space's `parse` reads them.
    trials: the file of trainings from scratch to share with other searches:
      those of finalists and of the comparison, and with the evaluator `scratch`
      those of the search; a file in the workdir by default.
    executor: with the evaluator `scratch`, the place where candidates train.
    options: devices, checkpoints, progress and processes. Several processes
      train shared weights together; the first one searches.

  Returns:
    The content of best.json, as a dict that a notebook shows as a table and a
    drawing; None in a helper process.

  Raises:
    UserError: a setting, the data or the workdir does not allow the search. It
      is raised before anything long runs.
    Stopped: a signal stopped the run; the same call resumes it.
  """
  settings.validate(config)
  cells = task.cells(flatten(config))
  given = _given(cells.space, architectures)
  _check(config, given, trials, executor, options)
  start = time.monotonic()
  opened = task.open(config, options.devices)
  data_seconds = time.monotonic() - start
  if executor.executor == "local":
    opened.check_memory()
  if (team := options.team) is not None:
    team.compare({"the data": opened.identity})
    if not team.first:
      return team.help(
        EvaluatorHelper(opened.shared(), team, "search").handlers
      )
  with (
    leading(team),
    _journal(workdir, opened, cells, given, options) as journal,
  ):
    if best := journal.finished():
      logging.info("%s holds this search, finished; nothing to do", workdir)
      return Best(best, cells)
    file = trials or journal.path / "trials.sqlite"
    setup = _Setup(executor, file, options)
    best = _search(opened, cells, given, setup, journal)
    journal.finish(best)
    _show(best, cells, journal)
    _report(task, journal, data_seconds)
  return Best(best, cells)


def _report(task: Task, journal: SearchJournal, data_seconds: float) -> None:
  """Writes the report; shows how long the search's parts took.

  Data and report are those of this session.
  """
  # Late, as are drawings: see `Cells.draw`.
  from nao_jax.report import search_page

  start = time.monotonic()
  search_page.try_to_write(journal.path, task.cells)
  journal.tracking.artefacts(*_RESULTS)
  final_tables.show_seconds(
    {"data": [data_seconds, 0.0]}
    | status.seconds_of(status.read(journal.path))
    | {"report": [time.monotonic() - start, 0.0]}
  )


def _given(space: Space, architectures: Sequence[str]) -> np.ndarray:
  """Parses the user's architectures to int32 [G, L]."""
  rows = [space.parse(text, "architectures") for text in architectures]
  given = np.array(rows, np.int32).reshape(-1, space.length)
  if len(set(space.keys(given))) < len(given):
    raise UserError("`architectures`: two of them are equivalent")
  return given


def _check(
  config: ExperimentConfig,
  given: np.ndarray,
  trials: str | None,
  executor: ExecutorConfig,
  options: RunOptions,
) -> None:
  """Checks what can be checked before the data are read."""
  if config.prune and trials:
    raise UserError(
      f"`prune=True` `trials={trials}`: what is pruned depends on the pool of "
      "this search, so its trials are of no use to others; give only one of "
      "them"
    )
  if len(given) > config.search.pool_size:
    raise UserError(
      f"`architectures`: {len(given)} of them do not fit "
      f"`search.pool_size={config.search.pool_size}`"
    )
  parallel.check(options.devices)
  executor.check(config.evaluator)
  if options.team is not None and config.evaluator != "shared":
    raise UserError(
      f"`evaluator={config.evaluator}`: several processes train shared weights "
      "together; give `evaluator=shared`, or start one process"
    )


def _journal(workdir, task, cells, given, options) -> SearchJournal:
  """Opens the workdir for a run with these settings and data."""
  given_tokens = {"arch": [row.tolist() for row in given]}
  return SearchJournal(
    workdir,
    flatten(task.config) | task.identity | given_tokens,
    task.config.search.rounds,
    cells.measure,
    options.checkpoints,
    plain=options.plain,
    loggers=options.loggers,
  )


def _search(
  task: OpenTask,
  cells: Cells,
  given: np.ndarray,
  setup: _Setup,
  journal: SearchJournal,
) -> dict:
  """Runs the search and the trainings after it; returns best.json."""
  config, constraint = task.config, task.constraint
  search_key, final_key = jax.random.split(jax.random.key(config.seed))
  follows_costs = constraint is not None and constraint.uses_cost_gradient
  signals = task.proxies()
  chosen = strategy(config, cells.space, follows_costs, signals)
  given = _first_pool(task, cells.space, signals, given, search_key, journal)
  with _evaluator(task, cells, setup) as evaluator:
    pool = loop.run(
      cells.space,
      evaluator,
      search_key,
      config.search,
      strategy=chosen,
      given=given,
      journal=journal,
      constraint=constraint,
    )
  # The search's programs are no longer needed, and those of the trainings are
  # about to be compiled: together they are the largest part of the memory.
  jax.clear_caches()
  # Each device trains one cell, without help from other processes.
  with parallel.alone():
    trainings = _trainings(task, cells, setup)
    proposer = Proposer(
      chosen,
      cells.space,
      jax.random.fold_in(search_key, 1),
      loop.of_plain_tokens(constraint, cells.space),
    )
    best = finals.run(
      trainings, pool, config, final_key, journal, constraint, proposer
    )
  return best | task.outcome


def _first_pool(
  task: OpenTask,
  space: Space,
  signals: tuple[Proxy, ...],
  given: np.ndarray,
  key: jax.Array,
  journal: SearchJournal,
) -> np.ndarray:
  """Returns the given architectures, and those that signals choose, [G, L].

  The choice is saved, as it may take a while; a damaged one is made again.
  """
  wanted = task.config.search.pool_size - len(given)
  if not wanted or not signals:
    return given
  saved = journal.path / "first_pool"
  try:
    found = checkpoint.restore(saved, given)
  except UserError as error:
    logging.warning("%s; the first pool is chosen again", error)
    found = None
  if found is None:
    chosen = proxies.first_pool(
      space,
      jax.random.fold_in(key, 4),  # `loop.run` splits the key in 4.
      wanted,
      signals,
      known=set(space.keys(given)),
      constraint=loop.of_plain_tokens(task.constraint, space),
    )
    found = np.concatenate([given, chosen])
    checkpoint.save(saved, found)
  return found


@contextlib.contextmanager
def _evaluator(
  task: OpenTask, cells: Cells, setup: _Setup
) -> Iterator[Evaluator]:
  """Yields the evaluator; its workers end with the context."""
  if task.config.evaluator == "shared":
    shared, team = task.shared(), setup.options.team
    yield shared if team is None else TeamEvaluator(shared, team, "search")
    return
  candidates = task.candidates()
  with _from_scratch(cells, setup, *candidates, task.config.prune) as evaluator:
    yield evaluator


@contextlib.contextmanager
def _from_scratch(
  cells: Cells,
  setup: _Setup,
  candidates: Candidates,
  protocol: dict[str, Any],
  prune: bool = False,
) -> Iterator[FromScratch]:
  """Yields an evaluator that trains candidates with a protocol."""
  space = cells.space.plain
  known = Trials(setup.trials, space.name, protocol)
  with executors.opened(setup.executor, candidates) as executor:
    yield FromScratch(space, executor, known, prune, cells.measure)


def _trainings(task: OpenTask, cells: Cells, setup: _Setup) -> finals.Trainings:
  """Returns the evaluators of the trainings after the search."""

  seed, final, first = task.config.seed, task.config.final, task.config.finalist
  epochs = [first.epochs, *(epochs for _, epochs in first.later)]

  def opened(stage: Stage):
    return _from_scratch(cells, setup, *task.retrained(stage))

  def finalists(number: int):
    own, budget = finals.seed(seed, 0, number), epochs[number]
    budget = dataclasses.replace(first, epochs=budget)
    return opened(Stage(budget, own, "validation", last_only=False))

  def compared(number: int):
    own = finals.seed(seed, number)
    return opened(Stage(final, own, "test", last_only=True))

  return finals.Trainings(
    cells.space, cells.measure, finalists, compared, task.ranking()
  )


def _show(best: dict, cells: Cells, journal: SearchJournal) -> None:
  """Shows the result as a table and a drawing."""
  final_tables.show(best, cells.measure)
  pictures = [
    journal.path / f"best.{suffix}" for suffix in ("png", "svg", "pdf")
  ]
  cells.draw(best["tokens"], pictures)
  streams.console().print(f"drawn in {pictures[0]}", highlight=False)
