r"""Agreement of shared weights with true scores in ranking.

python -m benchmarks.shared_ranking --preset=cifar10_nasbench201 --table=FILE \
  --data_dir=DIR --workdir=runs/ranking --json=FILE

Trains supernets on the same pool, with each variant of the settings and several
seeds, and compares the scores of some architectures with their true ones: a
column of a table (test accuracy after 200 epochs, for NAS-Bench-201), or
trainings from scratch, which are saved in the file of trials. Trainings are
measured on the test part, the shared weights on the validation part, so that
chance in the choice of images does not affect both.

The same command again continues: after a supernet's last measurement, or with
further seeds or variants.
"""

import dataclasses
import itertools
import pathlib

from absl import flags, logging
import jax
import numpy as np

from benchmarks import rankings, results
from experiments import driver, run_flags
from nao_jax import settings
from nao_jax.data import digest, images, nats_bench, tables
from nao_jax.errors import UserError
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.evaluators.shared import check_each_step
from nao_jax.evaluators.table import Table
from nao_jax.runs import checkpoint, streams
from nao_jax.runs.progress import Progress
from nao_jax.runs.trials import Trials
from nao_jax.settings import flatten
from nao_jax.spaces import nasbench201
from nao_jax.strategies.uniform import sample_new
from nao_jax.studies import ranking
from nao_jax.tasks import image_presets
from nao_jax.training import candidate

_CONFIG = run_flags.config(image_presets.PRESETS, "digits")
_DATA_DIR = run_flags.data_dir()
_WORKDIR = run_flags.workdir()
_JSON = flags.DEFINE_string("json", None, "File of results.", required=True)
_PICTURE = flags.DEFINE_string("picture", None, "Picture of results to write.")
_TRUTH = run_flags.truth()
_PUBLISHED = flags.DEFINE_list(
  "published", [], "Scores of others to show beside: FILE:DATASET:SIGNAL, .."
)
_SPLIT = flags.DEFINE_string(
  "split", None, "JSON file of the table's split of the training images."
)
_TRIALS = flags.DEFINE_string(
  "trials", None, "True scores without a table: file of trainings."
)
_CANDIDATES = flags.DEFINE_integer(
  "candidates", 20, "Architectures to compare; 0: all.", lower_bound=0
)
_EPOCHS = flags.DEFINE_integer(
  "candidate_epochs", 8, "Epochs of each, from scratch.", lower_bound=1
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 1, "Trainings of each, whose mean counts.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Of the supernets.", lower_bound=1)
_EVERY = flags.DEFINE_integer(
  "every", 0, "Epochs between measurements; 0: only at the end.", lower_bound=0
)
_VARIANTS = flags.DEFINE_multi_string(
  "variant",
  ["as given"],
  "Name of a variant and its settings, `NAME: setting=value setting=value`,"
  " such as `parameters: sampling=parameters`; may be repeated.",
)


def main(_):
  """Trains missing supernets and candidates, and shows all results."""
  table = _TRUTH()
  if (table is None) == (_TRIALS.value is None):
    raise UserError("--table, --trials: exactly one of them has to be given")
  config, data = _configured()
  variants = dict(_parsed(config, text) for text in _VARIANTS.value)
  compared, truth = _compared(config, data, table)
  found = _started(compared, variants)
  for seed in range(_SEEDS.value):
    for name, variant in variants.items():
      _complete(compared, variant, f"{name}, seed {seed}", seed, found)
  if truth is None:
    truth = _from_scratch(compared)
  found["truth"] = truth.tolist()
  _show(found, list(variants))


def _configured():
  """Returns the settings, and the data that they name."""
  config = _CONFIG()
  data = images.load(
    config.dataset,
    data_dir=_DATA_DIR.value,
    validation_fraction=0 if _SPLIT.value else config.validation_fraction,
    seed=config.seed,
  )
  if _SPLIT.value:
    data = nats_bench.split(data, _SPLIT.value)
  network = dataclasses.replace(config.network, classes=data.classes)
  return dataclasses.replace(config, network=network), data


