"""Finalists: the best cells of a search, trained from scratch in stages.

Shapes: L tokens.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import heapq
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from nao_jax.evaluators.scratch import FromScratch
from nao_jax.metrics import Measure
from nao_jax.pool import Pool
from nao_jax.runs.trials import Trial
from nao_jax.search.config import FinalistConfig
from nao_jax.search.journal import SearchJournal
from nao_jax.search.proposer import Proposer
from nao_jax.spaces.space import Space
from nao_jax.strategies import proxies
from nao_jax.strategies.proxies import Proxy

GROUPS = ("searched", "random")

Opened = contextlib.AbstractContextManager[FromScratch]


@dataclasses.dataclass(frozen=True)
class Trainings:
  """Evaluators and metric with which a task trains cells from scratch.

  Attributes:
    space: the search space, whose tokens the pool has; trainings and results
      have those of `space.plain`.
    measure: the metric.
    finalists: opens the evaluator that trains finalists in a stage, from 0, and
      measures them on the whole validation part.
    compared: opens the evaluator that trains the cells of the comparison for
      the n-th time, n from 1, and measures them on the test part; all cells
      share their random numbers, which differ for each n.
    signals: signals by which cells rank beside their scores, here and in the
      choice of the first finalists.
  """

  space: Space
  measure: Measure
  finalists: Callable[[int], Opened]
  compared: Callable[[int], Opened]
  signals: tuple[Proxy, ...] = ()

  @property
  def validation(self) -> str:
    """Name of the metric on the validation part."""
    return f"validation_{self.measure.name}"

  def value(self, trial: Trial) -> float | None:
    """Returns the metric after the last epoch; None if training diverged."""
    return None if trial.last is None else self.measure.value(trial.last)

  def merits(self, tokens: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the merits of architectures [A, L], by which they rank, [A].

    They are the scores [A]; with signals, means of the ranks by score and by
    each signal. Tokens are those of `space.plain`.
    """
    if not self.signals:
      return scores
    return proxies.mean_ranks(self.space.plain, tokens, scores, self.signals)


class Cell(NamedTuple):
  """Cell to train.

  Attributes:
    tokens: int32 [L].
    row: row of the pool; None for a random cell.
    place: rank in the pool by the last scores, from 1; None for a random cell
      and for one that was proposed later.
  """

  tokens: np.ndarray
  row: int | None = None
  place: int | None = None


class _Trained(NamedTuple):
  """Trained cell.

  Attributes:
    cell: the cell.
    trials: its trainings, one of each stage that it reached.
  """

  cell: Cell
  trials: list[Trial]

  @property
  def group(self) -> str:
    return "random" if self.cell.row is None else "searched"

  @property
  def sound(self) -> list[float]:
    """Scores of the trainings that did not diverge."""
    return [trial.last for trial in self.trials if trial.last is not None]


def run(
  trainings: Trainings,
  pool: Pool,
  cells: dict[str, list[Cell]],
  config: Any,
  journal: SearchJournal,
  proposer: Proposer | None,
) -> tuple[Pool, dict[str, list[dict]]]:
  """Trains finalists and those proposed from their scores, then the best again.

  A resumed run makes the proposals again and finds their trials.

  Args:
    trainings: evaluators and metric of the task.
    pool: pool of the search.
    cells: the first finalists of each group.
    config: see `finals.run`.
    journal: saves states and shows progress.
    proposer: proposes more finalists; needed with `finalist_rounds`.

  Returns:
    The pool with these proposals, and the finalists of each group, best first,
    JSON-like.
  """
  every = [cell for name in GROUPS for cell in cells[name]]
  journal.progress.prefix = "finalists:"
  trained = _first_stage(trainings, every, "finalists", journal)
  rounds = len(pool.counts) - 1
  for round_ in range(rounds + 1, rounds + config.finalist_rounds + 1):
    scores = _observed(trainings, trained)
    if not scores:
      logging.warning("all finalists diverged; no more are proposed")
      break
    journal.progress.prefix = f"proposals from finalists, round {round_}:"
    pool, rows = proposer.propose(
      pool, scores, round_, config.finalists, journal.progress
    )
    if not rows:
      break  # The space is used up.
    journal.keep_pool(pool)
    tokens = trainings.space.to_plain(pool.tokens[rows])
    new = [Cell(*cell) for cell in zip(tokens, rows, strict=True)]
    journal.progress.prefix = f"finalists, round {round_}:"
    trained += _first_stage(trainings, new, f"finalists_{round_}", journal)
  trained = _as_many(trainings.space.plain, trained)
  _promote(trainings, trained, config.finalist.later, journal)
  return pool, _described(trainings, trained, config.finalist, journal)


def _as_many(space: Space, trained: list[_Trained]) -> list[_Trained]:
  """Drops random cells that were proposed, and those beyond the searched ones.

  The search may end before its last round.
  """
  searched = [one for one in trained if one.group == "searched"]
  names = {key for one in searched for key in space.keys(one.cell.tokens[None])}
  random = [
    one
    for one in trained
    if one.group == "random"
    and names.isdisjoint(space.keys(one.cell.tokens[None]))
  ]
  return searched + random[: len(searched)]


