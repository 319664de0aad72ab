"""Searches for a recurrent cell.

python -m experiments.search_rnn --preset=demo --workdir=runs/text

The same command again goes on where a search stopped. --helpfull lists every
setting.
"""

from absl import flags

from nao_jax.tasks import text_presets, text_search

from . import driver, run_flags, settings

_PRESET = flags.DEFINE_string(
  "preset", "ptb", f"Settings to start from: {', '.join(text_presets.PRESETS)}."
)
_WORKDIR = run_flags.workdir()
_ARCHITECTURES = run_flags.architectures()
_TRIALS = run_flags.trials()
_EXECUTOR = run_flags.executor()
_DEVICES = run_flags.devices()
_CHECKPOINTS = run_flags.checkpoints()
_LOG = run_flags.log()
_TEAM = run_flags.team()
settings.define(
  text_presets.SearchRnnConfig, settings.SEARCH_PREFIXES, fixed=("step_sizes",)
)


def main(_):
  """Builds the settings from flags and runs the search."""
  team = _TEAM()
  text_search.run(
    settings.choose(
      text_presets.PRESETS, _PRESET.value, settings.SEARCH_PREFIXES
    ),
    workdir=_WORKDIR.value,
    architectures=_ARCHITECTURES.value,
    trials=_TRIALS.value,
    devices=_DEVICES.value,
    checkpoints=_CHECKPOINTS(),
    plain=_LOG.value == "plain",
    executor=_EXECUTOR(),
    team=team,
  )


if __name__ == "__main__":
  driver.run(main)