def _parsed(config, text: str):
  """Returns a variant's name and settings, parsed from a value of --variant."""
  name, _, rest = text.partition(":")
  known, changes = settings.names(config), {}
  for part in rest.split():
    setting, _, value = part.partition("=")
    if setting not in known:
      raise UserError(
        f"--variant={text}: no setting {setting!r}; they are named as in "
        "Python, such as sgd.learning_rate"
      )
    kind = known[setting].type
    try:
      changes[setting] = value == "True" if kind is bool else kind(value)
    except ValueError as error:
      raise UserError(f"--variant={text}: {setting}: {error}") from error
  variant = settings.replace(config, changes)
  settings.validate(variant)
  check_each_step(
    variant.architectures_per_step,
    variant.train.batch,
    variant.search.pool_size,
    None,
  )
  if _EVERY.value and variant.train.epochs % _EVERY.value:
    raise UserError(
      f"--every={_EVERY.value}: must divide `train.epochs="
      f"{variant.train.epochs}`"
    )
  return name.strip(), variant


def _compared(
  config, data, table: Table | None
) -> tuple[rankings.Comparison, np.ndarray | None]:
  """Returns what to compare, and the true scores of a table or None."""
  space = rankings.network(config).space
  key = jax.random.key(config.seed)
  pool = sample_new(space, key, config.search.pool_size, set())
  if table is None:
    rows = pool[: _CANDIDATES.value or None]
    return rankings.Comparison(config, data, space, pool, rows), None
  if table.space is not space:
    raise UserError(
      f"--table: of the space {table.space.name!r}; give "
      f"--space={table.space.name}"
    )
  functions = np.arange(len(table.scores))
  if _CANDIDATES.value:
    # Independent of the pool and of the seed.
    functions = np.random.default_rng(0).permutation(functions)
    functions = np.sort(functions[: _CANDIDATES.value])
  rows = space.functions.tokens(space.functions.representative[functions])
  return rankings.Comparison(config, data, space, pool, rows), table.scores[
    functions
  ]


def _started(compared: rankings.Comparison, variants: dict) -> dict:
  """Returns the results so far, from the file if it exists."""
  given = {
    "settings": flatten(compared.config),
    "pool": digest.of_arrays(0, compared.pool),
    "candidates": compared.rows.tolist(),
    "data": flatten(compared.data.digest)
    | {"part": rankings.part(compared.data)},
    "every": _EVERY.value,
  }
  found = results.read(_JSON.value, given)
  before = found.setdefault("variants", {})
  for name, config in variants.items():
    if before.setdefault(name, flatten(config)) != flatten(config):
      raise UserError(
        f"--variant={name}: --json={_JSON.value} holds this name with other "
        "settings; give another name"
      )
  found.setdefault("parameters", compared.parameters)
  found.setdefault("shared", {})
  return found


