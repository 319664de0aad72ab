"""Agreement of the predictions of `nao_plus` with true scores.

python -m benchmarks.predictor --table=FILE --json=FILE

The ensemble is fitted to random functions of a table in the form of
NAS-Bench-201. It then ranks all others: each function once, and all cells.
"""

from absl import flags
import jax
import numpy as np

from benchmarks import results
from experiments import driver
from nao_jax.controller.metrics import kendall_tau
from nao_jax.data import tables
from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table
from nao_jax.runs import streams
from nao_jax.spaces.known import Known
from nao_jax.strategies import Observations, nao_plus
from nao_jax.strategies.uniform import sample_new
from nao_jax.studies import ranking

_TABLE = flags.DEFINE_string("table", None, "The table.", required=True)
_DATASET = flags.DEFINE_string("dataset", "cifar10", "Its data set.")
_SIGNAL = flags.DEFINE_string("signal", "test200", "Its column.")
_LABELLED = flags.DEFINE_list("labelled", "78,156,469", "Functions to fit.")
_SEEDS = flags.DEFINE_integer("seeds", 10, "Fits of each.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File of results.", required=True)


def main(_):
  """Fits the ensembles and shows how they rank."""
  column = tables.load(_TABLE.value, _DATASET.value, _SIGNAL.value)
  if isinstance(column.space, Known):
    raise UserError("--table: give one in the form of NAS-Bench-201")
  table = Table(column.space, column.scores)
  rows = []
  for labelled in map(int, _LABELLED.value):
    found = [_kendall(table, labelled, seed) for seed in range(_SEEDS.value)]
    functions, sequences = zip(*found, strict=True)
    rows.append(
      {
        "labelled": labelled,
        "Kendall, functions": ranking.shown(functions),
        "Kendall, all cells": ranking.shown(sequences),
      }
    )
    streams.show(rows[-1:])
  results.write(
    _JSON.value,
    results.table(
      f"Predictions of nao_plus: {column.title}",
      "benchmarks.predictor",
      rows,
      f"Of all that were not labelled; mean of {_SEEDS.value} seeds (half of "
      "the 95 % interval).",
    ),
  )


def _kendall(table: Table, labelled: int, seed: int) -> tuple[float, float]:
  """Returns Kendall's tau over other functions, and over all other cells."""
  space, functions = table.space, table.space.functions
  keys = jax.random.split(jax.random.key(seed), 3)
  tokens = sample_new(space, keys[0], labelled, set())
  known = set(space.keys(tokens))
  observed = Observations(tokens, table.lookup(tokens), known)
  strategy = nao_plus.small(space)
  state, _ = strategy.tell(
    strategy.init(keys[1]), keys[2], observed, _nothing, _nothing
  )
  every = functions.tokens(np.arange(len(functions.of_sequence)))
  others = ~np.isin(functions.of_sequence, functions.number(tokens))
  predicted = strategy.judged(state.params, every).mean(1)
  truth = table.scores[functions.of_sequence]
  first = np.zeros(len(every), bool)
  first[functions.representative] = True
  return tuple(
    kendall_tau(predicted[some], truth[some])
    for some in (others & first, others)
  )


def _nothing(*_):
  """Shows and keeps nothing."""


if __name__ == "__main__":
  driver.run(main)
