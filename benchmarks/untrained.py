r"""Agreement of what is known without training with true scores.

python -m benchmarks.untrained --preset=cifar10_nasbench201 \
  --dataset=cifar10_16 --table=FILE --data_dir=DIR --json=FILE

Random functions of the table's space are ranked by their costs and by scores of
their networks at first weights, with several seeds of weights and images, and
by the mean ranks of parameters and some of these scores.
"""

import itertools
import time

from absl import flags
import numpy as np
from scipy import stats

from benchmarks import rankings, results
from experiments import driver, run_flags
from nao_jax.errors import UserError
from nao_jax.runs import streams
from nao_jax.studies import ranking
from nao_jax.tasks import image_presets, image_proxies
from nao_jax.tasks.image_training import open_data

_CONFIG = run_flags.config(image_presets.PRESETS, "digits")
_DATA_DIR = run_flags.data_dir()
_JSON = flags.DEFINE_string("json", None, "File of results.", required=True)
_TRUTH = run_flags.truth()
_CANDIDATES = flags.DEFINE_integer(
  "candidates", 500, "Architectures to compare.", lower_bound=2
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Of the networks.", lower_bound=1)


def main(_):
  """Computes all signals and shows their agreement with the true scores."""
  config, table = _CONFIG(), _TRUTH()
  network = rankings.network(config)
  if table is None or table.space is not network.space:
    raise UserError(
      f"--table: give one of the space {network.space.name!r}, or --space"
    )
  data = open_data(config, _DATA_DIR.value)
  functions = table.space.functions
  rows = np.random.default_rng(0).permutation(len(table.scores))
  rows = np.sort(rows[: _CANDIDATES.value])
  tokens = functions.tokens(functions.representative[rows])
  found, seconds = {}, {}
  for seed in range(_SEEDS.value):
    signals = image_proxies.proxies(image_proxies.NAMES, network, data, seed)
    values = {}
    for signal in signals:
      start = time.monotonic()
      values[signal.name] = signal.values(table.space, tokens)
      seconds.setdefault(signal.name, []).append(time.monotonic() - start)
    for name, one in (values | _joined(values)).items():
      figures = ranking.agreement(one, table.scores[rows]).figures
      found.setdefault(name, []).append(figures)
  _show(found, seconds)


def _joined(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the mean ranks of the parameters and each set of scores."""
  ranks = {name: stats.rankdata(one) for name, one in values.items()}
  costs, _, *scores = ranks
  return {
    ", ".join([costs, *chosen]): sum(ranks[name] for name in [costs, *chosen])
    for count in range(1, len(scores) + 1)
    for chosen in itertools.combinations(scores, count)
  }


def _show(found: dict[str, list[dict]], seconds: dict) -> None:
  """Shows and saves the figures."""
  rows = [
    {"signals": name}
    | {part: ranking.shown([one[part] for one in own]) for part in own[0]}
    | {"seconds": f"{min(seconds[name]):.1f}" if name in seconds else ""}
    for name, own in found.items()
  ]
  title = "agreement with true scores (half of the 95 % interval over seeds)"
  streams.show(rows, title, wide=180)
  results.write(
    _JSON.value,
    results.table(
      f"Signals without training against true scores: {flags.FLAGS.preset}",
      "benchmarks.untrained",
      rows,
      f"{_CANDIDATES.value} architectures, {_SEEDS.value} seeds of weights and "
      "images. Seconds are of the fastest seed, all architectures.",
    ),
  )


if __name__ == "__main__":
  driver.run(main)
