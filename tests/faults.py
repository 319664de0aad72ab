"""Has storage fail at random moments of a search, and compares its results.

python -m tests.faults --times=100 --json=FILE

Needs a compiler of C, for a library that has calls fail below a folder; mapped
memory does not. A search with a file of trials runs once to its end. Then it is
started elsewhere, and its disk is full from a random write on; started again,
none of its files can be read from a random read on; the third time it is left
alone, and must come to the same bits. What failed must end with exit code 2 and
a line. A disk whose files cannot be locked is refused. With --tmpfs=20 (needs
root) the same happens on so many file systems that are too small.
"""

import argparse
import collections
from collections.abc import Callable
import ctypes
import errno
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import traceback

import jax
import numpy as np

from benchmarks import results
from experiments import driver
import nao_jax
from nao_jax.runs.trials import Trial, Trials
from tests import soak

_SOURCE = pathlib.Path(__file__).with_suffix(".c")
# Kind of calls that fail, their error, and how many of a run succeed at most.
FULL, UNREADABLE = ("w", errno.ENOSPC, 200), ("r", errno.EIO, 150)
WITHOUT_LOCKS = ("l", errno.ENOLCK, 0)


def search(workdir: pathlib.Path) -> None:
  """Searches as a driver, with a file of trials."""
  space = nao_jax.make_space("x", {f"s{n}": (0, 1, 2) for n in range(6)})
  sizes = nao_jax.SearchConfig(pool_size=8, rounds=3, new_per_round=2)

  def run(_) -> None:
    def score(tokens: np.ndarray) -> list[float]:
      trials = Trials(workdir / "trials.sqlite", "x", {})
      for row in tokens:
        value = float(np.cos(row).sum())
        trials.add(row, Trial(value, (value,)))
      return [trials.get(row).score for row in tokens]

    nao_jax.run_search(
      space,
      score,
      jax.random.key(0),
      sizes,
      strategy=nao_jax.Evolution(space),
      workdir=workdir,
    )

  sys.argv = ["search"]
  driver.run(run)


def in_a_process(work: Callable[[], None], output: pathlib.Path) -> int:
  """Calls a function in a copy of this process; returns its exit code.

  The copy has all imports and no threads, so that nothing but the work takes
  time. What it prints goes to a file.
  """
  process = os.fork()
  if process:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
  code = 1
  try:
    printed = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    work()
    code = 0
  except SystemExit as end:
    code = end.code or 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    os._exit(code)


def fault(
  workdir: pathlib.Path, kind: str, error: int, after: int
) -> tuple[int, str]:
  """Searches where calls fail, from one on; returns exit code and output."""
  where = str(workdir).encode()

  def work() -> None:
    ctypes.CDLL(None).fail_calls(where, *_in_c(kind, error, after))
    search(workdir)

  output = workdir.parent / "output"
  return in_a_process(work, output), output.read_text()


def _in_c(kind: str, error: int, after: int) -> tuple:
  return ctypes.c_char(kind.encode()), error, ctypes.c_long(after)


def outcome(workdir: pathlib.Path) -> str:
  """Returns a digest of all that must not depend on faults."""
  file = workdir.parent / "outcome"

  def work() -> None:
    print(hashlib.sha256(repr(soak.outcome(workdir)).encode()).hexdigest())

  assert in_a_process(work, file) == 0, file.read_text()
  return file.read_text().splitlines()[-1]


def check(code: int, output: str) -> bool:
  """Returns whether a run failed; it must have said so in a line, or ended."""
  assert "Traceback" not in output, output
  errors = [line for line in output.splitlines() if line.startswith("error: ")]
  assert (code, len(errors)) in ((0, 0), (2, 1)), output
  return code == 2


def survive(folder: pathlib.Path, times: int, seed: int) -> dict[str, int]:
  """Has storage fail, and compares; returns how often which kind failed.

  Args:
    folder: an empty folder.
    times: how often both kinds of faults happen.
    seed: seed of the moments.
  """
  rng, found = random.Random(seed), collections.Counter()
  whole, workdir = folder / "whole", folder / "run"
  assert in_a_process(lambda: search(whole), folder / "output") == 0
  expected = outcome(whole)
  names = {FULL: "full disks", UNREADABLE: "read errors"}
  while min(found[name] for name in names.values()) < times:
    for (kind, error, most), name in names.items():
      found[name] += check(*fault(workdir, kind, error, rng.randrange(most)))
    _go_on(workdir, expected)
    shutil.rmtree(workdir)
    found["compared ends"] += 1
    print(dict(found), flush=True)
  return dict(found)


def _go_on(workdir: pathlib.Path, expected: str) -> None:
  """Searches without faults, to the end that is expected."""
  output = workdir.parent / "output"
  code = in_a_process(lambda: search(workdir), output)
  assert code == 0, output.read_text()
  assert outcome(workdir) == expected


def fill(folder: pathlib.Path, times: int, seed: int) -> dict[str, int]:
  """Searches on file systems that are too small, until they are enlarged.

  Args:
    folder: a folder with a run that nothing disturbed, `whole`.
    times: number of file systems that are too small.
    seed: seed of their sizes.
  """
  rng, full, ends = random.Random(seed), 0, 0
  whole, disk, output = (folder / x for x in ("whole", "disk", "output"))
  expected = outcome(whole)
  files = [path for path in whole.rglob("*") if path.is_file()]
  pages = sum(-(-path.stat().st_size // 4096) for path in files)
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk), "-o"]
  while full < times:
    size = 4 * rng.randint(1, pages)
    subprocess.run([*mount, f"size={size}k"], check=True)
    try:
      code = in_a_process(lambda: search(disk), output)
      full += check(code, output.read_text())
      subprocess.run([*mount, "remount,size=64m"], check=True)
      _go_on(disk, expected)
    finally:
      subprocess.run(["umount", str(disk)], check=True)
    ends += 1
    print(f"{size} kB: {code}, {full} of {ends}", flush=True)
  return {"full tmpfs": full, "compared ends of tmpfs": ends}


def go_without_locks(folder: pathlib.Path) -> None:
  """Checks that runs and files of trials are refused, as a fault."""
  workdir, refused = folder / "unlocked", "files there cannot be locked"
  code, output = fault(workdir, *WITHOUT_LOCKS)
  assert check(code, output)
  assert refused in output, output
  where = f"{folder / 'trials'}".encode()

  def share() -> None:
    ctypes.CDLL(None).fail_calls(where, *_in_c(*WITHOUT_LOCKS))
    Trials(folder / "trials" / "x.sqlite", "x", {})

  output = folder / "output"
  assert in_a_process(share, output) == 1
  assert refused in output.read_text(), output.read_text()


def main() -> None:
  """Starts itself again with the library, and prints how often what failed."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--times", type=int, default=100)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--tmpfs", type=int, default=0, metavar="TIMES")
  parser.add_argument("--json", help="file for the numbers")
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    if not hasattr(ctypes.CDLL(None), "fail_calls"):
      library = folder / "faults.so"
      build = ["cc", "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"]
      subprocess.run(build, check=True)
      again = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
      environment = os.environ | {"LD_PRELOAD": str(library)}
      sys.exit(subprocess.run(again, env=environment).returncode)
    found = survive(folder, given.times, given.seed)
    if given.tmpfs:
      found |= fill(folder, given.tmpfs, given.seed)
    go_without_locks(folder)
  print(json.dumps(found, indent=1))
  if given.json:
    results.write(given.json, results.measured_here("tests.faults") | found)


if __name__ == "__main__":
  main()
