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
import math
import pathlib

from absl import flags
import numpy as np

from benchmarks import paired, results
from experiments import driver, run_flags
from nao_jax import experiment
from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table
from nao_jax.report import standing
from nao_jax.runs import streams
from nao_jax.runs.files import check_writable
from nao_jax.tasks import image_presets
from nao_jax.tasks.images import Images

_CONFIG = run_flags.config(image_presets.PRESETS, "digits", fixed=("seed",))
_SEEDS = flags.DEFINE_integer(
  "seeds", 10, "Searches, with the seeds 0, 1, ..", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")
_PICTURE = flags.DEFINE_string(
  "picture", None, "With --table: picture of the finalists among all cells."
)
_WORKDIR = run_flags.workdir()
_DATA_DIR = run_flags.data_dir()
_TRUTH = run_flags.truth()


def main(_):
  """Runs a search with each seed, and shows all of them."""
  if _JSON.value is not None:
    check_writable(_JSON.value, "--json")
  truth = _TRUTH()
  if _PICTURE.value is not None:
    if truth is None:
      raise UserError("--picture: needs --table")
    check_writable(_PICTURE.value, "--picture")
  config = _CONFIG()
  found = [
    experiment.run(
      Images(_DATA_DIR.value),
      dataclasses.replace(config, seed=seed),
      workdir=str(pathlib.Path(_WORKDIR.value) / f"seed_{seed}"),
    )
    for seed in range(_SEEDS.value)
  ]
  pairs = paired.pairs(found, "accuracy", truth)
  rows = [paired.row(pair) for pair in pairs]
  streams.show(rows, f"{len(found)} searches", wide=140)
  for pair in pairs:
    by_seed = " ".join(f"{x:+.4f}" for x in pair.searched - pair.random)
    print(f"{pair.what}, differences by seed: {by_seed}")
  if _PICTURE.value is not None:
    _draw(found, truth)
  if _JSON.value is not None:
    content = results.table(
      f"Searches against random cells: {flags.FLAGS.preset}",
      "benchmarks.search_against_random",
      rows,
      f"{_SEEDS.value} searches with `{config.strategy}`.",
    )
    values = {pair.what: _values(pair) for pair in pairs}
    results.write(_JSON.value, content | {"values": values})


def _draw(found: list[dict], truth: Table) -> None:
  """Draws the finalists of all searches among all cells of their space."""
  tokens = {
    group: [
      cell["tokens"] for best in found for cell in best["finalists"][group]
    ]
    for group in ("random", "searched")
  } | {"winner": [best["tokens"] for best in found]}
  groups = {name: truth.lookup(np.array(own)) for name, own in tokens.items()}
  figure = standing.plot(truth.scores, groups, "true accuracy, %")
  figure.savefig(_PICTURE.value, dpi=150)


def _values(pair: paired.Pair) -> dict[str, list[float | None]]:
  """Returns all figures of a pair, JSON-like."""
  return {
    name: [x if math.isfinite(x) else None for x in getattr(pair, name)]
    for name in paired.GROUPS
  }


if __name__ == "__main__":
  driver.run(main)
