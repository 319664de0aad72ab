"""Kills drivers at random moments and compares what comes of them.

python -m tests.soak --kills=500 --json=FILE

Each driver runs once to its end. Then it is started in another directory and
killed, again and again; whenever it comes to its end, that must be the same:
pool, scores, parameters, files. Drivers take turns, and the file has all kills
whose runs have ended, so that a soak may be cut off; the same command adds to
the file.
"""

import argparse
from collections.abc import Callable
import contextlib
import functools
import json
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import tempfile
import time
from typing import NamedTuple

from array_record.python import array_record_module
import jax
import jax.export
import numpy as np
import orbax.checkpoint as ocp
from tensorflow_datasets.proto import tf_example_pb2

from benchmarks import results
from nao_jax.runs.config_file import git_revision
from tests import drivers
from tests.soak_subjects import Subject, subjects

# What is there while a checkpoint, a database, a file or a data set is written.
WRITING = (
  "checkpoints*/*.orbax-checkpoint-tmp*",
  "*.sqlite-journal",
  ".*.partial",
  "*/incomplete.*",
)
# Files that differ from run to run, and what a killed run leaves beside them.
_LEFT_OUT = (".png", ".svg", ".partial")
# Places in the sources, in the text of a program.
_PLACES = re.compile(r"^#loc.*\n| loc\((?:[^()]|\([^()]*\))*\)", re.MULTILINE)
# Kills of a driver before the next one has its turn.
TURN = 6
# One kill in so many is that of a process that starts and imports.
OWN_PROCESS = 8
_DEADLY = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP
_TITLE = "Killed drivers that ended as if they had never been killed"


class Kills(NamedTuple):
  """Kills that a driver survived.

  Attributes:
    tried: times that a driver was killed.
    writing: kills that waited until something was being written.
    signals: kills by SIGTERM or SIGHUP.
    starting: kills while a process started or imported.
    resumed: times that a run went on from a checkpoint.
  """

  tried: int = 0
  writing: int = 0
  signals: int = 0
  starting: int = 0
  resumed: int = 0


def add(*kills: Kills) -> Kills:
  """Returns the sums."""
  return Kills(*map(sum, zip(*kills, strict=True)))


class Soak:
  """Runs of a driver that are killed, and one that is not."""

  def __init__(self, subject: Subject, folder: pathlib.Path, seed: object):
    """Runs the driver once to its end.

    Args:
      subject: the driver.
      folder: an empty folder.
      seed: seed of the moments of all kills; it is formatted.
    """
    self._subject, self._rng = subject, random.Random(f"{seed}")
    self._whole, self._killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    drivers.finish(self._start(drivers.Fork, self._whole))
    # Nearly all of it may be compiling, which later runs do not.
    self._seconds = time.monotonic() - began

  def survive(self, kills: int, before: int = 0) -> Kills:
    """Kills the driver some times, and checks that it comes to its end.

    Args:
      kills: number of kills. A third happens while something is being written,
        a third at any moment, and a third are SIGTERM or SIGHUP at any moment.
      before: number of kills before these.

    Raises:
      AssertionError: the killed run had another result, or failed.
    """
    found = Kills()
    while found.tried < kills:
      found = add(found, self._kill(before + found.tried))
    return add(found, self._end(self._start(drivers.Fork, self._killed)))

  def _start(self, kind: Callable, run: pathlib.Path):
    run.mkdir(exist_ok=True)
    given = self._subject.arguments(run)
    return kind("tests.short_driver", self._subject.driver, *given)

  def _kill(self, number: int) -> Kills:
    """Starts the driver and kills it, unless it has come to its end before."""
    own = number % OWN_PROCESS == 3  # A short soak has one, too.
    if own:
      moment = 2 * self._rng.random()  # Half of these are still importing.
      process = self._start(drivers.process, self._killed)
      _wait(process, moment * self._imports)
      return self._send(process, self._rng.choice(_DEADLY), False, moment < 1)
    earlier, fresh = _being_written(self._killed), not self._killed.exists()
    began = time.monotonic()
    process = self._start(drivers.Fork, self._killed)
    moment, sent, writes = self._rng.random(), signal.SIGKILL, False
    if number % 3 == 1:
      _wait(process, self._seconds * moment / 2)
      writes = self._wait_until_it_writes(process, earlier)
    else:
      _wait(process, self._seconds * moment)
    if number % 3 == 2:
      sent = self._rng.choice(_DEADLY[1:])
    if fresh and process.poll() is not None:
      self._seconds = time.monotonic() - began
    return self._send(process, sent, writes, False)

  def _send(self, process, sent, writes, starting) -> Kills:
    """Kills a process; returns no kills if it has come to its end before."""
    if process.poll() is None:
      process.send_signal(sent)
    return self._end(process, sent, writes, starting)

  def _end(self, process, sent=None, writes=False, starting=False) -> Kills:
    """Waits for the end of a run, and checks it."""
    _, errors = process.communicate()
    resumed = "resuming" in errors
    # Before there is anything to save, the system ends it.
    if sent and process.returncode in (-sent, 128 + sent):
      assert "Traceback" not in errors, errors
      return Kills(1, writes, sent != signal.SIGKILL, starting, resumed)
    refusal = self._subject.refusal
    assert process.returncode == 0 or (refusal and refusal in errors), errors
    assert outcome(self._whole) == outcome(self._killed)
    # Another run starts from the beginning.
    shutil.rmtree(self._killed)
    return Kills(resumed=resumed)

  @functools.cached_property
  def _imports(self) -> float:
    """Seconds that the driver takes to start, import and know its flags."""
    began = time.monotonic()
    arguments = ["tests.short_driver", self._subject.driver, "--help"]
    drivers.process(*arguments).communicate()
    return time.monotonic() - began

  def _wait_until_it_writes(self, process, earlier) -> bool:
    """Returns whether something is being written that was not there before."""
    while process.poll() is None:
      if _being_written(self._killed) - earlier:
        time.sleep(0.02 * self._rng.random())
        return process.poll() is None
      time.sleep(0.001)
    return False


