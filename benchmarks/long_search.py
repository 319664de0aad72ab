"""Follows memory, time and files of a long search over a large pool.

python -m benchmarks.long_search --json=FILE

The evaluator is a formula, so nearly all of the time is the search's own.
"""

import argparse
import json
import os
import pathlib
import tempfile
import threading
import time

import jax
import numpy as np

from benchmarks import results
import nao_jax


class _Follower:
  """Scores architectures, and notes the state of the process in each round."""

  def __init__(self, workdir: pathlib.Path):
    self.rows, self._workdir, self._last = [], workdir, time.process_time()

  def __call__(self, tokens: np.ndarray) -> np.ndarray:
    now = time.process_time()
    status = pathlib.Path("/proc/self/status").read_text()
    rss = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    files = [x for x in self._workdir.rglob("*") if x.is_file()]
    self.rows.append(
      {
        "cpu seconds": round(now - self._last, 3),
        "megabytes of memory": int(rss.split()[1]) // 1024,
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "megabytes in the workdir": sum(x.stat().st_size for x in files) / 1e6,
      }
    )
    self._last = now
    return np.cos(np.float32(tokens)).sum(1)


def main() -> None:
  """Searches, and writes means over tenths of the search."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=200)
  parser.add_argument("--pool", type=int, default=1000)
  parser.add_argument("--json")
  given = parser.parse_args()
  space = nao_jax.make_space("x", {f"s{n}": tuple(range(8)) for n in range(12)})
  sizes = nao_jax.SearchConfig(
    pool_size=given.pool, rounds=given.rounds, new_per_round=given.pool // 10
  )
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / "run"
    follower = _Follower(workdir)
    nao_jax.run_search(
      space,
      follower,
      jax.random.key(0),
      sizes,
      strategy=nao_jax.Evolution(space),
      workdir=workdir,
    )
  names, parts = follower.rows[0], np.array_split(follower.rows[1:], 10)
  tenths = {
    name: [round(float(np.mean([x[name] for x in part])), 3) for part in parts]
    for name in names
  }
  print(json.dumps(tenths, indent=1))
  if given.json:
    here = results.measured_here("benchmarks.long_search")
    results.write(
      given.json, here | {"means over tenths of the rounds": tenths}
    )


if __name__ == "__main__":
  main()
