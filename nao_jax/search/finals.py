"""Training from scratch after a search: finalists and the final comparison.

The scores of a search rank cells poorly: shared weights are inaccurate, and
candidates train for a short time. So the best members of the pool by score, the
finalists, are trained from scratch and measured on the whole validation part;
the best of them is the winner (the last step of the official code). The same
number of random cells is trained with the same budget, and the best cells of
both groups are compared on the test part, which is not used before.

Tasks differ only in the values of `Trainings`.

Shapes: A architectures, L tokens, R trainings of each.
"""

from collections.abc import Callable
import contextlib
import dataclasses
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from nao_jax import objectives
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.metrics import Measure
from nao_jax.objectives import CostConstraint
from nao_jax.pool import Pool
from nao_jax.runs import streams
from nao_jax.runs.trials import Trial
from nao_jax.search.journal import SearchJournal, origin_text
from nao_jax.spaces.space import Space
from nao_jax.strategies.uniform import sample_new

# Suffixes of an evaluator's scores in best.json.
HOW = {"shared": "with_shared_weights", "scratch": "from_scratch"}
GROUPS = ("searched", "random")

Opened = contextlib.AbstractContextManager[FromScratch]


@dataclasses.dataclass(frozen=True)
class Trainings:
  """Evaluators and metric with which a task trains cells from scratch.

  Attributes:
    space: the search space.
    measure: the metric.
    finalists: opens the evaluator that trains finalists and measures them on
      the whole validation part.
    compared: opens the evaluator that trains the cells of the comparison for
      the n-th time, n from 1, and measures them on the test part; all cells
      share their random numbers, which differ for each n.
  """

  space: Space
  measure: Measure
  finalists: Callable[[], Opened]
  compared: Callable[[int], Opened]


def seed(of_search: int, training: int) -> int:
  """Returns a seed of trainings after a search, different from the search's.

  Args:
    of_search: seed of the search.
    training: 0 for the finalists, n for the n-th training of the comparison.
  """
  sequence = np.random.SeedSequence([of_search, training])
  return int(sequence.generate_state(1)[0])


def run(
  trainings: Trainings,
  pool: Pool,
  config: Any,
  key: jax.Array,
  journal: SearchJournal,
  constraint: CostConstraint | None = None,
) -> dict:
  """Trains finalists, names the winner and makes the final comparison.

  Interrupted trainings resume from the journal.

  Args:
    trainings: evaluators and metric of the task.
    pool: pool of the search after its last scores, in the tokens of
      `trainings.space`.
    config: settings with the fields `finalists`, `evaluator` and `final`, which
      has `cells` and `repeats`.
    key: key of the random cells; consumed.
    journal: saves states and shows progress.
    constraint: cost constraint that random cells must satisfy, too.

  Returns:
    Contents of best.json, JSON-like.
  """
  cells = _drawn(trainings.space, pool, config, key, constraint)
  found = {}
  if config.finalists:
    found["finalists"] = _trained_finalists(trainings, cells, journal)
    journal.save_final(found)
    cells = {name: _cells(rows) for name, rows in found["finalists"].items()}
  compared = {name: cells[name][: config.final.cells] for name in GROUPS}
  found["compared"] = {
    name: [cell.tokens.tolist() for cell in rows]
    for name, rows in compared.items()
  }
  found |= _compared(trainings, compared, config.final, journal, found)
  best = _winner(trainings, pool, cells["searched"][0].row, config, constraint)
  if config.finalists:
    name = _validation(trainings)
    best[f"{name}_as_finalist"] = found["finalists"]["searched"][0][name]
  return best | found


class _Cell(NamedTuple):
  """Cell to train.

  Attributes:
    tokens: int32 [L].
    row: row of the pool; None for a random cell.
    place: rank in the pool by the last scores, from 1; None for a random cell.
  """

  tokens: np.ndarray
  row: int | None = None
  place: int | None = None


def _cells(entries: list[dict]) -> list[_Cell]:
  """Returns the cells of finalists, in their order."""
  return [
    _Cell(np.int32(entry["tokens"]), entry["row"], entry["place"])
    for entry in entries
  ]


def _drawn(space, pool, config, key, constraint) -> dict[str, list[_Cell]]:
  """Returns the pool's best cells and as many random cells outside the pool."""
  count = config.finalists or config.final.cells
  ranked = pool.ranked(pool.scores.shape[1] - 1)[: max(count, 1)].tolist()
  wanted = len(ranked) if config.final.cells else 0
  known = set(space.keys(pool.tokens))
  random = sample_new(space, key, wanted, known, constraint)
  if len(random) < wanted:
    logging.warning(
      "the space has only %d cells that are not in the pool; %d random ones "
      "were to be compared",
      len(random),
      wanted,
    )
  return {
    "searched": [
      _Cell(pool.tokens[row], row, place) for place, row in enumerate(ranked, 1)
    ],
    "random": [_Cell(tokens) for tokens in random],
  }


