r"""Agreement of shared weights with trainings from scratch in ranking.

python -m benchmarks.shared_ranking --dataset=NAME --data_dir=DIR \
  --trials=FILE --json=FILE

Trains supernets on the same random pool, in each variant and with several
seeds, and compares the scores of some members with their scores from scratch.
These trainings are saved in the file of trials. They are measured on the test
part, the shared weights on the validation part, so that chance in the choice of
images does not affect both. The same command again continues with the next
supernet.
"""

import dataclasses
import json
import pathlib

from absl import flags, logging
import jax
import numpy as np
import rich.console
import rich.table
from scipy import stats

from experiments import driver, settings
from nao_jax.data import images
from nao_jax.errors import UserError
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.evaluators.shared import SAMPLINGS, SharedWeights, check_each_step
from nao_jax.networks.cost import cost
from nao_jax.runs import json_file
from nao_jax.runs.files import write
from nao_jax.runs.trials import Trials
from nao_jax.settings import flatten
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import sample_new
from nao_jax.tasks import image_presets
from nao_jax.training import candidate, supernet

_PRESET = flags.DEFINE_string("preset", "digits", "Settings to start from.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", "~/.cache/nao_jax/data", "Directory of TFDS data sets."
)
_JSON = flags.DEFINE_string("json", None, "File of results.", required=True)
_TRIALS = flags.DEFINE_string(
  "trials", None, "File of trainings from scratch.", required=True
)
_CANDIDATES = flags.DEFINE_integer(
  "candidates", 20, "Members to train from scratch.", lower_bound=3
)
_EPOCHS = flags.DEFINE_integer(
  "candidate_epochs", 8, "Epochs of each, from scratch.", lower_bound=1
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 1, "Trainings of each, whose mean counts.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Of the supernets.", lower_bound=1)
_VARIANTS = flags.DEFINE_list(
  "variants",
  ["uniform", "parameters"],
  "How supernets train: a --sampling, and after a colon the"
  " --architectures_per_step. Each is compared with the first.",
)
settings.define(
  image_presets.SearchCnnConfig,
  settings.SEARCH_PREFIXES,
  fixed=("step_sizes", "sampling", "architectures_per_step"),
)


def main(_):
  """Trains missing supernets and candidates, and shows all results."""
  config, data = _configured()
  variants = _VARIANTS.value
  for variant in variants:
    check_each_step(
      _parsed(variant)[1], config.train.batch, config.search.pool_size, None
    )
  network = config.network
  space = cnn.space(network.nodes, network.ops)
  key = jax.random.key(config.seed)
  pool = sample_new(space, key, config.search.pool_size, set())
  found = _started(config, data, pool)
  for seed in range(_SEEDS.value):
    for variant in variants:
      if f"{variant} {seed}" not in found["shared"]:
        scores = _shared(config, data, pool, variant, seed)
        found["shared"][f"{variant} {seed}"] = scores.tolist()
        write(pathlib.Path(_JSON.value), json.dumps(found) + "\n")
  found["scratch"] = _from_scratch(
    config, data, space, pool[: _CANDIDATES.value]
  ).tolist()
  write(pathlib.Path(_JSON.value), json.dumps(found) + "\n")
  _show(found, variants)


def _configured():
  """Returns the settings, and the data that they name."""
  config = settings.choose(
    image_presets.PRESETS, _PRESET.value, settings.SEARCH_PREFIXES
  )
  data = images.load(
    config.dataset,
    data_dir=_DATA_DIR.value,
    validation_fraction=config.validation_fraction,
    seed=config.seed,
  )
  network = dataclasses.replace(config.network, classes=data.classes)
  return dataclasses.replace(config, network=network), data


def _started(config, data, pool) -> dict:
  """Returns the results so far, from the file if it exists."""
  size, _, channels = data.image_shape
  given = {
    "settings": flatten(config),
    "pool": pool.tolist(),
    "candidates": _CANDIDATES.value,
    "data": flatten(data.digest),
  }
  return _held(given) or given | {
    "parameters": [
      cost(config.network, row, size, channels).parameters
      for row in pool[: _CANDIDATES.value]
    ],
    "shared": {},
  }


def _parsed(variant: str) -> tuple[str, int]:
  """Parses sampling and architectures a step, for example from `uniform:4`."""
  sampling, _, each_step = variant.partition(":")
  if sampling not in SAMPLINGS or not (each_step or "1").isdigit():
    raise UserError(
      f"--variants={variant}: allowed: {', '.join(SAMPLINGS)}, each with a "
      "colon and a number of architectures a step, or without"
    )
  return sampling, int(each_step or 1)


