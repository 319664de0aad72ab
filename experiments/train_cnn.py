"""Trains one network from scratch and measures it on the test part.

python -m experiments.train_cnn --preset=naonet_a_36_cifar10 --workdir=DIR
python -m experiments.train_cnn --preset=digits --arch=runs/digits/best.json \
  --workdir=runs/digits_final

The same command again goes on where a training stopped. --helpfull lists every
setting.
"""

from absl import flags

from experiments import driver, settings
from nao_jax import cnn_training, recipes

_PRESET = flags.DEFINE_string(
  "preset",
  "naonet_a_36_cifar10",
  f"Settings to start from: {', '.join(recipes.RECIPES)}.",
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of this run.", required=True
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", "~/.cache/nao_jax/data", "Directory of TFDS data sets."
)
_DEVICES = flags.DEFINE_integer(
  "devices", None, "Local devices to use; all by default.", lower_bound=1
)
_MINUTES = flags.DEFINE_float(
  "checkpoint_minutes",
  cnn_training.CheckpointConfig.minutes,
  "The state is saved when this long has passed since the last time.",
  lower_bound=0.0,
)
_STEPS = flags.DEFINE_integer(
  "checkpoint_steps",
  cnn_training.CheckpointConfig.steps,
  "Or this many steps, looked at every 25 steps at least; 0 for no such limit.",
  lower_bound=0,
)
_PREFIXES = {"stream": "stream_"}
settings.define(recipes.TrainCnnConfig, _PREFIXES)


def main(_):
  """Builds the settings from flags and trains."""
  cnn_training.run(
    settings.choose(recipes.RECIPES, _PRESET.value, _PREFIXES),
    workdir=_WORKDIR.value,
    data_dir=_DATA_DIR.value,
    devices=_DEVICES.value,
    checkpoints=cnn_training.CheckpointConfig(_MINUTES.value, _STEPS.value),
  )


if __name__ == "__main__":
  driver.run(main)
