"""Runs whole searches that share a file of trials, and kills some.

python -m tests.shared_searches --json=FILE

Small searches from scratch on digits, with pools of different sizes, so that
they have most candidates in common. Some are killed at random and started
again. All must end; each score of each pool must be that of the file, in which
the end of each training is noted.
"""

import argparse
import contextlib
import json
import pathlib
import random
import re
import sqlite3
import subprocess
import tempfile
import time

import numpy as np

from benchmarks import results
from nao_jax.report import run
from nao_jax.runs.trials import Trials
from tests import drivers

_DIFFERENT = "scores that differ from the file of trials"
# It also notes the trials that are ignored, as they are there.
_NOTES = """
create table ended (architecture);
create trigger note before insert on trials
begin insert into ended values (new.architecture); end
"""
_FLAGS = {
  "preset": "digits_scratch",
  "strategy": "evolution",
  "final_cells": 0,
  "rounds": 1,
  "new_per_round": 2,
  "nodes": 2,
  "channels": 2,
  "batch": 128,
  "epochs": 2,
  "devices": 1,
  "checkpoint_steps": 1,
}


def _started(folder: pathlib.Path, number: int) -> subprocess.Popen:
  flags = _FLAGS | {
    "data_dir": folder / "data",
    "trials": folder / "trials.sqlite",
    "pool_size": 4 + number % 4,
  }
  return drivers.start("search_cnn", folder / str(number), flags)


def _run(folder: pathlib.Path, given: argparse.Namespace) -> tuple[int, str]:
  """Runs all to their end, some at once; returns kills and what they said."""
  rng, waiting = random.Random(0), list(range(given.searches))
  running, killed, said = {}, 0, ""
  while waiting or running:
    while waiting and len(running) < given.at_once:
      number = waiting.pop(0)
      running[number] = _started(folder, number)
    time.sleep(given.between * rng.random())
    for number, process in list(running.items()):
      if process.poll() is not None:
        said += drivers.finish(running.pop(number))[1]
    if running and killed < given.kills:
      number = rng.choice(list(running))
      running[number].kill()
      said += running.pop(number).communicate()[1]
      killed += 1
      waiting.insert(rng.randrange(len(waiting) + 1), number)
  return killed, said


def _read(file: pathlib.Path, what: str) -> list[tuple]:
  with contextlib.closing(sqlite3.connect(file)) as database:
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    return database.execute(f"select {what}").fetchall()


def _compared(folder: pathlib.Path, searches: int, said: str) -> dict[str, int]:
  """Compares pools with the file of trials; returns counts."""
  rows = _read(
    folder / "trials.sqlite", "architecture, score, curve from trials"
  )
  assert all(len(json.loads(curve)) == _FLAGS["epochs"] for *_, curve in rows)
  # Those of pools have 32 bits.
  trained = {text: float(np.float32(score)) for text, score, _ in rows}
  assert len(trained) == len(rows), "trials of two protocols"
  scores = [
    pair for number in range(searches) for pair in _scores(folder / str(number))
  ]
  known = re.findall(r"(\d+) of \d+ candidates were trained before", said)
  return {
    "trials in the file": len(rows),
    "trainings ended": len(_read(folder / "trials.sqlite", "* from ended")),
    "trials of others or of before, told": sum(map(int, known)),
    "scores in pools": len(scores),
    _DIFFERENT: sum(trained.get(text) != score for text, score in scores),
  }


def _scores(workdir: pathlib.Path) -> list[tuple[str, float]]:
  """Returns architectures, as the file of trials writes them, and scores."""
  found = run.read(workdir)
  rows, rounds = np.nonzero(~np.isnan(found.pool.scores))
  tokens = found.cells.space.canonical(found.pool.tokens[rows])
  texts = [" ".join(map(str, row)) for row in tokens.tolist()]
  return [*zip(texts, found.pool.scores[rows, rounds].tolist(), strict=True)]


def main() -> None:
  """Runs the searches, and prints and writes what was counted."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--searches", type=int, default=16)
  parser.add_argument("--at_once", type=int, default=4)
  parser.add_argument("--kills", type=int, default=10)
  parser.add_argument("--between", type=float, default=20.0, help="kills, s")
  parser.add_argument("--json")
  given = parser.parse_args()
  drivers.compile_fast()
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    Trials(folder / "trials.sqlite", "x", {})
    with contextlib.closing(sqlite3.connect(folder / "trials.sqlite")) as file:
      file.executescript(_NOTES)
    killed, said = _run(folder, given)
    found = {
      "searches": given.searches,
      "at once": given.at_once,
      "killed": killed,
      "seconds": round(time.monotonic() - start),
    } | _compared(folder, given.searches, said)
  print(json.dumps(found, indent=1))
  assert found["scores in pools"]
  assert not found[_DIFFERENT]
  if given.json:
    here = results.measured_here("tests.shared_searches")
    results.write(given.json, here | found)


if __name__ == "__main__":
  main()
