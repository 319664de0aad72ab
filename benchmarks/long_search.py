"""Follows memory, time and files of a long search over a large pool.

python -m benchmarks.long_search --json=FILE

The evaluator is a formula, so nearly all of the time is the search's own. A
`watch` of the workdir runs beside it.
"""

import argparse
import ctypes
import gc
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import jax
import numpy as np

from benchmarks import results
import nao_jax


class _Allocated(ctypes.Structure):
  """Ten numbers, as glibc's `mallinfo2` returns them."""

  _fields_ = [("numbers", ctypes.c_size_t * 10)]


def _allocated() -> float:
  """Returns the megabytes that are allocated and not freed."""
  library = ctypes.CDLL(None)
  library.mallinfo2.restype = _Allocated
  numbers = library.mallinfo2().numbers
  # `hblkhd` in maps of their own, `uordblks` elsewhere.
  return (numbers[4] + numbers[7]) / 1e6


def _status(process: int | str, name: str) -> int:
  """Returns a number of /proc/PROCESS/status."""
  lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
  return int(next(x for x in lines if x.startswith(f"{name}:")).split()[1])


class _Follower:
  """Scores architectures, and notes the state of the processes each round."""

  def __init__(self, workdir: pathlib.Path):
    self.rows, self._workdir, self._last = [], workdir, time.process_time()
    self._known, self._watch = 0, None

  def __call__(self, tokens: np.ndarray) -> np.ndarray:
    now = time.process_time()
    files = [x for x in self._workdir.rglob("*") if x.is_file()]
    if self._watch is None:
      command = [sys.executable, "-m", "experiments.watch"]
      self._watch = subprocess.Popen(
        [*command, f"--workdir={self._workdir}", "--seconds=0.5"],
        env=os.environ | {"TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"},
        stdout=subprocess.DEVNULL,
      )
    self._known += len(tokens)
    children = pathlib.Path("/proc/self/task").glob("*/children")
    programs = jax.local_devices()[0].client.live_executables()
    self.rows.append(
      {
        "architectures": self._known,
        "cpu seconds": now - self._last,
        "megabytes of memory": _status("self", "VmRSS") / 1024,
        "megabytes allocated": _allocated(),
        "objects that Python collects": len(gc.get_objects()),
        "arrays of jax": len(jax.live_arrays()),
        "compiled programs": len(programs),
        "open files": len(os.listdir("/proc/self/fd")),
        "threads of Python": threading.active_count(),
        "threads": _status("self", "Threads"),
        "processes": sum(len(x.read_text().split()) for x in children),
        "megabytes in the workdir": sum(x.stat().st_size for x in files) / 1e6,
        "watch: megabytes of memory": _status(self._watch.pid, "VmRSS") / 1024,
      }
    )
    self._last = time.process_time()
    return np.cos(np.float32(tokens)).sum(1)

  def close(self) -> None:
    """Waits for the end of `watch`, which the end of the search brings."""
    assert self._watch.wait(60) == 0


def main() -> None:
  """Searches, and writes medians over tenths of the search."""
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
    pool = nao_jax.run_search(
      space,
      follower,
      jax.random.key(0),
      sizes,
      strategy=nao_jax.Evolution(space),
      workdir=workdir,
    )
    follower.close()
  # The first round compiles.
  rows = follower.rows[1:]
  found = {
    "medians over tenths of the rounds": _tenths(rows),
    "bytes allocated for each architecture": _slope(rows),
    "bytes of an architecture in the pool's table": round(
      sum(column.nbytes for column in pool) / len(pool.tokens)
    ),
  }
  print(json.dumps(found, indent=1))
  if given.json:
    here = results.measured_here("benchmarks.long_search")
    results.write(given.json, here | found)


def _tenths(rows: list[dict]) -> dict[str, list[float]]:
  parts = np.array_split(rows, 10)
  return {
    name: [round(float(np.median([x[name] for x in p])), 3) for p in parts]
    for name in rows[0]
  }


def _slope(rows: list[dict]) -> int:
  """Returns the slope of allocated bytes over architectures."""
  columns = ("architectures", "megabytes allocated")
  known, allocated = (np.array([x[name] for x in rows]) for name in columns)
  return round(1e6 * float(np.polyfit(known, allocated, 1)[0]))


if __name__ == "__main__":
  main()
