"""Training from scratch after a search: finalists and the final comparison.

The scores of a search rank cells poorly: shared weights are inaccurate, and
candidates train for a short time. So the best members of the pool, the
finalists, are trained from scratch and measured on the whole validation part;
the best of them is the winner (the last step of the official code). With
`finalist_rounds`, the strategy learns from these trainings and proposes more
finalists. With `finalist.stages`, the best of them are trained again for more
epochs. The same number of random cells is trained with the same budget, and
the best cells of both groups are compared on the test part, which is not used
before.

Tasks differ only in the values of `Trainings`.

Shapes: A architectures, L tokens, R trainings of each.
"""

from typing import Any

from absl import logging
import jax
import numpy as np

from nao_jax import objectives
from nao_jax.objectives import CostConstraint
from nao_jax.pool import Pool
from nao_jax.search import finalists
from nao_jax.search.finalists import GROUPS, Cell, Trainings, train
from nao_jax.search.journal import SearchJournal
from nao_jax.search.proposer import Proposer
from nao_jax.strategies.uniform import sample_new

# Suffixes of an evaluator's scores in best.json.
HOW = {"shared": "with_shared_weights", "scratch": "from_scratch"}


def seed(of_search: int, training: int, stage: int = 0) -> int:
  """Returns a seed of trainings after a search, different from the search's.

  Args:
    of_search: seed of the search.
    training: 0 for the finalists, n for the n-th training of the comparison.
    stage: number of the stage of the finalists, from 0.
  """
  numbers = [of_search, training] + ([stage] if stage else [])
  sequence = np.random.SeedSequence(numbers)
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
    config: settings with the fields `finalists`, `finalist_share`,
      `finalist_rounds`, `finalist`, `evaluator` and `final`, see
      `ExperimentConfig`.
    key: key of the random cells; consumed.
    journal: saves states and shows progress.
    constraint: cost constraint on plain tokens, which random cells must
      satisfy, too.
    proposer: proposes more finalists; needed with `finalist_rounds`.

  Returns:
    Contents of best.json, JSON-like.
  """
  cells = _drawn(trainings, pool, config, key, constraint)
  found = {}
  if config.finalists:
    pool, found["finalists"] = finalists.run(
      trainings, pool, cells, config, journal, proposer
    )
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
    name = trainings.validation
    best[f"{name}_as_finalist"] = found["finalists"]["searched"][0][name]
  return best | found


def _cells(entries: list[dict]) -> list[Cell]:
  """Returns the cells of finalists, in their order."""
  return [
    Cell(np.int32(entry["tokens"]), entry["row"], entry["place"])
    for entry in entries
  ]


def _drawn(trainings, pool, config, key, constraint) -> dict[str, list[Cell]]:
  """Returns cells of the pool and as many random cells outside the pool."""
  space, ranked = trainings.space, pool.ranked(len(pool.counts) - 1)
  rows = _ordered(trainings, pool, ranked)[_places(pool, config)]
  wanted = 0
  if config.final.cells:
    more = config.finalist_rounds if config.finalists else 0
    wanted = len(rows) + more * config.finalists
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
  places = {row: place for place, row in enumerate(ranked.tolist(), 1)}
  return {
    "searched": [Cell(tokens[row], row, places[row]) for row in rows.tolist()],
    "random": [Cell(tokens) for tokens in random],
  }


def _ordered(trainings: Trainings, pool: Pool, rows: np.ndarray) -> np.ndarray:
  """Sorts rows with scores of the last round by merit, best first."""
  tokens = trainings.space.to_plain(pool.tokens[rows])
  scores = pool.scores_of(len(pool.counts) - 1)[rows]
  merits = trainings.merits(tokens, scores)
  return rows[np.argsort(-merits, kind="stable")]


def _places(pool: Pool, config: Any) -> np.ndarray:
  """Returns ranks of the cells that train first, int [n] from 0."""
  count = max(config.finalists or config.final.cells, 1)
  scored = int(pool.counts[-1])
  share = config.finalist_share if config.finalists else 0.0
  last = max(round(share * scored), min(count, scored)) - 1
  return np.unique(np.linspace(0, last, count).round().astype(int))


def _compared(
  trainings: Trainings,
  cells: dict[str, list[Cell]],
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
    trials = train(
      journal, f"comparison_{number}", trainings.compared(number), every, "cell"
    )
    for own, trial in zip(values, trials, strict=True):
      own.append(trainings.value(trial))
    first = len(cells["searched"])
    grouped = {"searched": values[:first], "random": values[first:]}
    journal.save_final(found | {name: grouped})
  return {name: grouped if every else {group: [] for group in GROUPS}}


def _winner(trainings, pool: Pool, row: int, config, constraint) -> dict:
  """Returns the entries of best.json about the winner, a row of the pool."""
  scores = pool.scores_of(len(pool.counts) - 1)
  scored = ~np.isnan(scores)
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
    name = f"{trainings.validation}_{HOW[config.evaluator]}"
    found[name] = measure.value(float(scores[row]))
  if constraint is None:
    return found
  costs = objectives.outcome(
    constraint, tokens[scored], scores[scored], plain.text
  )
  costs["cost"]["value"] = float(constraint.costs(tokens[row][None])[0])
  return found | costs
