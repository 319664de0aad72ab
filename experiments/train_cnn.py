"""Trains one network from scratch and measures it on the test part.

python -m experiments.train_cnn --preset=naonet_a_36_cifar10 --workdir=DIR
python -m experiments.train_cnn --preset=digits_nasbench201 \
  --arch=runs/digits/best.json --workdir=runs/digits_final

The same command again goes on where a training stopped. --helpfull lists every
setting.
"""

from nao_jax import final_training
from nao_jax.tasks import image_recipes
from nao_jax.tasks.images import Images

from . import driver, run_flags

_CONFIG = run_flags.config(
  image_recipes.RECIPES,
  "naonet_a_36_cifar10",
  {"mobile": "mobile_", "stream": "stream_"},
)
_WORKDIR = run_flags.workdir()
_DATA_DIR = run_flags.data_dir()
_OPTIONS = run_flags.options()


def main(_):
  """Builds the settings from flags and trains."""
  options = _OPTIONS()
  final_training.run(
    Images(_DATA_DIR.value), _CONFIG(), workdir=_WORKDIR.value, options=options
  )


if __name__ == "__main__":
  driver.run(main)
