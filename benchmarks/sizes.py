"""Growth of the devices' work with networks, tokens, text and devices.

python -m benchmarks.sizes [--folder=DIR] [--picture=FILE.png]

One size at a time differs from the official search's; each value is measured by
benchmarks.throughput in a separate process. Devices are made of this
machine's cores: their number shows the cost of distributing work, not its gain.
With --folder the figures are kept, and existing ones are not measured again;
use another folder for another machine or another state of the code.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

from absl import flags
from matplotlib.figure import Figure
import numpy as np

from benchmarks.counting import exponent
from benchmarks.work import Sizes
from experiments import driver
from nao_jax.runs import streams

_FOLDER = flags.DEFINE_string("folder", None, "Keeps the figures.")
_PICTURE = flags.DEFINE_string("picture", None, "File to draw the curves to.")
_REPEATS = flags.DEFINE_integer("repeats", 30, "Counted calls.", lower_bound=1)


class Sweep(NamedTuple):
  """One size that takes several values.

  Attributes:
    title: name of the size in tables and plots.
    flag: flag of benchmarks.throughput.
    values: values of the flag, ascending.
    works: names of the works that are measured, see benchmarks.throughput.
    scale: factor from a value of the flag to the size in the title.
  """

  title: str
  flag: str
  values: tuple[int, ...]
  works: tuple[str, ...]
  scale: int = 1

  @property
  def sizes(self) -> tuple[int, ...]:
    """The values in units of the title."""
    return tuple(self.scale * value for value in self.values)


_SUPERNET = ("supernet_train", "supernet_score")
_TOKENS_A_NODE = 8
SWEEPS = (
  Sweep("nodes in a cell", "nodes", (3, 5, 7), _SUPERNET),
  Sweep("cells a stage", "cells_per_stage", (1, 3, 6), _SUPERNET),
  Sweep("channels", "channels", (10, 20, 40), _SUPERNET),
  Sweep("devices", "devices", (1, 2, 4, 8), _SUPERNET),
  Sweep(
    "tokens of an architecture",
    "nodes",
    (2, 3, 5, 7),
    ("controller_fit", "propose"),
    _TOKENS_A_NODE,
  ),
  Sweep(
    "words of a window",
    "steps",
    (9, 18, 35, 70),
    ("rnn_supernet_train", "rnn_supernet_score"),
  ),
)


def measured(sweep: Sweep, value: int, folder: str) -> dict[str, dict]:
  """Returns the figures of the sweep's works at one value, {name: figures}."""
  official = value == getattr(Sizes(), sweep.flag)
  name = "official" if official else f"{sweep.flag}-{value}"
  file = pathlib.Path(folder, f"{sweep.works[0]}-{name}.json")
  if not file.exists():
    # The file is renamed at the end, so that it is complete or absent.
    part = file.with_suffix(".part")
    count = value if sweep.flag == "devices" else 1
    devices = f"--xla_force_host_platform_device_count={count}"
    subprocess.run(
      [
        *(sys.executable, "-m", "benchmarks.throughput"),
        *(f"--only={','.join(sweep.works)}", f"--{sweep.flag}={value}"),
        *(f"--repeats={_REPEATS.value}", f"--json={part}"),
      ],
      check=True,
      # If a flag is given twice, the last one counts.
      env=os.environ
      | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}"},
      stdout=subprocess.DEVNULL,
    )
    part.replace(file)
  return json.loads(file.read_text(encoding="utf-8"))["figures"]


class Curve(NamedTuple):
  """One work over the values of a sweep.

  Attributes:
    sweep: the size that grows.
    work: its name.
    figures: figures at each value, as benchmarks.throughput writes them.
  """

  sweep: Sweep
  work: str
  figures: list[dict]

  def amounts(self, name: str) -> list[float]:
    """Returns one figure at every value."""
    return [found[name] for found in self.figures]

  def exponent(self, name: str = "seconds") -> float:
    """Returns the exponent of the growth of that figure."""
    return exponent(self.sweep.sizes, self.amounts(name))


def curves(folder: str) -> list[Curve]:
  """Returns the curves of all sweeps; measures those not in the folder."""
  found = []
  for sweep in SWEEPS:
    rows = [measured(sweep, value, folder) for value in sweep.values]
    found += [
      Curve(sweep, work, [row[work] for row in rows]) for work in sweep.works
    ]
  return found


def _row(curve: Curve) -> dict[str, str]:
  return {
    "grows": curve.sweep.title,
    "sizes": ", ".join(map(str, curve.sweep.sizes)),
    "work": curve.work,
    "ms": ", ".join(f"{1e3 * x:.0f}" for x in curve.amounts("seconds")),
    "exponent": f"{curve.exponent():.2f}",
    "floor's": f"{curve.exponent('floor'):.2f}",
    "memory MB": ", ".join(f"{x / 1e6:.0f}" for x in curve.amounts("memory")),
  }


def _draw(found: list[Curve], file: str) -> None:
  figure = Figure(figsize=(9, 5.5), layout="constrained")
  places = dict(zip(SWEEPS, figure.subplots(2, 3).flat, strict=True))
  for curve in found:
    place, sizes = places[curve.sweep], curve.sweep.sizes
    label = f"{curve.work}, exponent {curve.exponent():.1f}"
    middle, low, high = (
      1e3 * np.array(curve.amounts(name))
      for name in ("seconds", "fastest", "slowest")
    )
    (line,) = place.loglog(sizes, middle, marker="o", label=label)
    place.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2)
    place.set_xticks(sizes, map(str, sizes))
    place.set_xticks([], minor=True)
    place.set(xlabel=curve.sweep.title, ylabel="ms a call")
    place.grid(alpha=0.3)
  for place in places.values():
    place.set_ylim(place.get_ylim()[0], 3 * place.get_ylim()[1])
    place.legend(frameon=False, fontsize=7, loc="upper left")
  figure.savefig(file, dpi=150)


def main(_):
  """Measures, prints a table and draws."""
  with contextlib.ExitStack() as stack:
    folder = _FOLDER.value
    if folder:
      pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    else:
      folder = stack.enter_context(tempfile.TemporaryDirectory())
    found = curves(folder)
  streams.show([*map(_row, found)], "how a call grows", wide=140)
  if _PICTURE.value:
    _draw(found, _PICTURE.value)


if __name__ == "__main__":
  driver.run(main)
