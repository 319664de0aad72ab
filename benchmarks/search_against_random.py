"""Comparison of searched cells with random ones over many seeds, paired.

python -m benchmarks.search_against_random --preset=digits --seeds=10 \
  --workdir=runs/against --json=against.json

Runs a whole search for each seed, each in a folder of the workdir, and shows
the measurements of its finalists and of the cells in its comparison beside
those of random ones with the same budget. All settings of a search are flags. A
finished search is not run again and a stopped one is resumed, so the same
command with more seeds adds to the existing results.
"""

import dataclasses
import datetime
import json
import math
import pathlib
import shlex
import sys

from absl import flags
import rich.console
import rich.table

from benchmarks import machine, paired
from experiments import driver, run_flags, settings
from nao_jax import experiment
from nao_jax.runs.config_file import git_revision
from nao_jax.runs.files import check_writable, write
from nao_jax.tasks import image_presets
from nao_jax.tasks.images import Images

_PRESET = flags.DEFINE_string("preset", "digits", "Settings to start from.")
_SEEDS = flags.DEFINE_integer(
  "seeds", 10, "Searches, with the seeds 0, 1, ..", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")
_WORKDIR = run_flags.workdir()
_DATA_DIR = run_flags.data_dir()
settings.define(
  image_presets.SearchCnnConfig,
  settings.SEARCH_PREFIXES,
  fixed=("step_sizes", "seed"),
)


def main(_):
  """Runs a search with each seed, and shows all of them."""
  if _JSON.value is not None:
    check_writable(_JSON.value, "--json")
  config = settings.choose(
    image_presets.PRESETS, _PRESET.value, settings.SEARCH_PREFIXES
  )
  found = [
    experiment.run(
      Images(_DATA_DIR.value),
      dataclasses.replace(config, seed=seed),
      workdir=str(pathlib.Path(_WORKDIR.value) / f"seed_{seed}"),
    )
    for seed in range(_SEEDS.value)
  ]
  pairs = paired.pairs(found, "accuracy")
  table = rich.table.Table(title=f"{len(found)} searches", title_justify="left")
  for heading in paired.HEAD:
    table.add_column(heading)
  for pair in pairs:
    table.add_row(*paired.row(pair))
  console = rich.console.Console()
  console.print(table)
  for pair in pairs:
    by_seed = " ".join(f"{x:+.4f}" for x in pair.searched - pair.random)
    console.print(f"{pair.what}, differences by seed: {by_seed}")
  if _JSON.value is not None:
    _write(config, pairs)


def _write(
  config: image_presets.SearchCnnConfig, pairs: list[paired.Pair]
) -> None:
  """Writes a file of results for `benchmarks.tables`, with all values."""
  command = shlex.join(["python", "-m", *_command()])
  content = {
    "title": f"Searches against random cells: {_PRESET.value}",
    "date": datetime.date.today().isoformat(),
    "machine": machine.name(),
    "command": command,
    "commit": git_revision(),
    "columns": paired.HEAD,
    "rows": [paired.row(pair) for pair in pairs],
    "note": f"{_SEEDS.value} searches with `{config.strategy}`.",
    "values": {
      pair.what: {
        name: [x if math.isfinite(x) else None for x in getattr(pair, name)]
        for name in paired.GROUPS
      }
      for pair in pairs
    },
  }
  text = json.dumps(content, indent=1) + "\n"
  write(pathlib.Path(_JSON.value), text)


def _command() -> list[str]:
  """Returns the command as given, without the folders of this machine."""
  folders = ("workdir", "json", "data_dir", "compilation_cache")
  given = [
    argument
    for argument in sys.argv[1:]
    if argument.lstrip("-").partition("=")[0] not in folders
  ]
  return ["benchmarks.search_against_random", *given]


if __name__ == "__main__":
  driver.run(main)
