"""Comparison of strategies on a benchmark table, trial by trial.

A trial is one search with its own random numbers, the first pool included; the
trials of one seed share that pool where it has the same size. An evaluation is
the look-up of one function.

Shapes: R trials, B evaluations (the budget), F functions of the table.
"""

from collections.abc import Callable, Sequence
import concurrent.futures
import dataclasses
import functools
import math
import os
import time

from absl import logging
import jax
import numpy as np

from nao_jax.data import digest, tables
from nao_jax.errors import UserError
from nao_jax.evaluators.fidelities import Fidelities
from nao_jax.evaluators.table import Table
from nao_jax.objectives import CostConstraint
from nao_jax.runs import environment
from nao_jax.runs.files import check_writable
from nao_jax.search import loop
from nao_jax.settings import LAST_SEED, Only, field, numbered, validate
from nao_jax.spaces.known import Known
from nao_jax.strategies import proxies
from nao_jax.strategies.ensemble import NaoPlusConfig
from nao_jax.studies import curves_file, measured, setups
from nao_jax.studies.curves import Curves
from nao_jax.studies.setups import FIRST, SETUPS


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
    fidelities: columns and their training epochs, such as
      valid12:12,test200:200, from the cheapest on, instead of `signal`: all
      architectures are evaluated at the first, and the best so far are promoted
      to the next.
    epochs_budget: with `fidelities`, training epochs of a trial, instead of
      `budget`.
    promoted_share: with `fidelities`, the share of the epochs that is kept for
      promotions, in equal parts for each fidelity after the first.
    proxies: signals, with commas between them, that choose the first
      architectures among ten times as many random ones, help to choose
      promotions, and correct the predictions of `nao_plus`: columns of the
      table, of which higher numbers promise more, or lower ones with a - before
      the name; for NAS-Bench-201 also `parameters` and `multiply_adds`. With
      them `nao_plus` ranks candidates by mean and spread (`plus.exploration` of
      0.5).
  """

  ACTS_WITH = (
    Only(("limit_penalty",), "limit"),
    Only(("epochs_budget", "promoted_share"), "fidelities"),
  )

  table: str = tables.GRAPH
  dataset: str = "cora"
  signal: str = "valid"
  report: str = "test"
  budget: int = field(200, least=FIRST)
  trials: int = field(100, least=1)
  seed: int = field(0, least=0, most=LAST_SEED)
  limit: str = ""
  limit_penalty: float = field(1.0, least=0)
  fidelities: str = field("", added=True)
  epochs_budget: int = field(1192, least=1, added=True)
  promoted_share: float = field(0.5, above=0, below=1, added=True)
  proxies: str = field("", added=True)

  @property
  def ladder(self) -> list[tuple[str, int]]:
    """The fidelities: pairs of a column and its epochs."""
    return numbered("fidelities", self.fidelities)

  @property
  def _promoted(self) -> list[int]:
    """The numbers of architectures at each fidelity after the first."""
    dearer = self.ladder[1:]
    epochs = self.promoted_share * self.epochs_budget / max(len(dearer), 1)
    return [max(1, int(epochs / each + 1e-9)) for _, each in dearer]

  @property
  def evaluations(self) -> int:
    """Evaluations of a trial, at the first fidelity if there are several."""
    if not (ladder := self.ladder):
      return self.budget
    later = zip(self._promoted, ladder[1:], strict=True)
    spent = sum(count * epochs for count, (_, epochs) in later)
    return (self.epochs_budget - spent) // ladder[0][1]

  @property
  def promotions(self) -> tuple[tuple[int, int], ...]:
    """Promotions of `Fidelities`, spread over the second half of a trial."""
    total = self.evaluations
    return tuple(
      sorted(
        (math.ceil(total * (count + number) / (2 * count)), level)
        for level, count in enumerate(self._promoted, 1)
        for number in range(1, count + 1)
      )
    )

  def check_together(self) -> None:
    """Raises UserError for fidelities out of order, or with `signal`."""
    if not (ladder := self.ladder):
      return
    epochs = [each for _, each in ladder]
    if len(ladder) < 2 or sorted({*epochs}) != epochs:
      raise UserError(
        f"`fidelities={self.fidelities}`: give two or more, each with more "
        "epochs than the one before"
      )
    for name, instead in (
      ("signal", "fidelities"),
      ("budget", "epochs_budget"),
    ):
      if (value := getattr(self, name)) != getattr(CompareConfig, name):
        raise UserError(
          f"`{name}={value}`: with `fidelities` it is `{instead}` that acts"
        )


def run(
  config: CompareConfig,
  strategies: Sequence[str],
  *,
  plus: NaoPlusConfig | None = None,
  file: str | os.PathLike | None = None,
  threads: int | None = None,
) -> dict[str, Curves]:
  """Runs all trials of all strategies.

  Args:
    config: the settings.
    strategies: names among `SETUPS`.
    plus: settings of `nao_plus`; see `setups.setup`.
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
  space = signal.space
  signals = measured.proxies(config, space)
  if isinstance(signal, Fidelities):
    signal = dataclasses.replace(signal, proxies=signals)
  table = _digest(signal, report, signals)
  made = {
    name: setups.setup(name, space, constraint, signals, plus)
    for name in SETUPS
  }
  described = {name: setups.described(one) for name, one in made.items()}
  done = curves_file.read(file, config, described, table)
  if file is not None:
    check_writable(file, "file")
  # Now, as the file may be changed before the trials are done.
  *_, seen, shown = [column.sign for column in columns(config)]
  curves = {}
  for name in strategies:
    if name not in done:
      trial = functools.partial(
        _trial, made[name], config, signal, constraint, signals
      )
      start = time.monotonic()
      tokens = _trials(name, trial, config.trials, threads)
      found = _curves(tokens, config.evaluations, signal, report, start)
      done[name] = dataclasses.replace(
        found, signal=found.signal * seen, report=found.report * shown
      )
      curves_file.write(file, config, described, table, done)
    curves[name] = done[name]
  return curves


