"""Fits a controller on a benchmark table and measures it.

python -m experiments.train_controller --dataset=arxiv --members=600

--helpfull lists every setting.
"""

import json

from absl import flags
import rich.table

from nao_jax.runs import paths, streams
from nao_jax.runs.files import check_writable, write
from nao_jax.studies import controller_study
from nao_jax.studies.controller_study import StudyConfig

from . import driver, settings

_JSON = flags.DEFINE_string("json", None, "File for the figures.")
_PREFIXES = {"controller": "controller_", "fit": "controller_"}
# The architectures to measure on replace the share that is held out.
settings.define(StudyConfig, _PREFIXES, fixed=("held_out",))


def main(_):
  """Fits the controller, measures it and prints the result."""
  config = settings.choose({"": StudyConfig()}, "", _PREFIXES)
  if _JSON.value:
    controller_study.check(config)
    check_writable(_JSON.value, "json")
  found = controller_study.run(config)
  if _JSON.value:
    write(paths.expanded(_JSON.value), json.dumps(found, indent=2) + "\n")
  _show(found)


def _show(found: dict) -> None:
  console = streams.console()
  table = rich.table.Table("held out", "value", "95 % interval")
  for name, part in found["ranking"].items():
    low, high = part["interval"]
    table.add_row(
      name.replace("_", " "), f"{part['value']:.3f}", f"{low:.3f} to {high:.3f}"
    )
  console.print(table)
  table = rich.table.Table("rebuilt", "exactly", "same function", "tokens")
  for name, part in found["reconstruction"].items():
    shares = (f"{part[x]:.3f}" for x in ("exact", "equivalent", "tokens"))
    table.add_row(name.replace("_", " "), *shares)
  console.print(table)
  table = rich.table.Table(
    "step size", "predicted gain", "true gain", "changed", "new"
  )
  for row in found["steps"]:
    table.add_row(
      f"{row['step_size']:g}",
      f"{row['predicted_gain']:+.4f}",
      f"{row['true_gain']:+.3f}",
      f"{row['changed']:.0%}",
      f"{row['new']:.0%}",
    )
  console.print(table)


if __name__ == "__main__":
  driver.run(main)