def _held(given: dict) -> dict | None:
  """Returns the contents of the file; UserError if they have other settings."""
  if not pathlib.Path(_JSON.value).exists():
    return None
  place, advice = f"--json={_JSON.value}", "give another file"
  found = json_file.read(
    _JSON.value, place=place, wanted="a comparison", advice=advice
  )
  if any(found.get(name) != value for name, value in given.items()):
    raise UserError(f"{place}: holds a comparison of other settings; {advice}")
  return found


def _recipe(config, data) -> dict:
  names = ("network", "train", "sgd", "augment")
  return {name: getattr(config, name) for name in names} | {
    "examples": len(data.train.labels)
  }


def _shared(config, data, pool, variant: str, seed: int) -> np.ndarray:
  """Returns the candidates' scores with shared weights trained on the pool."""
  sampling, each_step = _parsed(variant)
  trainer = supernet.Trainer(**_recipe(config, data))
  evaluator = SharedWeights(
    trainer,
    data,
    1,
    sampling=sampling,
    each_step=each_step,
  )
  init_key, key = jax.random.split(jax.random.key(1000 + seed))
  _, scores = evaluator.score(
    evaluator.init(init_key), key, pool, 0, lambda *_: None
  )
  logging.info("%s, seed %d: mean score %.4f", variant, seed, scores.mean())
  return scores[: _CANDIDATES.value]


def _from_scratch(config, data, space, rows) -> np.ndarray:
  """Returns the scores of each training, [repeats, candidates]."""
  train = dataclasses.replace(config.train, epochs=_EPOCHS.value)
  recipe = _recipe(config, data) | {"train": train}
  test = dataclasses.replace(data, validation=data.test)
  scores = []
  for seed in range(_REPEATS.value):
    protocol = {k: flatten(v) for k, v in recipe.items() if k != "examples"}
    protocol |= {
      "data": flatten(data.digest),
      "part": "test",
      "seed": seed,
      "examples": recipe["examples"],
    }
    evaluator = FromScratch(
      space,
      Local(ImageCandidates(candidate.Trainer(**recipe), test, seed)),
      Trials(_TRIALS.value, space.name, protocol),
    )
    key = jax.random.key(0)
    scores.append(
      evaluator.score(evaluator.init(key), key, rows, 0, lambda *_: None)[1]
    )
  return np.array(scores)


def _show(found: dict, variants: list[str]) -> None:
  """Shows rank correlations of each variant, and paired differences.

  The differences are to the first variant.
  """
  seeds = range(_SEEDS.value)
  truth = np.mean(found["scratch"], 0)
  console = rich.console.Console()
  table = rich.table.Table(title="rank correlation with scores from scratch")
  for heading in ("variant", "seeds", "Spearman", "Kendall", "by seed"):
    table.add_column(heading, justify="right")
  rows = {}
  for variant in variants:
    runs = [found["shared"][f"{variant} {seed}"] for seed in seeds]
    rows[variant] = np.array([_correlations(run, truth) for run in runs])
    table.add_row(variant, str(len(runs)), *_described(rows[variant]))
  first = rows[variants[0]]
  for variant in variants[1:]:
    difference = rows[variant] - first
    name = f"{variant} - {variants[0]}"
    table.add_row(name, str(len(difference)), *_described(difference))
  console.print(table)
  sizes = found["parameters"]
  console.print(
    f"parameters with scores from scratch: {_text(_correlations(sizes, truth))}"
  )
  for variant in variants:
    runs = [found["shared"][f"{variant} {seed}"] for seed in seeds]
    values = np.mean([_correlations(sizes, run) for run in runs], 0)
    console.print(f"parameters with shared scores, {variant}: {_text(values)}")
  for one, other in zip(found["scratch"], found["scratch"][1:], strict=False):
    console.print(
      f"one training with another: {_text(_correlations(one, other))}"
    )


def _correlations(one, other) -> tuple[float, float]:
  """Returns Spearman's and Kendall's rank correlation."""
  return (
    float(stats.spearmanr(one, other).statistic),
    float(stats.kendalltau(one, other).statistic),
  )


def _text(values) -> str:
  return f"Spearman {values[0]:.3f}, Kendall {values[1]:.3f}"


def _described(values: np.ndarray) -> list[str]:
  """Formats mean and standard error of each, and Spearman's rho by seed."""
  error = values.std(0, ddof=min(1, len(values) - 1)) / len(values) ** 0.5
  described = [
    f"{mean:.3f} ({e:.3f})"
    for mean, e in zip(values.mean(0), error, strict=True)
  ]
  return [*described, ", ".join(f"{value:.2f}" for value in values[:, 0])]


if __name__ == "__main__":
  driver.run(main)
