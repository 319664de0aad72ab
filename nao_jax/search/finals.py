"""Training from scratch after a search: finalists and the final comparison.

The scores of a search rank cells poorly: shared weights are inaccurate, and
candidates train for a short time. So the best members of the pool by score, the
finalists, are trained from scratch and measured on the whole validation part;
the best of them is the winner (the last step of the official code). With
`finalist_rounds`, the strategy learns from these trainings and proposes more
finalists. The same number of random cells is trained with the same budget, and
the best cells of both groups are compared on the test part, which is not used
before.

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
from nao_jax.runs.trials import Trial
from nao_jax.search.journal import SearchJournal
from nao_jax.search.proposer import Proposer
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
    space: the search space, whose tokens the pool has; trainings and results
      have those of `space.plain`.
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
  proposer: Proposer | None = None,
) -> dict:
  """Trains finalists, names the winner and makes the final comparison.

  Interrupted trainings resume from the journal.

  Args:
    trainings: evaluators and metric of the task.
    pool: pool of the search after its last scores.
    config: settings with the fields `finalists`, `finalist_rounds`,
      `evaluator` and `final`, which has `cells` and `repeats`.
    key: key of the random cells; consumed.
    journal: saves states and shows progress.
    constraint: cost constraint on plain tokens, which random cells must
      satisfy, too.
    proposer: proposes more finalists; needed with `finalist_rounds`.

  Returns:
    Contents of best.json, JSON-like.
  """
  cells = _drawn(trainings.space, pool, config, key, constraint)
  found = {}
  if config.finalists:
    pool, trained = _train_finalists(
      trainings, pool, cells, config, journal, proposer
    )
    found["finalists"] = _described(trainings, trained, journal)
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
    place: rank in the pool by the last scores, from 1; None for a random cell
      and for one that was proposed later.
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
  wanted = 0
  if config.final.cells:
    more = config.finalist_rounds if config.finalists else 0
    wanted = len(ranked) + more * config.finalists
  tokens, plain = space.to_plain(pool.tokens), space.plain
  known = set(plain.keys(tokens))
  random = sample_new(plain, key, wanted, known, constraint)
  if len(random) < wanted:
    logging.warning(
      "the space has only %d cells that are not in the pool; %d random ones "
      "were to be compared",
      len(random),
      wanted,
    )
  return {
    "searched": [
      _Cell(tokens[row], row, place) for place, row in enumerate(ranked, 1)
    ],
    "random": [_Cell(tokens) for tokens in random],
  }


def _train_finalists(
  trainings: Trainings,
  pool: Pool,
  cells: dict[str, list[_Cell]],
  config: Any,
  journal: SearchJournal,
  proposer: Proposer | None,
) -> tuple[Pool, list[tuple[_Cell, Trial]]]:
  """Trains finalists and those proposed from their scores, round by round.

  A resumed run makes the proposals again and finds their trials.

  Returns:
    The pool with these proposals, and the trained cells, searched ones first.
  """
  every = [cell for name in GROUPS for cell in cells[name]]
  journal.progress.prefix = "finalists:"
  trials = _train(
    journal, "finalists", trainings.finalists(), every, "finalist"
  )
  trained = [*zip(every, trials, strict=True)]
  rounds = pool.scores.shape[1] - 1
  for round_ in range(rounds + 1, rounds + config.finalist_rounds + 1):
    scores = _sound(trained)
    if not scores:
      logging.warning("all finalists diverged; no more are proposed")
      break
    journal.progress.prefix = f"proposals from finalists, round {round_}:"
    known = len(pool.tokens)
    pool = proposer.extended(
      pool, scores, round_, config.finalists, journal.progress
    )
    journal.keep_pool(pool)
    tokens = trainings.space.to_plain(pool.tokens[known:])
    new = [_Cell(row, at) for at, row in enumerate(tokens, known)]
    journal.progress.prefix = f"finalists, round {round_}:"
    trials = _train(
      journal, f"finalists_{round_}", trainings.finalists(), new, "finalist"
    )
    trained += zip(new, trials, strict=True)
  return pool, trained


def _sound(trained: list[tuple[_Cell, Trial]]) -> dict[int, float]:
  """Returns {row: score} of searched cells; diverged ones rank last."""
  scores = {
    cell.row: trial.last for cell, trial in trained if cell.row is not None
  }
  known = [score for score in scores.values() if score is not None]
  return known and {
    row: min(known) if score is None else score for row, score in scores.items()
  }


def _described(
  trainings: Trainings,
  trained: list[tuple[_Cell, Trial]],
  journal: SearchJournal,
) -> dict[str, list[dict]]:
  """Reports the finalists; returns each group, best first, JSON-like."""
  # Diverged cells rank last; ties keep the order of the search.
  scores = [-np.inf if t.last is None else t.last for _, t in trained]
  value, name = trainings.measure.value, _validation(trainings)
  entries = {group: [] for group in GROUPS}
  for rank, at in enumerate(np.argsort(-np.array(scores), kind="stable"), 1):
    cell, trial = trained[at]
    entries["random" if cell.row is None else "searched"].append(
      {
        "rank": rank,
        "place": cell.place,
        "row": cell.row,
        "tokens": cell.tokens.tolist(),
        "text": trainings.space.plain.text(cell.tokens),
        name: None if trial.last is None else value(trial.last),
        "curve": [value(x) for x in trial.curve if np.isfinite(x)],
      }
    )
  for group in GROUPS:
    own = [
      score
      for score, (cell, _) in zip(scores, trained, strict=True)
      if (cell.row is None) == (group == "random")
    ]
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
  plain, measure = trainings.space.plain, trainings.measure
  tokens = trainings.space.to_plain(pool.tokens)
  found = {
    "space": plain.name,
    "tokens": tokens[row].tolist(),
    "text": plain.text(tokens[row]),
    "origin": int(pool.origins[row]),
    "step_size": float(pool.step_sizes[row]),
  }
  if scored[row]:
    name = f"{_validation(trainings)}_{HOW[config.evaluator]}"
    found[name] = measure.value(float(pool.scores[row, last]))
  if constraint is None:
    return found
  costs = objectives.outcome(
    constraint, tokens[scored], pool.scores[scored, last], plain.text
  )
  costs["cost"]["value"] = float(constraint.costs(tokens[row][None])[0])
  return found | costs


def _validation(trainings: Trainings) -> str:
  return f"validation_{trainings.measure.name}"