def _complete(compared, config, name: str, seed: int, found: dict) -> None:
  """Trains a supernet to its end, and saves its scores at each measurement."""
  scores = found["shared"].setdefault(name, {})
  folder = pathlib.Path(_WORKDIR.value) / name.replace(" ", "_")
  rounds = config.train.epochs // (_EVERY.value or config.train.epochs)
  evaluator = rankings.evaluator(compared, config, rounds)
  init_key, key = jax.random.split(jax.random.key(1000 + seed))
  if len(scores) == rounds:
    return
  shown = Progress()
  shown.prefix = name
  state = evaluator.init(init_key)
  if saved := checkpoint.restore(folder, state):
    state = evaluator.replicate(saved)
  steps = evaluator.trainer.steps // rounds
  done = int(state.supernet.step)
  # A state is saved before its scores.
  if done not in (len(scores) * steps, (len(scores) + 1) * steps):
    raise UserError(
      f"{folder}: holds a supernet after {done} steps, and --json="
      f"{_JSON.value} scores after {len(scores) * steps}; give another "
      "--workdir, or the file that belongs to it"
    )
  for round_ in range(len(scores), rounds):
    state = evaluator.train(state, key, compared.pool, round_, shown)
    state = state._replace(trained=np.int32(len(compared.pool)))
    measured = evaluator.measure(state, compared.rows, shown)
    epoch = (round_ + 1) * (config.train.epochs // rounds)
    # First the state: without its scores it is only measured again.
    checkpoint.save(folder, state)
    scores[str(epoch)] = [round(float(x), 5) for x in measured]
    results.write(_JSON.value, found)
    logging.info("%s, epoch %d: mean %.4f", name, epoch, measured.mean())
  shown.close()


def _from_scratch(compared: rankings.Comparison) -> np.ndarray:
  """Returns the mean test accuracies of trainings of the architectures."""
  config, data = compared.config, compared.data
  train = dataclasses.replace(config.train, epochs=_EPOCHS.value)
  recipe = rankings.recipe(config) | {"train": train}
  test = dataclasses.replace(data, validation=data.test)
  trainer = candidate.Trainer(**recipe, examples=len(data.train.labels))
  scores = []
  for seed in range(_REPEATS.value):
    protocol = {k: flatten(v) for k, v in recipe.items() if k != "network"}
    protocol |= {
      "network": flatten(config.network),
      "mobile": flatten(config.mobile),
      "space": config.space,
      "data": flatten(data.digest) | {"part": rankings.part(data)},
      "part": "test",
      "seed": seed,
    }
    evaluator = FromScratch(
      compared.space,
      Local(ImageCandidates(trainer, test, seed)),
      Trials(_TRIALS.value, compared.space.name, protocol),
    )
    key = jax.random.key(0)
    scores.append(
      evaluator.score(
        evaluator.init(key), key, compared.rows, 0, lambda *_: None
      )[1]
    )
  for one, other in itertools.pairwise(scores):
    both = ranking.correlations(one, other)
    logging.info(
      "one training with another: Kendall %.3f, Spearman %.3f", *both
    )
  return np.mean(scores, 0)


def _show(found: dict, variants: list[str]) -> None:
  """Shows and saves the agreement of all scores with the true ones."""
  truth, sizes = np.array(found["truth"]), np.array(found["parameters"])
  runs = {
    name: [
      found["shared"][f"{name}, seed {seed}"] for seed in range(_SEEDS.value)
    ]
    for name in variants
  }
  rows = [
    {"scores": f"{name}, {epoch} epochs"}
    | _figures([run[epoch] for run in own], truth, sizes)
    for name, own in runs.items()
    for epoch in own[0]
  ]
  others = {"parameters": sizes} | _published(found)
  rows += [
    {"scores": k} | _figures([x], truth, sizes) for k, x in others.items()
  ]
  title = "agreement with true scores (half of the 95 % interval over seeds)"
  streams.show(rows, title, wide=180)
  found |= results.table(
    f"Shared weights against true scores: {flags.FLAGS.preset}",
    "benchmarks.shared_ranking",
    rows,
    f"{len(truth)} architectures, {_SEEDS.value} seeds.",
  )
  results.write(_JSON.value, found)
  if _PICTURE.value:
    figure = ranking.picture(runs[variants[-1]], truth)
    figure.savefig(_PICTURE.value, dpi=110)


def _published(found: dict) -> dict[str, np.ndarray]:
  """Returns the scores of others that --published names."""
  space = nasbench201.space()
  numbers = space.functions.number(np.array(found["candidates"], np.int32))
  scores = {}
  for text in _PUBLISHED.value:
    file, dataset, signal = (*text.split(":"), "", "")[:3]
    loaded = tables.load(file, dataset, signal).scores
    scores[f"published: {signal}"] = loaded[numbers]
  return scores


def _figures(
  runs: list, truth: np.ndarray, sizes: np.ndarray
) -> dict[str, str]:
  """Returns {heading: mean over the runs and half of its interval}."""
  found = [
    ranking.agreement(run, truth).figures
    | {"Kendall, parameters": ranking.correlations(run, sizes)[0]}
    for run in runs
  ]
  return {
    name: ranking.shown([one[name] for one in found]) for name in found[0]
  }


if __name__ == "__main__":
  driver.run(main)
