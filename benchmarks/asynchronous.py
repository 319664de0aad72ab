"""Simulated utilisation of many workers with and without `--asynchronous`.

python -m benchmarks.asynchronous [--workers=8,64,1000] [--json=FILE]

The search, the evaluator from scratch and the dispatch of a cluster's trials
are those of a real search; only the workers and the clock are simulated. A
training takes a random time, log-normal and longer by a factor for a few
stragglers; its unit is the median. Fitting the controller takes a fixed time,
in which the workers continue with the remaining trials.
"""

import dataclasses
import time

from absl import flags
import numpy as np

from benchmarks import results
from benchmarks.simulated import Times, simulate
from experiments import driver
from nao_jax.runs import streams
from nao_jax.runs.files import check_writable
from nao_jax.search.config import SearchConfig

_WORKERS = flags.DEFINE_list("workers", ["8", "64", "1000"], "Workers.")
_MAX_PENDING = flags.DEFINE_list(
  "max_pending", ["0.5", "1.0", "1.5"], "Values of --max_pending of a search."
)
_POOL = flags.DEFINE_float("pool", 3.0, "First pool, in workers.")
_NEW = flags.DEFINE_float("new", 1.5, "Proposals a round, in workers.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of proposals.")
_SPREAD = flags.DEFINE_float("spread", 0.5, "Sigma of the log-normal times.")
_STRAGGLERS = flags.DEFINE_float("stragglers", 0.05, "Share of stragglers.")
_FACTOR = flags.DEFINE_float("factor", 5.0, "Factor of the stragglers' times.")
_FIT = flags.DEFINE_float("fit", 0.1, "Time of a fit, in median trainings.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Searches of each kind, seeds 0 ..")
_JSON = flags.DEFINE_string("json", None, "File for the numbers.")


def measure(
  workers: int, max_pending: float | None, times: Times, seeds: int
) -> dict:
  """Returns utilisation and duration of searches.

  Args:
    workers: number of workers.
    max_pending: the setting of a search; None for synchronous searches.
    times: durations of trainings and fits.
    seeds: number of searches, with the seeds 0, 1 ..
  """
  config = SearchConfig(
    pool_size=round(_POOL.value * workers),
    rounds=_ROUNDS.value,
    new_per_round=round(_NEW.value * workers),
    extend=True,
  )
  if max_pending is not None:
    config = dataclasses.replace(
      config, asynchronous=True, max_pending=max_pending
    )
  ended = [simulate(workers, config, times, seed)[1] for seed in range(seeds)]
  used = [end.busy / end.clock / workers for end in ended]
  return {
    "workers": workers,
    "max_pending": max_pending,
    "utilisation": float(np.mean(used)),
    "deviation": float(np.std(used, ddof=1)) if seeds > 1 else 0.0,
    "before_last": float(np.mean([end.before_last for end in ended])),
    "duration": float(np.mean([end.clock for end in ended])),
  }


def main(_):
  """Simulates all searches and prints a table."""
  if _JSON.value:
    check_writable(_JSON.value, "json")
  times = Times(_SPREAD.value, _STRAGGLERS.value, _FACTOR.value, _FIT.value)
  rows, shown = [], []
  for workers in map(int, _WORKERS.value):
    for max_pending in (None, *map(float, _MAX_PENDING.value)):
      start = time.process_time()
      row = measure(workers, max_pending, times, _SEEDS.value)
      rows.append(row)
      shown.append(
        {
          "workers": workers,
          "most pending": (
            "synchronous" if max_pending is None else f"{max_pending:g}"
          ),
          "utilisation": f"{row['utilisation']:.3f} ({row['deviation']:.3f})",
          "before the last round": f"{row['before_last']:.3f}",
          "duration": f"{row['duration']:.2f}",
          "CPU seconds": f"{time.process_time() - start:.0f}",
        }
      )
  title = f"{_SEEDS.value} searches each; {times}"
  streams.show(shown, title, wide=140)
  if _JSON.value:
    content = {"times": dataclasses.asdict(times), "rows": rows}
    results.write(_JSON.value, content)


if __name__ == "__main__":
  driver.run(main)
