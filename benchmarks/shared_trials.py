"""Loads one file of trials with processes that are killed, and times look-ups.

python -m benchmarks.shared_trials --json=FILE

Processes claim trials of the same architectures and add them, as searches with
one `trials` file do; some are killed at random and started again. Each
notes in a log of its own, on disk before it goes on, when a training starts,
when it has ended and when its trial is in the file. So a trial that was lost
shows, also where it was trained again. Then the file is filled, and look-ups
are timed.
"""

import argparse
import collections
import contextlib
import json
import math
import os
import pathlib
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import results
from nao_jax.runs import claims
from nao_jax.runs.trials import Trial, Trials

# Seconds that stand for a training.
_TRAINING = 0.01


def _trial(number: int) -> Trial:
  curve = tuple(number / 1e6 + epoch for epoch in range(5))
  return Trial(curve[-1], curve)


def _log_of(file: str | pathlib.Path, seed: int) -> pathlib.Path:
  return pathlib.Path(f"{file}.{seed}.log")


class _Log:
  """Events of one process, on disk line by line."""

  def __init__(self, file: str, seed: int):
    self._file = _log_of(file, seed).open("a")

  def __call__(self, event: str, number: int, at: float) -> None:
    # The clock is the same in all processes.
    self._file.write(f"{at} {event} {number}\n")
    self._file.flush()
    os.fsync(self._file.fileno())


def _work(file: str, count: int, seed: int) -> None:
  """Adds trials until all are there; prints how long the longest call took."""
  trials, longest, log = Trials(file, "load", {}), 0.0, _Log(file, seed)
  waiting = list(range(count))
  random.Random(seed).shuffle(waiting)
  while waiting:
    elsewhere = []
    for number in waiting:
      start = time.monotonic()
      known, claimed = trials.claim([number])
      longest = max(longest, time.monotonic() - start)
      if claimed:
        # From before the look-up, as the trial may be added after it.
        log("start", number, start)
        time.sleep(_TRAINING)
        log("ended", number, time.monotonic())
        start = time.monotonic()
        trials.add([number], _trial(number))
        longest = max(longest, time.monotonic() - start)
        log("added", number, time.monotonic())
      elif known is None:
        elsewhere.append(number)
    if len(elsewhere) == len(waiting):
      time.sleep(claims.POLL)
    waiting = elsewhere
  print(longest)


def _told(file: pathlib.Path) -> dict[str, int]:
  """Returns what the logs say of trainings: {what: number of them}."""
  trainings = collections.defaultdict(list)
  for log in file.parent.glob(f"{file.name}.*.log"):
    # A process trains each at most once.
    own = collections.defaultdict(dict)
    # The last line may be half written.
    for line in log.read_text().rpartition("\n")[0].splitlines():
      at, event, number = line.split()
      own[number][event] = float(at)
    for number, times in own.items():
      trainings[number].append(times)
  again = sum(
    times["start"] > min(x.get("added", math.inf) for x in same)
    for same in trainings.values()
    for times in same
  )
  ended = [
    sorted((x["start"], x["ended"]) for x in same if "ended" in x)
    for same in trainings.values()
  ]
  return {
    "trainings started": sum(map(len, trainings.values())),
    "trainings ended": sum(map(len, ended)),
    "of them by two at once": sum(map(_at_once, ended)),
    "started although the trial was in the file": again,
  }


def _at_once(spans: list[tuple[float, float]]) -> int:
  """Counts the spans, in order of their start, that overlap an earlier one."""
  return sum(
    start < max(end for _, end in spans[:before])
    for before, (start, _) in enumerate(spans[1:], 1)
  )


def _killed(
  file: pathlib.Path, given: argparse.Namespace
) -> list[subprocess.Popen]:
  """Starts processes, kills some and starts others; returns those that run."""
  command = [sys.executable, "-m", "benchmarks.shared_trials", f"--file={file}"]
  command.append(f"--trials={given.trials}")

  def started(seed: int) -> subprocess.Popen:
    return subprocess.Popen(
      [*command, f"--seed={seed}"], stdout=subprocess.PIPE, text=True
    )

  rng, killed = random.Random(0), 0
  running = {seed: started(seed) for seed in range(given.processes)}
  while killed < given.kills:
    time.sleep(given.between * rng.random())
    assert any(x.poll() is None for x in running.values()), "too few trials"
    # Not while it starts, which takes most of its time.
    at_work = [
      seed
      for seed, process in running.items()
      if process.poll() is None and _log_of(file, seed).exists()
    ]
    if at_work:
      seed = rng.choice(at_work)
      running[seed].kill()
      running.pop(seed).communicate()
      killed += 1
      running[given.processes + killed] = started(given.processes + killed)
  return list(running.values())


def _load(file: pathlib.Path, given: argparse.Namespace) -> dict:
  start = time.monotonic()
  running = _killed(file, given)
  waits = [float(process.communicate()[0]) for process in running]
  trials = Trials(file, "load", {})
  for number in range(given.trials):
    assert trials.get([number]) == _trial(number), number
  with contextlib.closing(sqlite3.connect(file)) as database:
    rows, left, whole = (
      database.execute(command).fetchone()[0]
      for command in (
        "select count(*) from trials",
        "select count(*) from claims",
        "pragma integrity_check",
      )
    )
  return {
    "processes": given.processes,
    "kills": given.kills,
    "trials": rows,
    "missing at the end": given.trials - rows,
    **_told(file),
    "claims left": left,
    "integrity": whole,
    "longest call, seconds": round(max(waits), 3),
    "seconds": round(time.monotonic() - start, 1),
  }


def _look_ups(file: pathlib.Path, count: int) -> dict:
  trials = Trials(file, "load", {})
  space, protocol = trials._key
  curve = json.dumps(_trial(1).curve)
  with contextlib.closing(sqlite3.connect(file)) as database, database:
    database.executemany(
      "insert or ignore into trials values (?, ?, ?, ?, ?, ?)",
      (
        (space, str(number), protocol, 0.5, curve, 0) for number in range(count)
      ),
    )
  times, own = [], []
  for number in random.Random(0).sample(range(count), 2000):
    start, began = time.perf_counter(), time.thread_time()
    assert trials.get([number]) is not None
    own.append(1e3 * (time.thread_time() - began))
    times.append(1e3 * (time.perf_counter() - start))
  return {
    "trials in the file": count,
    "look-up, ms, median": round(statistics.median(times), 3),
    "look-up, ms, 99 of 100": round(statistics.quantiles(times, n=100)[-1], 3),
    "of it the processor's, 99 of 100": round(
      statistics.quantiles(own, n=100)[-1], 3
    ),
    "megabytes": round(os.path.getsize(file) / 1e6, 1),
  }


def main() -> None:
  """Prints both, and writes them to a file."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--processes", type=int, default=16)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--trials", type=int, default=5000)
  parser.add_argument("--between", type=float, default=0.5, help="kills, s")
  parser.add_argument("--filled", type=int, default=100_000)
  parser.add_argument("--json")
  parser.add_argument("--file", help=argparse.SUPPRESS)
  parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
  given = parser.parse_args()
  if given.file:
    _work(given.file, given.trials, given.seed)
    return
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / "trials.sqlite"
    found = {
      "load": _load(file, given),
      "look-ups": _look_ups(file, given.filled),
    }
  print(json.dumps(found, indent=1))
  if given.json:
    here = results.measured_here("benchmarks.shared_trials")
    results.write(given.json, here | found)


if __name__ == "__main__":
  main()
