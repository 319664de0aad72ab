"""Measures two programs in turn, pair by pair: this project and a peer.

A peer is a program that is given the NAME of a work and prints, as its last
line, {"NAME": {"seconds": MEDIAN, "fastest": SECONDS, "slowest": SECONDS}}, of
its calls.
"""

from collections.abc import Callable, Iterator, Sequence
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from typing import NamedTuple

from nao_jax.errors import UserError

# Both libraries' numbers of threads, should they not go by the cores.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")


class Kind(NamedTuple):
  """A kind of work that both can do.

  Attributes:
    ours: its name in `benchmarks.throughput`.
    repeats: calls that are timed in a process, as many as the peer's.
    one_core: whether it is measured on one core.
    default: whether it is measured when nothing is named.
  """

  ours: str
  repeats: int
  one_core: bool = False
  default: bool = True


# By the peer's name.
KINDS = {
  "supernet_train": Kind("supernet_train", 12),
  "supernet_score": Kind("supernet_score", 20),
  "rnn_train": Kind("rnn_supernet_train", 5, one_core=True),
  "rnn_score": Kind("rnn_supernet_score", 10, one_core=True),
  "controller_fit": Kind("controller_fit", 10, default=False),
  "propose": Kind("propose", 20, default=False),
}

# Runs the work and gives its median, fastest and slowest seconds.
Measure = Callable[[], dict[str, float]]


def run(peer: Measure, ours: Measure, count: int) -> Iterator[dict]:
  """Measures both in turn.

  Args:
    peer: measures the peer.
    ours: measures this project.
    count: of pairs.

  Yields:
    {"first": which was, "peer": its figures, "ours": ours}.
  """
  both = {"peer": peer, "ours": ours}
  for number in range(count):
    order = [*both] if number % 2 == 0 else [*both][::-1]
    found = {name: both[name]() for name in order}
    yield {"first": order[0], **{name: found[name] for name in both}}


def ratios(found: Sequence[dict]) -> list[float]:
  """How many times as long the peer took, by medians, pair by pair."""
  return [pair["peer"]["seconds"] / pair["ours"]["seconds"] for pair in found]


def peer(
  command: Sequence[str], name: str, cores: Sequence[int]
) -> dict[str, float]:
  """Runs a peer once.

  Args:
    command: of the peer.
    name: of the work.
    cores: to run on.

  Returns:
    {"seconds", "fastest", "slowest"} of a call.

  Raises:
    UserError: it failed, or did not print the figures.
  """
  lines = _run([*command, name], cores).strip().splitlines()
  return _figures(lines[-1] if lines else "", name, shlex.join(command))


def ours(
  command: Sequence[str], kind: Kind, cores: Sequence[int]
) -> dict[str, float]:
  """Runs `benchmarks.throughput` once.

  Args:
    command: see `own_command`.
    kind: of work.
    cores: to run on.

  Returns:
    {"seconds", "fastest", "slowest"} of a call.

  Raises:
    UserError: it failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "figures.json")
    _run([*command, f"--json={file}"], cores)
    found = json.loads(file.read_text(encoding="utf-8"))["figures"]
  return _figures(json.dumps(found), kind.ours, "benchmarks.throughput")


def own_command(kind: Kind, sizes: Sequence[str] = ()) -> list[str]:
  """What measures a kind of work of this project.

  Args:
    kind: of work.
    sizes: flags of `benchmarks.throughput`, where they are not the official
      ones.
  """
  driver = [sys.executable, "-m", "benchmarks.throughput"]
  return [*driver, f"--only={kind.ours}", f"--repeats={kind.repeats}", *sizes]


def _figures(text: str, name: str, of: str) -> dict[str, float]:
  """The three figures of a work, from JSON."""
  try:
    found = json.loads(text)[name]
    return {x: float(found[x]) for x in ("seconds", "fastest", "slowest")}
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{of}: printed {text!r}, not the seconds of {name} as JSON; the head of "
      "benchmarks/pairs.py has an example"
    ) from error


def _run(command: Sequence[str], cores: Sequence[int]) -> str:
  """Runs a command on some cores; gives what it printed."""
  pinned = ["taskset", "-c", ",".join(map(str, cores)), *command]
  threads = {name: str(len(cores)) for name in _THREADS}
  ended = subprocess.run(
    pinned, env=os.environ | threads, capture_output=True, text=True
  )
  if ended.returncode:
    last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise UserError(
      f"{shlex.join(command)}: ended with code {ended.returncode}: {last}"
    )
  return ended.stdout
