"""Searches for a convolutional cell.

python -m experiments.search_cnn --preset=digits_nasbench201 \
  --workdir=runs/digits

The same command again goes on where a search stopped. --helpfull lists every
setting.
"""

from nao_jax import experiment
from nao_jax.tasks import image_presets
from nao_jax.tasks.images import Images

from . import driver, run_flags

_CONFIG = run_flags.config(image_presets.PRESETS, "cifar10")
_WORKDIR = run_flags.workdir()
_DATA_DIR = run_flags.data_dir()
_ARCHITECTURES = run_flags.architectures()
_TRIALS = run_flags.trials()
_EXECUTOR = run_flags.executor()
_OPTIONS = run_flags.options()
_SPECIALISE = run_flags.retired(
  "final_specialise", "all cells of the comparison train in one program"
)


def main(_):
  """Builds the settings from flags and runs the search."""
  options = _OPTIONS()
  _SPECIALISE()
  experiment.run(
    Images(_DATA_DIR.value),
    _CONFIG(),
    workdir=_WORKDIR.value,
    architectures=_ARCHITECTURES.value,
    trials=_TRIALS.value,
    executor=_EXECUTOR(),
    options=options,
  )


if __name__ == "__main__":
  driver.run(main)