def columns(config: CompareConfig) -> list[tables.Column]:
  """Returns the columns of the signal, or of all fidelities, and the report.

  Raises:
    UserError: the table or a column cannot be read.
  """
  names = [(name, "fidelities") for name, _ in config.ladder]
  names = [*(names or [(config.signal, "signal")]), (config.report, "report")]
  found = [
    tables.load(config.table, config.dataset, name, where)
    for name, where in names
  ]
  if len({column.sign for column in found[:-1]}) > 1:
    raise UserError(
      f"`fidelities={config.fidelities}`: lower numbers are better in some of "
      "the columns, and higher ones in others"
    )
  return found


def check(
  config: CompareConfig, strategies: Sequence[str]
) -> tuple[Table | Fidelities, Table, CostConstraint | None]:
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
  *seen, report = (Table(column.space, column.scores) for column in found)
  signal = seen[0]
  if config.ladder:
    signal = Fidelities(tuple(seen), config.promotions)
  constraint, allowed = measured.constraint(config, found)
  if constraint is not None:
    signal = signal.within(allowed)
  most = np.isfinite(np.atleast_2d(signal.scores)).all(0).sum()
  if not FIRST <= config.evaluations <= most:
    raise UserError(
      (
        f"`epochs_budget={config.epochs_budget}`: {config.evaluations} "
        "evaluations at the first fidelity"
        if config.ladder
        else f"`budget={config.budget}`"
      )
      + f": allowed: {FIRST} to {most}, the functions of the table"
      + (f" that `limit={config.limit}` allows" if config.limit else "")
    )
  return signal, report, constraint


def _digest(signal, report, signals) -> str:
  """Returns a hash of all numbers that trials depend on.

  A table may hold others under the same names.
  """
  space = signal.space
  if isinstance(space, Known):
    listed, tokens = [space.rows.tokens], space.rows.tokens
  else:
    functions = space.functions
    listed, tokens = [], functions.tokens(functions.representative)
  values = [each.values(space, tokens) for each in signals]
  return digest.of_arrays(0, signal.scores, report.scores, *listed, *values)


def _trials(
  name: str, trial: Callable[[int], np.ndarray], count: int, threads: int | None
) -> list[np.ndarray]:
  """Runs trials by number, several at a time; returns their architectures."""
  devices = environment.local_devices()
  threads = threads or max(len(devices), os.cpu_count() or 1)

  def run_one(number: int) -> np.ndarray:
    with jax.default_device(devices[number % len(devices)]):
      return trial(number)

  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    # The first trial compiles the programs that the others share.
    tokens = [run_one(0)]
    logging.info("%s: trial 1 of %d done", name, count)
    for rows in pool.map(run_one, range(1, count)):
      tokens.append(rows)
      if len(tokens) % max(count // 10, 1) == 0:
        logging.info("%s: %d of %d trials", name, len(tokens), count)
  return tokens


def _trial(setup, config, signal, constraint, signals, number) -> np.ndarray:
  """Returns the architectures that one search evaluated, in order.

  They are int32 [at most B, L].
  """
  key, sizes = (
    jax.random.key(config.seed + number),
    setup.search(config.evaluations),
  )
  first = None
  if signals:
    first = proxies.first_pool(
      signal.space,
      jax.random.fold_in(key, 4),  # `loop.run` splits the key in 4.
      sizes.pool_size,
      signals,
      constraint=constraint,
    )
  pool = loop.run(
    signal.space,
    signal,
    key,
    sizes,
    strategy=setup.strategy,
    enough=np.float32(signal.enough),
    constraint=constraint,
    given=first,
  )
  return pool.tokens[: config.evaluations]


def _curves(tokens, budget, signal, report, start) -> Curves:
  rows = []
  for evaluated in tokens:
    at, scores, final = signal.incumbents(evaluated)
    hit = np.flatnonzero(final & (scores >= signal.best))
    rest = (0, budget - len(at))
    rows.append(
      (
        np.pad(scores, rest, mode="edge"),
        np.pad(report.lookup(evaluated)[at], rest, mode="edge"),
        len(scores),
        hit[0] + 1 if len(hit) else 0,
      )
    )
  return Curves(
    *map(np.array, zip(*rows, strict=True)),
    seconds=round(time.monotonic() - start, 1),
  )
