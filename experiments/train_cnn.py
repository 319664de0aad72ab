"""Trains one network from scratch and measures it on the test part.

python -m experiments.train_cnn --preset=naonet_a_36_cifar10 --workdir=DIR
python -m experiments.train_cnn --preset=digits --arch=runs/digits/best.json \
  --workdir=runs/digits_final

The same command again goes on where a training stopped. --helpfull lists every
setting.
"""

from absl import flags

from nao_jax.tasks import image_recipes, image_training

from . import driver, run_flags, settings

_PRESET = flags.DEFINE_string(
  "preset",
  "naonet_a_36_cifar10",
  f"Settings to start from: {', '.join(image_recipes.RECIPES)}.",
)
_WORKDIR = run_flags.workdir()
_DATA_DIR = run_flags.data_dir()
_DEVICES = run_flags.devices()
_CHECKPOINTS = run_flags.checkpoints()
_LOG = run_flags.log()
_TEAM = run_flags.team()
_PREFIXES = {"stream": "stream_"}
settings.define(image_recipes.TrainCnnConfig, _PREFIXES)


def main(_):
  """Builds the settings from flags and trains."""
  team = _TEAM()
  image_training.run(
    settings.choose(image_recipes.RECIPES, _PRESET.value, _PREFIXES),
    workdir=_WORKDIR.value,
    data_dir=_DATA_DIR.value,
    devices=_DEVICES.value,
    checkpoints=_CHECKPOINTS(),
    plain=_LOG.value == "plain",
    team=team,
  )


if __name__ == "__main__":
  driver.run(main)