def _first_stage(trainings, cells, stage, journal) -> list[_Trained]:
  trials = train(journal, stage, trainings.finalists(0), cells, "finalist")
  pairs = zip(cells, trials, strict=True)
  return [_Trained(cell, [trial]) for cell, trial in pairs]


def _promote(
  trainings: Trainings,
  trained: list[_Trained],
  stages: list[tuple[int, int]],
  journal: SearchJournal,
) -> None:
  """Trains the best of each group again; adds the trials to `trained`."""
  for stage, (count, epochs) in enumerate(stages, 1):
    best = _best_first(trainings, trained)
    sound = [one for one in best if len(one.sound) == stage]
    chosen = []
    for group in GROUPS:
      chosen += [one for one in sound if one.group == group][:count]
    if not chosen:
      return
    journal.progress.prefix = f"finalists, {epochs} epochs:"
    trials = train(
      journal,
      f"finalists_stage_{stage + 1}",
      trainings.finalists(stage),
      [one.cell for one in chosen],
      "finalist",
    )
    for one, trial in zip(chosen, trials, strict=True):
      one.trials.append(trial)


def _best_first(
  trainings: Trainings, trained: list[_Trained]
) -> list[_Trained]:
  """Sorts by the last stage in which a cell did not diverge, then by merit.

  Merits of a group do not depend on the other one, so that random cells decide
  nothing; the two orders are merged by score. Ties keep the order of the
  search.
  """
  groups = [
    _ordered(trainings, [one for one in trained if one.group == name])
    for name in GROUPS
  ]
  return list(
    heapq.merge(
      *groups,
      key=lambda one: (-len(one.sound), -one.sound[-1] if one.sound else 0),
    )
  )


def _ordered(trainings: Trainings, group: list[_Trained]) -> list[_Trained]:
  """Sorts the cells of a group; see `_best_first`."""
  found = []
  for stage in sorted({len(one.sound) for one in group}, reverse=True):
    own = [one for one in group if len(one.sound) == stage]
    if stage:
      order = np.argsort(-_merits(trainings, own), kind="stable")
      own = [own[place] for place in order]
    found += own
  return found


def _merits(trainings: Trainings, trained: list[_Trained]) -> np.ndarray:
  """Returns the merits of cells by the last of their sound scores."""
  tokens = np.array([one.cell.tokens for one in trained])
  return trainings.merits(tokens, np.array([one.sound[-1] for one in trained]))


def _observed(
  trainings: Trainings, trained: list[_Trained]
) -> dict[int, float]:
  """Returns {row: merit} of searched cells; diverged ones rank last."""
  searched = [one for one in trained if one.group == "searched"]
  sound = [one for one in searched if one.sound]
  if not sound:
    return {}
  merits = _merits(trainings, sound)
  found = {one.cell.row: merits.min() for one in searched}
  return found | {one.cell.row: x for one, x in zip(sound, merits, strict=True)}


def _described(
  trainings: Trainings,
  trained: list[_Trained],
  config: FinalistConfig,
  journal: SearchJournal,
) -> dict[str, list[dict]]:
  """Reports the finalists; returns each group, best first, JSON-like."""
  name = trainings.validation
  epochs = [config.epochs, *(epochs for _, epochs in config.later)]
  entries = {group: [] for group in GROUPS}
  for rank, one in enumerate(_best_first(trainings, trained), 1):
    cell, curve = one.cell, one.trials[-1].curve
    values = [trainings.value(trial) for trial in one.trials]
    stages = [list(pair) for pair in zip(epochs, values, strict=False)]
    entries[one.group].append(
      {
        "rank": rank,
        "place": cell.place,
        "row": cell.row,
        "tokens": cell.tokens.tolist(),
        "text": trainings.space.plain.text(cell.tokens),
        # Of the last stage in which it did not diverge, as its rank is.
        name: next((x for x in reversed(values) if x is not None), None),
        "curve": [trainings.measure.value(x) for x in curve if np.isfinite(x)],
      }
      | ({"stages": stages} if config.later else {})
    )
  for group in GROUPS:
    own = [one for one in trained if one.group == group]
    _report(trainings, group, own, entries[group], journal)
  return entries


def _report(trainings, group, own, entries, journal) -> None:
  """Reports each stage of a group; loggers get the last curves, too."""
  curves = {
    f"{trainings.validation}_of_finalists/{group}_{number}": entry["curve"]
    for number, entry in enumerate(entries, 1)
  }
  for stage in range(max((len(one.trials) for one in own), default=0)):
    last = [one.trials[stage].last for one in own if len(one.trials) > stage]
    if sound := [score for score in last if score is not None]:
      row = {"best": max(sound), "mean": float(np.mean(sound))}
      which = f", stage {stage + 1}" if stage else ""
      journal.report_stage(
        f"{group} finalists{which}", row, {} if stage else curves
      )


def train(
  journal: SearchJournal,
  stage: str,
  opened: Opened,
  cells: list[Cell],
  what: str,
) -> list[Trial]:
  """Trains cells from the last saved state on; `what` is a noun for one."""
  tokens = np.array([cell.tokens for cell in cells], np.int32)
  with opened as evaluator:
    state = journal.begin_stage(stage, evaluator.init(jax.random.key(0)))
    _, trials = evaluator.train(
      state, tokens, what, journal.progress, journal.keep_training
    )
  journal.end_stage()
  return trials
