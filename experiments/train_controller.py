"""Fits a controller on a benchmark table and measures it.

python -m experiments.train_controller --dataset=arxiv --members=600

--helpfull lists every setting.
"""

import json

from absl import flags

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
  streams.show(
    [
      {
        "held out": name.replace("_", " "),
        "value": f"{part['value']:.3f}",
        "95 % interval": "{:.3f} to {:.3f}".format(*part["interval"]),
      }
      for name, part in found["ranking"].items()
    ]
  )
  streams.show(
    [
      {
        "rebuilt": name.replace("_", " "),
        "exactly": f"{part['exact']:.3f}",
        "same function": f"{part['equivalent']:.3f}",
        "tokens": f"{part['tokens']:.3f}",
      }
      for name, part in found["reconstruction"].items()
    ]
  )
  streams.show(
    [
      {
        "step size": f"{row['step_size']:g}",
        "predicted gain": f"{row['predicted_gain']:+.4f}",
        "true gain": f"{row['true_gain']:+.3f}",
        "changed": f"{row['changed']:.0%}",
        "new": f"{row['new']:.0%}",
      }
      for row in found["steps"]
    ]
  )


if __name__ == "__main__":
  driver.run(main)
