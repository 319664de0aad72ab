"""Comparison of strategies on a benchmark table, trial by trial.

A trial is one search with its own random numbers, the first pool included; the
trials of one seed share that pool where it has the same size. An evaluation is
the look-up of one function.

Shapes: R trials, B evaluations (the budget), F functions of the table.
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import dataclasses
import json
import os
import time

from absl import logging
import jax
import numpy as np

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.data import digest, tables
from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table
from nao_jax.objectives import CostConstraint
from nao_jax.runs import environment, json_file, paths
from nao_jax.runs.files import check_writable, write
from nao_jax.search import loop
from nao_jax.search.loop import SearchConfig
from nao_jax.settings import LAST_SEED, Only, field, flatten, validate
from nao_jax.spaces.known import Known
from nao_jax.spaces.space import Space
from nao_jax.strategies import Strategy, nao_plus
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.uniform import Uniform
from nao_jax.studies import measured
from nao_jax.studies.curves import Curves, summary

# Evaluations before the first proposal, unless a strategy needs more.
FIRST = 10


@dataclasses.dataclass(frozen=True)
class CompareConfig:
  """Settings of a comparison.

  Attributes:
    table: `nas-bench-graph`, a .npz file in the form of NAS-Bench-201, or a
      .npz, .csv or .json file of slots.
    dataset: the data that the architectures were trained on; it is not needed
      where a file of slots has columns of the names alone.
    signal: the measurement that the search sees.
    report: the measurement that is reported of the architecture found.
    budget: B, evaluations of a trial.
    trials: R.
    seed: seed of the first trial; the others count up from it.
    limit: the largest cost that is allowed, such as `latency:0.002`: a column
      of the table, in its unit; none if empty.
    limit_penalty: weight of a cost beyond the limit against the predicted
      score in the ascent; with 0 such architectures are only rejected.
  """

  ACTS_WITH = (Only(("limit_penalty",), "limit"),)

  table: str = tables.GRAPH
  dataset: str = "cora"
  signal: str = "valid"
  report: str = "test"
  budget: int = field(200, least=FIRST)
  trials: int = field(100, least=1)
  seed: int = field(0, least=0, most=LAST_SEED)
  limit: str = ""
  limit_penalty: float = field(1.0, least=0)


@dataclasses.dataclass(frozen=True)
class Setup:
  """A strategy and the sizes of its search.

  Attributes:
    strategy: the strategy.
    pool: number of random architectures that it starts with.
    batch: number of proposals in a round.
  """

  strategy: Strategy
  pool: int = FIRST
  batch: int = 1

  def search(self, budget: int) -> SearchConfig:
    """Returns the sizes of a search with this number of evaluations."""
    pool = min(self.pool, budget)
    return SearchConfig(
      pool_size=pool,
      rounds=-(-(budget - pool) // self.batch),
      new_per_round=self.batch,
      extend=True,
    )


def _nao(space: Space) -> Setup:
  """Sets up NAO as published, but at a size that allows a hundred trials."""
  controller = Controller(space, ControllerConfig(mlp_dropout=0.0))
  strategy = Nao(
    controller,
    FitConfig(epochs=200, batch=100),
    NaoConfig(top_k=50, max_step_size=50, held_out=0.1),
  )
  return Setup(strategy, pool=50, batch=50)


def _nao_plus(space: Space) -> Setup:
  return Setup(nao_plus.small(space))


SETUPS: dict[str, Callable[[Space], Setup]] = {
  "nao": _nao,
  "nao_plus": _nao_plus,
  "random": lambda space: Setup(Uniform(space)),
  "evolution": lambda space: Setup(Evolution(space), pool=20),
  "local": lambda space: Setup(Local(space)),
}


def run(
  config: CompareConfig,
  strategies: Sequence[str],
  *,
  file: str | os.PathLike | None = None,
  threads: int | None = None,
) -> dict[str, Curves]:
  """Runs all trials of all strategies.

  Args:
    config: the settings.
    strategies: names among `SETUPS`.
    file: JSON with the curves; strategies that it holds for these settings are
      not run again, and each strategy is written as soon as it is done.
    threads: number of trials at a time; by default the number of processors or
      devices, whichever is larger.

  Returns:
    {strategy: curves}.

  Raises:
    UserError: a setting is illegal or does not fit the table.
  """
  signal, report, constraint = check(config, strategies)
  # A table may hold other scores under the same name.
  space = signal.space
  listed = [space.rows.tokens] if isinstance(space, Known) else []
  table = digest.of_arrays(0, signal.scores, report.scores, *listed)
  done = _read(file, config, space, table)
  if file is not None:
    check_writable(file, "file")
  curves = {}
  for name in strategies:
    if name not in done:
      found = _trials(config, name, signal, report, constraint, threads)
      signs = [column.sign for column in columns(config)]
      done[name] = dataclasses.replace(
        found, signal=found.signal * signs[0], report=found.report * signs[1]
      )
      _write(file, config, signal.space, table, done)
    curves[name] = done[name]
  return curves


def columns(config: CompareConfig) -> list[tables.Column]:
  """Returns the columns of the signal and of the report.

  Raises:
    UserError: the table or a column cannot be read.
  """
  return [
    tables.load(config.table, config.dataset, name, where)
    for name, where in ((config.signal, "signal"), (config.report, "report"))
  ]


def check(
  config: CompareConfig, strategies: Sequence[str]
) -> tuple[Table, Table, CostConstraint | None]:
  """Checks the settings; returns signal, report and cost constraint.

  With a limit the signal has scores of the allowed functions only.

  Raises:
    UserError: the message names the setting.
  """
  validate(config)
  unknown = [name for name in strategies if name not in SETUPS]
  if unknown or not strategies:
    raise UserError(
      f"`strategies={','.join(strategies)}`: allowed: {', '.join(SETUPS)}"
    )
  if len(set(strategies)) < len(strategies):
    raise UserError(f"`strategies={','.join(strategies)}`: one occurs twice")
  found = columns(config)
  signal, report = (Table(column.space, column.scores) for column in found)
  constraint, allowed = measured.constraint(config, found)
  if constraint is not None:
    signal = signal.within(allowed)
  most = np.sum(~np.isnan(signal.scores))
  if not FIRST <= config.budget <= most:
    raise UserError(
      f"`budget={config.budget}`: allowed: {FIRST} to {most}, the functions of "
      "the table"
      + (f" that `limit={config.limit}` allows" if config.limit else "")
    )
  return signal, report, constraint


def _trials(config, name, signal, report, constraint, threads) -> Curves:
  start = time.monotonic()
  setup = _setup(name, signal.space, constraint)
  devices = environment.local_devices()
  threads = threads or max(len(devices), os.cpu_count() or 1)

  def trial(number: int) -> np.ndarray:
    with jax.default_device(devices[number % len(devices)]):
      return _trial(setup, config, signal, constraint, number)

  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    # The first trial compiles the programs that the others share.
    tokens = [trial(0)]
    logging.info("%s: trial 1 of %d done", name, config.trials)
    for rows in pool.map(trial, range(1, config.trials)):
      tokens.append(rows)
      if len(tokens) % max(config.trials // 10, 1) == 0:
        logging.info("%s: %d of %d trials", name, len(tokens), config.trials)
  return _curves(tokens, config.budget, signal, report, start)


def _trial(setup, config, signal, constraint, number) -> np.ndarray:
  """Returns the architectures that one search evaluated, in order.

  They are int32 [at most B, L].
  """
  pool = loop.run(
    signal.space,
    signal,
    jax.random.key(config.seed + number),
    setup.search(config.budget),
    strategy=setup.strategy,
    enough=np.float32(signal.best),
    constraint=constraint,
  )
  return pool.tokens[: config.budget]


def _curves(tokens, budget, signal, report, start) -> Curves:
  rows = []
  for evaluated in tokens:
    scores = signal.lookup(evaluated)
    order = np.arange(len(scores))
    # Ties keep the first architecture.
    best = np.maximum.accumulate(scores)
    at = np.maximum.accumulate(
      np.where(np.r_[True, scores[1:] > best[:-1]], order, 0)
    )
    at = np.pad(at, (0, budget - len(at)), mode="edge")
    hit = np.flatnonzero(scores >= signal.best)
    rows.append(
      (
        scores[at],
        report.lookup(evaluated)[at],
        len(scores),
        hit[0] + 1 if len(hit) else 0,
      )
    )
  return Curves(
    *map(np.array, zip(*rows, strict=True)),
    seconds=round(time.monotonic() - start, 1),
  )


def _setup(name: str, space: Space, constraint: CostConstraint | None) -> Setup:
  """Returns a strategy; its controller estimates costs if they guide it."""
  setup = SETUPS[name](space)
  controller = getattr(setup.strategy, "controller", None)
  if (
    controller is None
    or constraint is None
    or not constraint.uses_cost_gradient
  ):
    return setup
  controller = dataclasses.replace(controller, estimates_cost=True)
  strategy = dataclasses.replace(setup.strategy, controller=controller)
  return dataclasses.replace(setup, strategy=strategy)


def _read(
  file, config: CompareConfig, space: Space, table: str
) -> dict[str, Curves]:
  """Reads the curves in a file of strategies whose setup is unchanged."""
  if file is None or not os.path.exists(paths.expanded(file)):
    return {}
  place, wanted, advice = f"`file={file}`", "a comparison", "give another file"
  held = json_file.read(file, place=place, wanted=wanted, advice=advice)
  try:
    settings, trials = held["settings"], dict(held["trials"])
    done = {
      name: _curves_of_file(rows, config)
      for name, rows in trials.items()
      if rows["setup"] == _described(SETUPS[name](space))
      and settings == flatten(config)
    }
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UserError(f"{place}: not {wanted} ({error!r}); {advice}") from error
  if settings != flatten(config):
    raise UserError(f"{place}: holds another comparison, {settings}; {advice}")
  if held.get("table") != table:
    raise UserError(
      f"{place}: holds a comparison on other scores than those that"
      f" `table={config.table}` holds today; {advice}"
    )
  for name in sorted(set(trials) - set(done)):
    logging.info("%s is no longer what %s holds of it", name, file)
  return done


def _curves_of_file(rows: dict, config: CompareConfig) -> Curves:
  """Reads the curves of a strategy.

  It raises ValueError and other errors for damaged entries.
  """
  arrays = [np.array(rows[field]) for field in _ARRAYS]
  trials, budget = (config.trials,), (config.budget,)
  shapes = [trials + budget, trials + budget, trials, trials]
  if [array.shape for array in arrays] != shapes:
    raise ValueError(f"curves are not {config.trials} by {config.budget}")
  for array in arrays:
    if array.dtype.kind not in "fi" or not np.isfinite(array).all():
      raise ValueError("curves are not all numbers")
  return Curves(*arrays, seconds=float(rows["seconds"]))


def _described(setup: Setup) -> dict:
  """Describes the settings that determine a strategy's trials, JSON-like."""
  described = {"pool": setup.pool, "batch": setup.batch}
  for own in dataclasses.fields(setup.strategy):
    value = getattr(setup.strategy, own.name)
    if isinstance(value, Controller):
      described["controller"] = flatten(value.config)
    elif not isinstance(value, Space):
      described[own.name] = (
        flatten(value) if dataclasses.is_dataclass(value) else value
      )
  return described


_ARRAYS = ("signal", "report", "evaluations", "found")


def _write(file, config: CompareConfig, space: Space, table: str, done) -> None:
  if file is None:
    return
  rows = {
    name: {field: getattr(curves, field).tolist() for field in _ARRAYS}
    | {"seconds": curves.seconds, "setup": _described(SETUPS[name](space))}
    for name, curves in done.items()
  }
  held = {
    "settings": flatten(config),
    "table": table,
    "summary": summary(done),
    "trials": rows,
  }
  write(paths.expanded(file), json.dumps(held) + "\n")
