"""Trains one recurrent cell as a language model and measures it on a test text.

python -m experiments.train_rnn --preset=demo --workdir=DIR
python -m experiments.train_rnn --preset=ptb --text=ptb.zip \
  --arch=runs/text/best.json --workdir=runs/text_final

The same command again goes on where a training stopped. --helpfull lists every
setting.
"""

from absl import flags

from experiments import driver, settings
from nao_jax import rnn_training
from nao_jax.cnn_training import CheckpointConfig

_PRESET = flags.DEFINE_string(
  "preset",
  "ptb",
  f"Settings to start from: {', '.join(rnn_training.RECIPES)}.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of this run.", required=True
)
_DEVICES = flags.DEFINE_integer(
  "devices", None, "Local devices to use; all by default.", lower_bound=1
)
_MINUTES = flags.DEFINE_float(
  "checkpoint_minutes",
  rnn_training.CHECKPOINTS.minutes,
  "The state is saved when this long has passed since the last time.",
  lower_bound=0.0,
)
_STEPS = flags.DEFINE_integer(
  "checkpoint_steps",
  rnn_training.CHECKPOINTS.steps,
  "Or this many steps, looked at every 25 steps at least; 0 for no such limit.",
  lower_bound=0,
)
_PREFIXES = {}
settings.define(rnn_training.TrainRnnConfig, _PREFIXES)


def main(_):
  """Builds the settings from flags and trains."""
  rnn_training.run(
    settings.choose(rnn_training.RECIPES, _PRESET.value, _PREFIXES),
    workdir=_WORKDIR.value,
    devices=_DEVICES.value,
    checkpoints=CheckpointConfig(_MINUTES.value, _STEPS.value),
  )


if __name__ == "__main__":
  driver.run(main)