def _wait(process, seconds: float) -> None:
  end = time.monotonic() + seconds
  while process.poll() is None and time.monotonic() < end:
    time.sleep(0.01)


def _being_written(run: pathlib.Path) -> set[tuple[str, int]]:
  """Returns what is there while something is written, with its times."""
  found = set()
  for path in (path for pattern in WRITING for path in run.glob(pattern)):
    with contextlib.suppress(FileNotFoundError):
      found.add((str(path), path.stat().st_mtime_ns))
  return found


def outcome(run: pathlib.Path) -> dict:
  """Returns everything that must not depend on kills, bit for bit."""
  found = {}
  for name in ("best.json", "result.json", "final.json"):
    if (run / name).exists():
      found[name] = (run / name).read_bytes()
  for file in sorted(run.glob("pool/*.npz")):
    found[file.name] = file.read_bytes()
  for file in sorted(run.glob("*.sqlite")):
    with contextlib.closing(sqlite3.connect(file)) as database:
      # Which of two candidates ends first decides the order of trials.
      found[file.name] = sorted(database.iterdump())
  if (run / "checkpoints").exists():
    found["state"] = _newest_state(run / "checkpoints")
  else:
    found |= {
      str(file.relative_to(run)): _content(file)
      for file in sorted(run.rglob("*"))
      if file.is_file() and not _is_left_out(file)
    }
  assert found, f"{run} holds no outcome"
  return found


def _is_left_out(file: pathlib.Path) -> bool:
  return file.name.endswith(_LEFT_OUT) or "incomplete." in str(file.parent)


def _content(file: pathlib.Path) -> bytes | str | list[bytes]:
  """Returns what a file holds, but for times in JSON and for two differences.

  The features of an example have another order in each process that starts. An
  exported network names the functions that called jax: others, in a fork.
  """
  if file.suffix == ".jax":
    network = jax.export.deserialize(bytearray(file.read_bytes()))
    return _PLACES.sub("", network.mlir_module())
  if ".array_record-" in file.name:
    reader = array_record_module.ArrayRecordReader(str(file))
    with contextlib.closing(reader):
      examples = map(tf_example_pb2.Example.FromString, reader.read_all())
      return [x.SerializeToString(deterministic=True) for x in examples]
  if file.suffix != ".json":
    return file.read_bytes()
  return json.dumps(
    json.loads(
      file.read_text(),
      object_hook=lambda held: {k: held[k] for k in held if k != "seconds"},
    )
  )


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


class Tally:
  """Kills by driver, in a file as well."""

  def __init__(self, file: str | None, seed: int):
    """Reads the file, if there is one.

    Args:
      file: its path; none for a tally in memory alone.
      seed: seed of the soak.

    Raises:
      UserError: the file holds results of another seed or commit.
    """
    # Kills of other code would say nothing of this one.
    self._known = {"seed": seed, "commit": git_revision()}
    self._file = file
    found = results.read(file, self._known) if file else {}
    self._kills = {row[0]: Kills(*row[1:-1]) for row in found.get("rows", ())}

  def of(self, name: str) -> Kills:
    """Returns the kills that a driver has survived."""
    return self._kills.get(name, Kills())

  def add(self, name: str, kills: Kills) -> None:
    """Counts kills of a run that has come to its end, and writes the file."""
    self._kills[name] = add(self.of(name), kills)
    if not self._file:
      return
    columns = (
      "killed",
      "while something was written",
      "by SIGTERM or SIGHUP",
      "while it started or imported",
      "went on from a checkpoint",
    )
    rows = [
      {"driver": name}
      | dict(zip(columns, kills, strict=True))
      | {"ended with the same result": kills.tried}
      for name, kills in self._kills.items()
    ]
    note = f"{add(*self._kills.values()).tried} kills in all."
    table = results.table(_TITLE, "tests.soak", rows, note)
    results.write(self._file, table | self._known)


def main() -> None:
  """Kills all drivers in turn, and prints the kills that they survived."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--only", default="", help="part of drivers' names")
  parser.add_argument("--json", help="file for the kills, or that has some")
  given = parser.parse_args()
  drivers.compile_fast()
  drivers.heed_signals()
  # After a fault, what led to it is there to look at.
  folder = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
  every = subjects(folder)
  chosen = {x: every[x] for x in every if given.only in x}
  tally, soaks = Tally(given.json, given.seed), {}
  each = -(-given.kills // len(chosen))
  _print_row(f"runs in {folder}", *Kills._fields)
  while left := [name for name in chosen if tally.of(name).tried < each]:
    for name in left:
      done = tally.of(name).tried
      if name not in soaks:
        own = folder / str(len(soaks))
        own.mkdir()
        soaks[name] = Soak(chosen[name], own, f"{given.seed} {name} {done}")
      kills = soaks[name].survive(min(TURN, each - done), done)
      tally.add(name, kills)
      _print_row(name, *tally.of(name))
  _print_row("all of them survived", *add(*map(tally.of, chosen)))
  shutil.rmtree(folder)


def _print_row(name: str, *values) -> None:
  print(f"{name:30}" + "".join(f"{value:>9}" for value in values), flush=True)


if __name__ == "__main__":
  main()
