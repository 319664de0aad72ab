"""Searches for a recurrent cell.

python -m experiments.search_rnn --preset=demo --workdir=runs/text

The same command again goes on where a search stopped. --helpfull lists every
setting.
"""

from nao_jax import experiment
from nao_jax.tasks import text_presets
from nao_jax.tasks.texts import Texts

from . import driver, run_flags

_CONFIG = run_flags.config(text_presets.PRESETS, "ptb")
_WORKDIR = run_flags.workdir()
_ARCHITECTURES = run_flags.architectures()
_TRIALS = run_flags.trials()
_EXECUTOR = run_flags.executor()
_OPTIONS = run_flags.options()


def main(_):
  """Builds the settings from flags and runs the search."""
  options = _OPTIONS()
  experiment.run(
    Texts(),
    _CONFIG(),
    workdir=_WORKDIR.value,
    architectures=_ARCHITECTURES.value,
    trials=_TRIALS.value,
    executor=_EXECUTOR(),
    options=options,
  )


if __name__ == "__main__":
  driver.run(main)
