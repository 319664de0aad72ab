"""Trains one recurrent cell as a language model and measures it on a test text.

python -m experiments.train_rnn --preset=demo --workdir=DIR
python -m experiments.train_rnn --preset=ptb --text=ptb.zip \
  --arch=runs/text/best.json --workdir=runs/text_final

The same command again goes on where a training stopped. --helpfull lists every
setting.
"""

from absl import flags

from nao_jax.tasks import text_training

from . import driver, run_flags, settings

_PRESET = flags.DEFINE_string(
  "preset",
  "ptb",
  f"Settings to start from: {', '.join(text_training.RECIPES)}.",
)
_WORKDIR = run_flags.workdir()
_DEVICES = run_flags.devices()
_CHECKPOINTS = run_flags.checkpoints()
_LOG = run_flags.log()
_TEAM = run_flags.team()
_PREFIXES = {}
# The architecture determines the number of nodes.
settings.define(text_training.TrainRnnConfig, _PREFIXES, fixed=("nodes",))


def main(_):
  """Builds the settings from flags and trains."""
  team = _TEAM()
  text_training.run(
    settings.choose(text_training.RECIPES, _PRESET.value, _PREFIXES),
    workdir=_WORKDIR.value,
    devices=_DEVICES.value,
    checkpoints=_CHECKPOINTS(),
    plain=_LOG.value == "plain",
    team=team,
  )


if __name__ == "__main__":
  driver.run(main)
