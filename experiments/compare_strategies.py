"""Compares search strategies on a benchmark table.

python -m experiments.compare_strategies --json=runs/cora.json
python -m experiments.compare_strategies --table=mine.csv \
  --signal=accuracy --report=accuracy

The same command again runs only the trials that are missing from the file.
--helpfull lists every setting.
"""

from absl import flags

from nao_jax.errors import UserError
from nao_jax.studies import comparison, setups
from nao_jax.studies.curves import draw, show

from . import driver, settings

_STRATEGIES = flags.DEFINE_list(
  "strategies", list(setups.SETUPS), "What to compare, separated by commas."
)
_JSON = flags.DEFINE_string(
  "json",
  None,
  "File for all curves and figures; a plot goes beside it, as .png and .svg.",
)
_THREADS = flags.DEFINE_integer(
  "threads",
  None,
  "Trials at a time; by default as many as processors or devices.",
  lower_bound=1,
)
settings.stands_for("json", "file")
settings.define(comparison.CompareConfig, {})


def main(_):
  """Runs the trials, prints the figures and draws the curves."""
  config = settings.choose({"": comparison.CompareConfig()}, "", {})
  if _JSON.value and _JSON.value.endswith((".png", ".svg")):
    raise UserError(
      f"--json={_JSON.value}: the plot takes that name; give another ending"
    )
  curves = comparison.run(
    config, _STRATEGIES.value, file=_JSON.value, threads=_THREADS.value
  )
  names = [column.title for column in comparison.columns(config)[-2:]]
  show(curves, *names)
  if _JSON.value:
    draw(curves, _JSON.value, *names)


if __name__ == "__main__":
  driver.run(main)
