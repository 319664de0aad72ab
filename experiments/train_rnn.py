"""Trains one recurrent cell as a language model and measures it on a test text.

python -m experiments.train_rnn --preset=demo --workdir=DIR
python -m experiments.train_rnn --preset=ptb --text=ptb.zip \
  --arch=runs/text/best.json --workdir=runs/text_final

The same command again goes on where a training stopped. --helpfull lists every
setting.
"""

from nao_jax import final_training
from nao_jax.tasks import text_recipes
from nao_jax.tasks.texts import Texts

from . import driver, run_flags

# The architecture determines the number of nodes.
_CONFIG = run_flags.config(text_recipes.RECIPES, "ptb", {}, fixed=("nodes",))
_WORKDIR = run_flags.workdir()
_OPTIONS = run_flags.options()


def main(_):
  """Builds the settings from flags and trains."""
  options = _OPTIONS()
  final_training.run(
    Texts(), _CONFIG(), workdir=_WORKDIR.value, options=options
  )


if __name__ == "__main__":
  driver.run(main)
