"""Kills drivers at random moments and compares what comes of them.

python -m tests.soak --kills=50

Each driver runs once to its end. Then it is started in another directory and
killed, again and again, until it has been killed often enough; whenever it
comes to its end, that must be the same: pool, scores, parameters, outcome.
"""

import argparse
from collections.abc import Callable
import contextlib
import dataclasses
import pathlib
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from tests import drivers, tiny_images

# What is there while a checkpoint or the database is being written.
WRITING = ("checkpoints/*.orbax-checkpoint-tmp*", "*.sqlite-journal")


@dataclasses.dataclass(frozen=True)
class Subject:
  """A driver and its flags, which make it short.

  Attributes:
    driver: its name.
    flags: of its runs, but for the workdir.
  """

  driver: str
  flags: dict


class Kills(NamedTuple):
  """Kills that a driver survived.

  Attributes:
    tried: times that a driver was killed.
    writing: kills while a checkpoint or a database was being written.
    resumed: times that it went on from a checkpoint.
  """

  tried: int
  writing: int
  resumed: int


def survive(
  subject: Subject,
  folder: pathlib.Path,
  kills: int,
  seed: int,
  start: Callable = drivers.start,
) -> Kills:
  """Kills a driver many times, and checks its result.

  Args:
    subject: the driver to kill.
    folder: folder of its runs.
    kills: number of kills. A third happens while something is being written,
      a third at any moment of a run, its start included, and a third are
      SIGTERM or SIGHUP at any moment.
    seed: seed of the moments.
    start: what starts a driver; `drivers.fork` leaves the start of the
      interpreter and the imports out.

  Raises:
    AssertionError: the killed run had another result, or failed.
  """
  rng = random.Random(seed)
  whole, killed = folder / "whole", folder / "killed"
  began = time.monotonic()
  drivers.finish(start(subject.driver, whole, subject.flags))
  # How long a run takes: on a busy machine much of it is the imports.
  seconds = time.monotonic() - began
  writing, resumed, tried = 0, 0, 0
  while True:
    began = time.monotonic()
    process = start(subject.driver, killed, subject.flags)
    sent, caught = signal.SIGKILL, False
    if tried < kills and tried % 3 == 1:
      caught = _wait_until_it_writes(process, killed, rng)
    elif tried < kills:
      _wait(process, seconds * rng.random())
    if tried % 3 == 2:
      sent = rng.choice((signal.SIGTERM, signal.SIGHUP))
    if tried < kills and process.poll() is None:
      process.send_signal(sent)
    _, errors = process.communicate()
    resumed += "resuming" in errors
    # Before there is anything to save, the system ends it.
    if process.returncode in (-sent, 128 + sent):
      assert "Traceback" not in errors, errors
      tried, writing = tried + 1, writing + caught
      continue
    assert process.returncode == 0, errors
    assert outcome(whole) == outcome(killed)
    if tried == kills:
      return Kills(tried, writing, resumed)
    # It came to its end before it could be killed: once more, from the start.
    seconds = time.monotonic() - began
    shutil.rmtree(killed)


def _wait(process, seconds: float) -> None:
  end = time.monotonic() + seconds
  while process.poll() is None and time.monotonic() < end:
    time.sleep(0.01)


def _wait_until_it_writes(process, workdir, rng) -> bool:
  """Until something is being written, for some of the times that it is."""
  skip = rng.randrange(3)
  while process.poll() is None:
    if any(any(workdir.glob(pattern)) for pattern in WRITING):
      if not skip:
        time.sleep(0.02 * rng.random())
        return True
      skip -= 1
      time.sleep(0.2)
    time.sleep(0.001)
  return False


def outcome(workdir: pathlib.Path) -> dict:
  """Returns everything that must not depend on kills, bit for bit."""
  found = {}
  for name in ("best.json", "result.json", "final.json"):
    if (workdir / name).exists():
      found[name] = (workdir / name).read_bytes()
  for file in sorted(workdir.glob("*.sqlite")):
    with contextlib.closing(sqlite3.connect(file)) as database:
      # Which of two candidates ends first decides the order of trials.
      found[file.name] = sorted(database.iterdump())
  found["state"] = _newest_state(workdir / "checkpoints")
  assert len(found) > 1, f"{workdir} holds no outcome"
  return found


