"""What a search ends with: its winner, and its best cells against random ones.

Shapes: A architectures, L tokens, R trainings of each.
"""

from collections.abc import Callable, Iterable
import functools

from absl import logging
import jax
import numpy as np
import rich.table

from nao_jax.journal import SearchJournal, origin_text
from nao_jax.objectives import Demand
from nao_jax.pool import Pool
from nao_jax.runs import streams
from nao_jax.spaces.space import Space
from nao_jax.strategies.uniform import sample_new

# How an evaluator's scores are named in best.json.
HOW = {"shared": "with_shared_weights", "scratch": "from_scratch"}


# Takes tokens int32 [L], how many trainings of them are known, and what to tell
# how much of how much is done; gives what each of the others measured.
Train = Callable[[np.ndarray, int, Callable[[int, int], None]], Iterable[float]]


def winner(
  space: Space, pool: Pool, to_text: Callable[[np.ndarray], str]
) -> tuple[dict, float]:
  """The best member after the last round, JSON-like, and its score."""
  round_ = pool.scores.shape[1] - 1
  row = pool.ranked(round_)[0]
  found = {
    "space": space.name,
    "tokens": pool.tokens[row].tolist(),
    "text": to_text(pool.tokens[row]),
    "origin": int(pool.origins[row]),
    "step_size": float(pool.step_sizes[row]),
  }
  return found, float(pool.scores[row, round_])


def compare(
  space: Space,
  pool: Pool,
  count: int,
  key: jax.Array,
  train: Train,
  journal: SearchJournal,
  measure: str,
  demand: Demand | None = None,
) -> dict[str, list[list[float]]]:
  """Trains the best cells and as many random ones, same budget and seeds.

  What the journal holds already is not trained again; each training is in it
  as soon as `train` gives what it measured.

  Args:
    space: the architectures.
    pool: of the search, scored for the last time.
    count: how many of each.
    key: consumed.
    train: gives what R trainings of an architecture measured.
    journal: remembers and shows.
    measure: name of what is measured, for the log.
    demand: what random cells must satisfy, too.

  Returns:
    {"searched" or "random": [count, R]}; None for a training that diverged.
  """
  last = pool.scores.shape[1] - 1
  known = set(space.keys(pool.tokens))
  groups = {
    "searched": pool.tokens[pool.ranked(last)[:count]],
    "random": sample_new(space, key, count, known, demand),
  }
  journal.progress.prefix = "from scratch:"
  done = journal.final_results()
  for name, rows in groups.items():
    for number, tokens in enumerate(rows):
      title = f"{name} cell {number + 1} of {len(rows)}"
      values = done.setdefault(title, [])
      shown = functools.partial(journal.progress, title)
      for value in map(float, train(tokens, len(values), shown)):
        logging.info("%s: %s %.4f", title, measure, value)
        values.append(value if np.isfinite(value) else None)
        journal.save_final(done)
  return {
    name: [values for title, values in done.items() if title.startswith(name)]
    for name in groups
  }


def show(
  best: dict, compared: dict, *, measure: str, digits: int, title: str
) -> None:
  """Prints the comparison as a table, and the winner.

  Args:
    best: what best.json holds.
    compared: what `compare` gave.
    measure: heading of what was measured.
    digits: of it, after the point.
    title: of the table, after what is the same for all.
  """
  table = rich.table.Table(
    title=f"from scratch, same budget and seeds{title}", title_justify="left"
  )
  for heading in ("cells", "trainings", measure, "standard deviation"):
    table.add_column(heading)
  for name, rows in compared.items():
    values = np.array(rows, np.float64).ravel()
    diverged, values = np.isnan(values).sum(), values[~np.isnan(values)]
    if diverged:
      logging.warning("%s cells: %d trainings diverged", name, diverged)
    if len(values):
      table.add_row(
        f"{len(rows)} {name}",
        str(len(values)),
        f"{values.mean():.{digits}f}",
        f"{values.std(ddof=min(1, len(values) - 1)):.{digits}f}",
      )
  console = streams.console()
  if table.rows:
    console.print(table)
  console.print(f"winner: {best['text']}", highlight=False)
  console.print(f"it came from {origin_text(best['origin'])}", highlight=False)
