"""Growth of the time and memory of a table with its number of rows.

python -m benchmarks.table_rows --json=FILE

Each part runs in a process of its own: reading a table of slots from a .csv and
from an .npz file, and a search among its rows by `nao_plus` and by evolution.
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags
import numpy as np

from benchmarks import results
from benchmarks.counting import exponent
from experiments import driver
from nao_jax.data import tables
from nao_jax.runs import streams
from nao_jax.studies import comparison

_ROWS = flags.DEFINE_list(
  "rows", ["62500", "125000", "250000", "500000"], "Numbers of rows."
)
_JSON = flags.DEFINE_string("json", None, "File of results.")
_PART = flags.DEFINE_list("part", None, "A part and its table; not by hand.")

# 8 slots of 6 choices, 1,679,616 architectures.
_SLOTS, _CHOICES, _BUDGET = 8, 6, 30


def _write(folder: pathlib.Path, count: int) -> None:
  """Writes a table of `count` random rows in both forms."""
  names = [f"slot {number}" for number in range(_SLOTS)]
  header = {
    "space": "random",
    "slots": {name: list(range(_CHOICES)) for name in names},
    "columns": {"score": {}},
  }
  rng = np.random.default_rng(0)
  every = rng.choice(_CHOICES**_SLOTS, count, replace=False)
  slots = np.stack(np.unravel_index(every, (_CHOICES,) * _SLOTS), axis=1)
  score = slots.sum(1) + rng.random(count)
  np.savez(
    folder / "table.npz", header=json.dumps(header), slots=slots, score=score
  )
  with (folder / "table.csv").open("w", newline="") as file:
    file.write(f"# {json.dumps(header)}\n")
    writer = csv.writer(file)
    writer.writerow([*names, "score"])
    writer.writerows(
      [*row, one] for row, one in zip(slots.tolist(), score, strict=True)
    )


def _measure(part: str, table: str) -> None:
  """Prints the CPU seconds and the megabytes that a part adds, in JSON."""
  before, start = _peak(), time.process_time()
  if part == "read":
    tables.load(table, "", "score")
  else:
    config = comparison.CompareConfig(
      table=table, signal="score", report="score", budget=_BUDGET, trials=1
    )
    comparison.run(config, [part], threads=1)
  print(json.dumps([time.process_time() - start, _peak() - before]))


def _peak() -> float:
  """Returns the largest memory of this process so far, in megabytes."""
  # `getrusage` would start at that of the parent.
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return int(next(x for x in lines if x.startswith("VmHWM:")).split()[1]) / 1024


def main(_):
  """Measures all parts and shows a table."""
  if _PART.value:
    _measure(*_PART.value)
    return
  sizes = [int(rows) for rows in _ROWS.value]
  parts = {
    "read .csv": ("read", "table.csv"),
    "read .npz": ("read", "table.npz"),
    f"evolution, {_BUDGET} evaluations": ("evolution", "table.npz"),
    f"nao_plus, {_BUDGET} evaluations": ("nao_plus", "table.npz"),
  }
  found = {name: [] for name in parts}
  with tempfile.TemporaryDirectory() as folder:
    for size in sizes:
      _write(pathlib.Path(folder), size)
      for name, part in parts.items():
        command = [sys.executable, "-m", "benchmarks.table_rows"]
        given = f"--part={part[0]},{folder}/{part[1]}"
        ended = subprocess.run(
          [*command, given, "--compilation_cache=off"],
          check=True,
          stdout=subprocess.PIPE,
          text=True,
        )
        found[name].append(json.loads(ended.stdout.splitlines()[-1]))
  rows = []
  for name, pairs in found.items():
    for unit, values in zip(("s", "MB"), zip(*pairs, strict=True), strict=True):
      row = {"work": f"{name}, {unit}"}
      row |= {f"{n:,}": f"{x:.1f}" for n, x in zip(sizes, values, strict=True)}
      rows.append(row | {"exponent": f"{exponent(sizes, values):.2f}"})
  streams.show(rows, "CPU seconds and megabytes by rows of the table")
  if _JSON.value:
    note = f"Tables of {_SLOTS} slots with {_CHOICES} choices."
    title = "CPU seconds and memory by rows of a table"
    results.write(
      _JSON.value, results.table(title, "benchmarks.table_rows", rows, note)
    )


if __name__ == "__main__":
  driver.run(main)