def _trained_finalists(
  trainings: Trainings, cells: dict[str, list[_Cell]], journal: SearchJournal
) -> dict[str, list[dict]]:
  """Trains finalists; returns those of each group, best first, JSON-like."""
  every = [cell for name in GROUPS for cell in cells[name]]
  journal.progress.prefix = "finalists:"
  trials = _train(
    journal, "finalists", trainings.finalists(), every, "finalist"
  )
  # Diverged cells rank last; ties keep the order of the search.
  scores = [-np.inf if t.last is None else t.last for t in trials]
  value, name = trainings.measure.value, _validation(trainings)
  entries = {group: [] for group in GROUPS}
  for rank, at in enumerate(np.argsort(-np.array(scores), kind="stable"), 1):
    cell, trial = every[at], trials[at]
    entries["random" if cell.row is None else "searched"].append(
      {
        "rank": rank,
        "place": cell.place,
        "row": cell.row,
        "tokens": cell.tokens.tolist(),
        "text": trainings.space.text(cell.tokens),
        name: None if trial.last is None else value(trial.last),
        "curve": [value(x) for x in trial.curve if np.isfinite(x)],
      }
    )
  first = len(cells["searched"])
  for group, own in (("searched", scores[:first]), ("random", scores[first:])):
    if sound := [score for score in own if score > -np.inf]:
      row = {"best": max(sound), "mean": float(np.mean(sound))}
      curves = {
        f"{name}_of_finalists/{group}_{number}": entry["curve"]
        for number, entry in enumerate(entries[group], 1)
      }
      journal.report_stage(f"{group} finalists", row, curves)
  return entries


def _compared(
  trainings: Trainings,
  cells: dict[str, list[_Cell]],
  final: Any,
  journal: SearchJournal,
  found: dict,
) -> dict[str, dict[str, list[list[float | None]]]]:
  """Trains the cells of the comparison R times.

  Returns:
    {metric: {group: values [cells, R]}}, None for a diverged training.
  """
  every = [cell for name in GROUPS for cell in cells[name]]
  name = f"test_{trainings.measure.name}"
  values = [[] for _ in every]
  for number in range(1, final.repeats + 1) if every else ():
    journal.progress.prefix = (
      f"comparison, training {number} of {final.repeats}:"
    )
    trials = _train(
      journal,
      f"comparison_{number}",
      trainings.compared(number),
      every,
      "cell",
    )
    for own, trial in zip(values, trials, strict=True):
      own.append(
        None if trial.last is None else trainings.measure.value(trial.last)
      )
    first = len(cells["searched"])
    grouped = {"searched": values[:first], "random": values[first:]}
    journal.save_final(found | {name: grouped})
  return {name: grouped if every else {group: [] for group in GROUPS}}


def _train(
  journal: SearchJournal,
  stage: str,
  opened: Opened,
  cells: list[_Cell],
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


def _winner(trainings, pool: Pool, row: int, config, constraint) -> dict:
  """Returns the entries of best.json about the winner, a row of the pool."""
  last = pool.scores.shape[1] - 1
  scored = ~np.isnan(pool.scores[:, last])
  score, tokens = float(pool.scores[row, last]), pool.tokens[row]
  measure = trainings.measure
  found = {
    "space": trainings.space.name,
    "tokens": tokens.tolist(),
    "text": trainings.space.text(tokens),
    "origin": int(pool.origins[row]),
    "step_size": float(pool.step_sizes[row]),
    f"{_validation(trainings)}_{HOW[config.evaluator]}": measure.value(score),
  }
  if constraint is None:
    return found
  costs = objectives.outcome(
    constraint,
    pool.tokens[scored],
    pool.scores[scored, last],
    trainings.space.text,
  )
  costs["cost"]["value"] = float(constraint.costs(tokens[None])[0])
  return found | costs


def _validation(trainings: Trainings) -> str:
  return f"validation_{trainings.measure.name}"


def show(best: dict, measure: Measure) -> None:
  """Prints the finalists, the comparison and the winner.

  Args:
    best: contents of best.json.
    measure: the metric.
  """
  streams.show(
    _finalists_rows(best.get("finalists") or {}, measure),
    "finalists: from scratch, same budget and seed",
  )
  streams.show(
    _comparison_rows(best[f"test_{measure.name}"], measure),
    "comparison: from scratch, same budget and seeds",
  )
  console = streams.console()
  console.print(f"winner: {best['text']}", highlight=False)
  console.print(f"it came from {origin_text(best['origin'])}", highlight=False)


def _finalists_rows(finalists: dict, measure: Measure) -> list[dict]:
  """Describes the finalists by rank."""
  name = f"validation_{measure.name}"
  entries = [(group, own) for group in finalists for own in finalists[group]]
  return [
    {
      "rank": entry["rank"],
      "cell": group,
      "place in the search": "" if entry["place"] is None else entry["place"],
      name.replace("_", " "): (
        "diverged"
        if entry[name] is None
        else f"{entry[name]:.{measure.digits}f}"
      ),
    }
    for group, entry in sorted(entries, key=lambda pair: pair[1]["rank"])
  ]


def _comparison_rows(compared: dict, measure: Measure) -> list[dict]:
  """Describes the groups of the comparison that have a sound training."""
  found = []
  for group, rows in compared.items():
    values = np.array(rows, np.float64).ravel()
    diverged, values = np.isnan(values).sum(), values[~np.isnan(values)]
    if diverged:
      logging.warning("%s cells: %d trainings diverged", group, diverged)
    if len(values):
      deviation = values.std(ddof=min(1, len(values) - 1))
      found.append(
        {
          "cells": f"{len(rows)} {group}",
          "trainings": len(values),
          f"test {measure.name}": f"{values.mean():.{measure.digits}f}",
          "standard deviation": f"{deviation:.{measure.digits}f}",
        }
      )
  return found
