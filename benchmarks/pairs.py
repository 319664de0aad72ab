"""Measurement of two programs in turn, pair by pair: this project and a peer.

A peer is a program that takes the NAME of a work and prints, as its last line,
the seconds of a call: {"NAME": {"seconds": MEDIAN, "fastest": SECONDS,
"slowest": SECONDS}}.
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

# Variables for the number of threads, in case a library ignores the pinning.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")


class Kind(NamedTuple):
  """A kind of work that both programs can do.

  Attributes:
    ours: its name in `benchmarks.throughput`.
    repeats: calls that are timed in a process, as many as the peer's.
    one_core: whether it is measured on one core.
    default: whether it is measured when no work is named.
    sizes: flags of `benchmarks.throughput` for sizes that are not its defaults.
  """

  ours: str
  repeats: int
  one_core: bool = False
  default: bool = True
  sizes: tuple[str, ...] = ()


def _edges(work: str, repeats: int, channels: int, cells: int) -> Kind:
  """Returns work of the peer benchmarks/peers/nasbench201_torch.py."""
  sizes = f"--channels={channels}", f"--cells_per_stage={cells}", "--batch=64"
  return Kind(f"edge_supernet_{work}", repeats, default=False, sizes=sizes)


# By the peer's name.
KINDS = {
  "supernet_train": Kind("supernet_train", 12),
  "supernet_score": Kind("supernet_score", 20),
  "rnn_train": Kind("rnn_supernet_train", 5, one_core=True),
  "rnn_score": Kind("rnn_supernet_score", 10, one_core=True),
  "controller_fit": Kind("controller_fit", 10, default=False),
  "propose": Kind("propose", 20, default=False),
  "nasbench201_train": _edges("train", 6, channels=16, cells=5),
  "nasbench201_score": _edges("score", 10, channels=16, cells=5),
  "nasbench201_small_train": _edges("train", 12, channels=8, cells=2),
  "nasbench201_small_score": _edges("score", 20, channels=8, cells=2),
}

# Runs the work and returns its median, fastest and slowest seconds.
Measure = Callable[[], dict[str, float]]


def run(peer: Measure, ours: Measure, count: int) -> Iterator[dict]:
  """Measures both in turn.

  Args:
    peer: measures the peer.
    ours: measures this project.
    count: number of pairs.

  Yields:
    {"first": which was first, "peer": the peer's figures, "ours": our figures}.
  """
  both = {"peer": peer, "ours": ours}
  for number in range(count):
    order = [*both] if number % 2 == 0 else [*both][::-1]
    found = {name: both[name]() for name in order}
    yield {"first": order[0], **{name: found[name] for name in both}}


def ratios(found: Sequence[dict]) -> list[float]:
  """Returns the peer's median time over ours, pair by pair."""
  return [pair["peer"]["seconds"] / pair["ours"]["seconds"] for pair in found]


def peer(
  command: Sequence[str], name: str, cores: Sequence[int]
) -> dict[str, float]:
  """Runs a peer once.

  Returns:
    {"seconds", "fastest", "slowest"} of a call.

  Raises:
    UserError: the peer failed, or did not print the figures.
  """
  lines = _run([*command, name], cores).strip().splitlines()
  return _figures(lines[-1] if lines else "", name, shlex.join(command))


def ours(
  command: Sequence[str], kind: Kind, cores: Sequence[int]
) -> dict[str, float]:
  """Runs `benchmarks.throughput` once.

  Returns:
    {"seconds", "fastest", "slowest"} of a call.

  Raises:
    UserError: the benchmark failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "figures.json")
    _run([*command, f"--json={file}"], cores)
    found = json.loads(file.read_text(encoding="utf-8"))["figures"]
  return _figures(json.dumps(found), kind.ours, "benchmarks.throughput")


def own_command(kind: Kind, sizes: Sequence[str] = ()) -> list[str]:
  """Returns the command that measures a kind of work of this project.

  Args:
    kind: kind of the work.
    sizes: flags of `benchmarks.throughput` for sizes that are not the kind's.
  """
  driver = [sys.executable, "-m", "benchmarks.throughput"]
  known = f"--only={kind.ours}", f"--repeats={kind.repeats}", *kind.sizes
  return [*driver, *known, *sizes]


def _figures(text: str, name: str, of: str) -> dict[str, float]:
  """Reads the three figures of a work from JSON."""
  try:
    found = json.loads(text)[name]
    return {x: float(found[x]) for x in ("seconds", "fastest", "slowest")}
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{of}: printed {text!r}, not the seconds of {name} as JSON; the head of "
      "benchmarks/pairs.py has an example"
    ) from error


def _run(command: Sequence[str], cores: Sequence[int]) -> str:
  """Runs a command on some cores; returns its output."""
  pinned = ["taskset", "-c", ",".join(map(str, cores)), *command]
  threads = {name: str(len(cores)) for name in _THREADS}
  ended = subprocess.run(
    pinned, env=os.environ | threads, capture_output=True, text=True
  )
  if ended.returncode:
    last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    raise UserError(
      f"{shlex.join(command)}: ended with code {ended.returncode}: {last}"
    )
  return ended.stdout
