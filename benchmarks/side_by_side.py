"""Times this project and a peer in turn, on one machine.

python -m benchmarks.side_by_side --peer='PYTHON torch_speed.py' \
  --about='eager PyTorch 2.13.0' --pairs=10
python -m benchmarks.side_by_side --peer='PYTHON torch_controller.py' \
  --only=controller_fit,propose
python -m benchmarks.side_by_side --about='eager PyTorch 2.13.0' \
  --peer='PYTHON benchmarks/peers/nasbench201_torch.py' \
  --only=nasbench201_train,nasbench201_score

A peer is any program that prints its figures as benchmarks/pairs.py describes.
Each measurement is a separate process, pinned to the same cores and with as
many threads; in every other pair the peer runs last. Only the ratio within a
pair is meaningful, and only on a machine that runs nothing else.

Results are kept in a file, work by work: measuring one again replaces it, and a
run that was stopped keeps the pairs that it has. `python -m benchmarks.tables`
writes them into the pages.
"""

from collections.abc import Sequence
import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import shutil
import statistics

from absl import flags, logging

from benchmarks import machine, pairs, results
from benchmarks.pairs import KINDS
from benchmarks.tables import RESULTS
from benchmarks.work import Sizes
from experiments import driver, settings
from nao_jax.errors import UserError
from nao_jax.runs import streams
from nao_jax.runs.config_file import git_revision

_PEER = flags.DEFINE_string(
  "peer", None, "Command of the peer, to which a name is added.", required=True
)
_ABOUT = flags.DEFINE_string(
  "about", "", "What the peer is, with its version, for the tables."
)
_PAIRS = flags.DEFINE_integer("pairs", 10, "Of each work.", lower_bound=1)
_ONLY = flags.DEFINE_list(
  "only", None, "Works to time; by default all that torch_speed.py knows."
)
_CORES = flags.DEFINE_string(
  "cores",
  None,
  "Cores to run on, as `0,1`; all by default. What is measured on one core runs"
  " on the last of them.",
)
_JSON = flags.DEFINE_string("json", str(RESULTS), "File of results.")
# Sizes of our side, for a peer whose sizes are not the official ones.
settings.define(Sizes, {})


def _about(
  peer: Sequence[str], ours: Sequence[str], cores: Sequence[int]
) -> dict:
  """Describes when, where and how a work is measured, without local paths."""
  return {
    "date": datetime.date.today().isoformat(),
    "cores": list(cores),
    "about": _ABOUT.value,
    "peer": [pathlib.Path(part).name for part in peer],
    "ours": [pathlib.Path(ours[0]).name, *ours[1:]],
    "versions": {
      "python": platform.python_version(),
      "jax": importlib.metadata.version("jax"),
    },
  }


def _names() -> list[str]:
  """Returns the names of the works to measure."""
  usual = [name for name, kind in KINDS.items() if kind.default]
  names = usual if _ONLY.value is None else _ONLY.value
  for name in names:
    if name not in KINDS:
      raise UserError(f"--only={name}: unknown; allowed: {', '.join(KINDS)}")
  return names


def _cores() -> list[int]:
  """Returns the cores to run on."""
  allowed = sorted(os.sched_getaffinity(0))
  if _CORES.value is None:
    return allowed
  try:
    cores = machine.numbers(_CORES.value)
  except ValueError:
    cores = []
  if not cores or not set(cores) <= set(allowed):
    raise UserError(
      f"--cores={_CORES.value}: allowed are some of "
      f"{','.join(map(str, allowed))}, separated by commas"
    )
  return cores


def _row(name: str, entry: dict) -> dict[str, str]:
  """Describes the ratios of a work, pair by pair, with their median."""
  values = pairs.ratios(entry["pairs"])
  return {
    "work": name,
    "cores": ",".join(map(str, entry["cores"])),
    "pair by pair": " ".join(f"{value:.2f}" for value in values),
    "median": f"{statistics.median(values):.2f}",
    "least": f"{min(values):.2f}",
    "most": f"{max(values):.2f}",
  }


def _measure(
  names: list[str], peer: list[str], allowed: list[int], held: dict
) -> None:
  """Adds works to the results, and writes the file after every pair."""
  about = {"machine": machine.describe() | machine.measure()._asdict()}
  about["commit"] = git_revision()
  if (load := about["machine"]["load"]) > 0.5:
    logging.warning("load %.2f: something else runs, ratios will vary", load)
  for name in names:
    kind = KINDS[name]
    cores = allowed[-1:] if kind.one_core else allowed
    own = pairs.own_command(kind, settings.given(Sizes))
    entry = {**about, **_about(peer, own, cores), "pairs": []}
    for pair in pairs.run(
      functools.partial(pairs.peer, peer, name, cores),
      functools.partial(pairs.ours, own, kind, cores),
      _PAIRS.value,
    ):
      logging.info("%s: %.2f", name, pairs.ratios([pair])[0])
      entry["pairs"].append(pair)
      held[name] = entry
      results.write(_JSON.value, held)


def main(_):
  """Measures pair by pair, and prints the ratios."""
  if shutil.which("taskset") is None:
    raise UserError("taskset: not found; it comes with util-linux, on Linux")
  names, held = _names(), results.read(_JSON.value, {})
  _measure(names, shlex.split(_PEER.value), _cores(), held)
  rows = [_row(name, held[name]) for name in names]
  streams.show(rows, "the peer's time / ours", wide=140)


if __name__ == "__main__":
  driver.run(main)
