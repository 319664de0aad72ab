"""Searches for a recurrent cell.

python -m experiments.search_rnn --preset=demo --workdir=runs/text

The same command again goes on where a search stopped. --helpfull lists every
setting.
"""

from absl import flags

from experiments import driver, settings
from nao_jax import rnn_presets, rnn_search

_PRESET = flags.DEFINE_string(
  "preset", "ptb", f"Settings to start from: {', '.join(rnn_presets.PRESETS)}."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of this run.", required=True
)
_ARCH = flags.DEFINE_multi_string(
  "arch",
  [],
  "Architecture that starts in the pool: a name, numbers in the published"
  " notation, tokens, or a .json file with `tokens`. Repeat for more.",
)
_TRIALS = flags.DEFINE_string(
  "trials",
  None,
  "With --evaluator=scratch: file of trials to share with other searches; one"
  " in the workdir by default.",
)
_DEVICES = flags.DEFINE_integer(
  "devices", None, "Local devices to use; all by default.", lower_bound=1
)
_PREFIXES = {
  "controller": "controller_",
  "fit": "controller_",
  "final": "final_",
}
settings.define(rnn_presets.SearchRnnConfig, _PREFIXES)


def main(_):
  """Builds the settings from flags and runs the search."""
  rnn_search.run(
    settings.choose(rnn_presets.PRESETS, _PRESET.value, _PREFIXES),
    workdir=_WORKDIR.value,
    architectures=_ARCH.value,
    trials=_TRIALS.value,
    devices=_DEVICES.value,
  )


if __name__ == "__main__":
  driver.run(main)