def _newest_state(directory: pathlib.Path) -> list:
  """The arrays of the newest checkpoint, which may have any number."""
  newest = max(int(path.name) for path in directory.iterdir())
  with ocp.CheckpointManager(directory.absolute()) as manager:
    arrays = manager.restore(newest, args=ocp.args.StandardRestore())
  return [
    (name, str(array.dtype), array.shape, array.tobytes())
    for name, array in sorted(
      (name, np.asarray(array)) for name, array in arrays.items()
    )
  ]


def subjects(folder: pathlib.Path) -> dict[str, Subject]:
  """The drivers, each a few seconds long once it is compiled.

  Args:
    folder: where the data go that are trained on.
  """
  text = folder / "text"
  text.mkdir(exist_ok=True)
  rng = random.Random(0)
  for part, words in (("train", 240), ("valid", 60), ("test", 60)):
    line = " ".join(f"w{rng.randrange(9)}" for _ in range(words))
    (text / f"a.{part}.txt").write_text(line + "\n")
  search = {
    "seed": 3,
    "pool_size": 8,
    "rounds": 2,
    "new_per_round": 3,
    "random_per_round": 1,
    "controller_embedding": 4,
    "controller_hidden": 8,
    "controller_mlp_layers": 1,
    "checkpoint_steps": 1,
    "devices": 1,
  }
  nao = {
    "strategy": "nao",
    "top_k": 3,
    "max_step_size": 3,
    "held_out": 0.25,
    "controller_epochs": 10,
  }
  plus = {
    "strategy": "nao_plus",
    "plus_members": 2,
    "plus_pretraining": 20,
    "plus_steps": 5,
    "plus_seeds": 3,
  }
  images = {
    "preset": "digits",
    "data_dir": tiny_images.few_digits(folder / "data"),
    "channels": 2,
    "batch": 32,
    "epochs": 3,
  }
  language = {
    "text": text,
    "nodes": 3,
    "width": 6,
    "batch": 4,
    "bptt": 5,
  }
  final = {
    "finalists": 1,
    "finalist_epochs": 1,
    "final_cells": 1,
    "final_repeats": 1,
    "final_epochs": 1,
  }
  return {
    "search_cnn, shared": Subject(
      "search_cnn",
      search
      | nao
      | images
      | final
      | {"nodes": 2, "finalist_channels": 2, "final_channels": 2},
    ),
    "search_cnn, scratch": Subject(
      "search_cnn",
      search
      | nao
      | images
      | final
      | {
        "preset": "digits_scratch",
        "nodes": 2,
        "cells_per_stage": 1,
        "finalist_channels": 2,
        "final_channels": 2,
        "extend": True,
      },
    ),
    "search_rnn, shared": Subject(
      "search_rnn",
      search | plus | language | final | {"epochs": 3, "random_per_round": 1},
    ),
    "search_rnn, scratch": Subject(
      "search_rnn",
      search
      | nao
      | language
      | final
      | {
        "epochs": 3,
        "evaluator": "scratch",
        "extend": True,
        "random_per_round": 0,
      },
    ),
    "train_cnn": Subject(
      "train_cnn",
      images
      | {
        "arch": "0 0 1 4 2 2 0 4 | 0 4 1 2 2 3 1 4",
        "checkpoint_steps": 2,
        "devices": 1,
      },
    ),
    "train_rnn": Subject(
      "train_rnn",
      {
        "preset": "ptb",
        "text": text,
        "arch": "0 0 1 1 0 3",
        "width": 6,
        "batch": 4,
        "bptt": 5,
        "epochs": 6,
        "eval_batch": 4,
        "checkpoint_steps": 1,
        "devices": 1,
      },
    ),
  }


def main() -> None:
  """Kills all drivers, and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--only", default="", help="part of drivers' names")
  arguments = parser.parse_args()
  drivers.compile_fast()
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    every = subjects(folder)
    chosen = {x: every[x] for x in every if arguments.only in x}
    each = -(-arguments.kills // len(chosen))
    total = Kills(0, 0, 0)
    _print_row("driver", "killed", "writing", "resumed")
    for number, (name, subject) in enumerate(chosen.items()):
      own = folder / str(number)
      own.mkdir()
      kills = survive(subject, own, each, arguments.seed + number)
      _print_row(name, kills.tried, kills.writing, kills.resumed)
      total = Kills(*map(sum, zip(total, kills, strict=True)))
    _print_row("all of them survived", *total)


def _print_row(name: str, *values) -> None:
  print(f"{name:24}" + "".join(f"{value:>9}" for value in values), flush=True)


if __name__ == "__main__":
  main()
