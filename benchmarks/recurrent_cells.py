"""Quality of a search for recurrent cells, measured on the search's text.

python -m benchmarks.recurrent_cells --workdir=DIR

DIR holds a finished search with weights that all cells share (`experiments.
search_rnn --evaluator=shared --workdir=DIR`). Two questions are answered:

1. Ranks: do shared weights order architectures as trainings from scratch do?
2. Final models: how good are the found cell, the published one, random ones,
   and an LSTM of as many parameters, each trained alone with the same budget
   and seeds?

All settings are those of the search, except the flags below. Results are
written to a JSON file after every training; the same command again continues
with the missing trainings.

Shapes: K candidates.
"""

import contextlib
import dataclasses
import functools
import pathlib

from absl import flags
import jax
import numpy as np

from benchmarks import results
from benchmarks.language_models import Model, of_cell, of_lstm, train
from experiments import driver, run_flags
from nao_jax.controller import metrics
from nao_jax.data import text
from nao_jax.data.text import Corpus
from nao_jax.errors import UserError
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.evaluators.text_candidates import TextCandidates
from nao_jax.metrics import PERPLEXITY
from nao_jax.report.formatting import spread_out
from nao_jax.runs import streams
from nao_jax.runs.config_file import read_settings
from nao_jax.runs.progress import Progress
from nao_jax.runs.trials import Trials
from nao_jax.search import pool_file
from nao_jax.settings import flatten, unflatten, validate
from nao_jax.spaces import rnn
from nao_jax.strategies.uniform import sample_new
from nao_jax.tasks.text_presets import SearchRnnConfig
from nao_jax.training.recurrent import Trainer

_WORKDIR = run_flags.workdir()
_TEXT = flags.DEFINE_string(
  "text", None, "Where the text is; by default, where the search found it."
)
_JSON = flags.DEFINE_string(
  "json", None, "File of the results; recurrent_cells.json in the workdir."
)
_CANDIDATES = flags.DEFINE_integer(
  "candidates",
  20,
  "K, architectures of the last pool to train from scratch, evenly spread over"
  " its ranking.",
  lower_bound=3,
)
_CANDIDATE_EPOCHS = flags.DEFINE_integer(
  "candidate_epochs", 3, "Of the training of each.", lower_bound=1
)
_RANDOM_CELLS = flags.DEFINE_integer(
  "random_cells", 3, "Random cells among the final models.", lower_bound=0
)
_SEEDS = flags.DEFINE_integer(
  "seeds", 3, "Trainings of each final model.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("epochs", 4, "Of each of them.", lower_bound=1)
_WIDTH = flags.DEFINE_integer(
  "width", None, "H of all but the LSTM; the search's by default."
)
_LEARNING_RATE = flags.DEFINE_float(
  "learning_rate", None, "Of all trainings; the search's by default."
)

# The final trainings and the random cells use other seeds than the search.
_OTHER_SEEDS = 1000


def main(_):
  """Answers both questions, and prints the answers."""
  folder = pathlib.Path(_WORKDIR.value)
  config, corpus = _search(folder)
  pool = pool_file.read(folder / "pool.sqlite", rnn.space(config.network.nodes))
  file = _JSON.value or str(folder / "recurrent_cells.json")
  settings = flatten(config.network) | flatten(config.train)
  settings |= {"seed": config.seed, "corpus": corpus.digest}
  found = results.read(file, {"settings": settings})
  with contextlib.closing(Progress()) as progress:
    found["ranks"] = _ranks(folder, config, corpus, pool, progress)
    results.write(file, found)
    _show_ranks(found["ranks"])
    # All models once, then all again, so that a measurement that is stopped
    # half-way has compared all models.
    models = _models(folder, config, pool)
    for seed in range(_OTHER_SEEDS, _OTHER_SEEDS + _SEEDS.value):
      for name, model in models.items():
        _train(name, model, corpus, config.train, seed, found, progress)
        results.write(file, found)
  streams.show(
    [_row(name, model) for name, model in found["finals"].items()],
    f"final models, {config.train.epochs} epochs, {_SEEDS.value} seeds",
    wide=140,
  )


def _search(folder: pathlib.Path) -> tuple[SearchRnnConfig, Corpus]:
  """Returns the settings of the search, changed by the flags, and its text."""
  found = read_settings(folder)
  try:
    config = unflatten(SearchRnnConfig, found)
  except (KeyError, TypeError) as error:
    raise UserError(f"--workdir={folder}: not a search for cells") from error
  if config.evaluator != "shared" or not (folder / "best.json").exists():
    raise UserError(
      f"--workdir={folder}: needs a finished search with --evaluator=shared"
    )
  source = _TEXT.value or config.text
  corpus = text.load(source, vocab_size=config.vocab_size)
  if corpus.digest != found["corpus"]:
    raise UserError(f"--text={source}: not the text of the search")
  return _with_flags(config), corpus


def _with_flags(config: SearchRnnConfig) -> SearchRnnConfig:
  network, train = config.network, config.train
  network = dataclasses.replace(network, width=_WIDTH.value or network.width)
  rate = _LEARNING_RATE.value or train.learning_rate
  train = dataclasses.replace(train, epochs=_EPOCHS.value, learning_rate=rate)
  # The search is not run again, so its rules need not hold.
  validate(network)
  validate(train)
  return dataclasses.replace(config, network=network, train=train)


def _ranks(folder, config, corpus, pool, progress) -> dict:
  """Trains candidates from scratch and compares their order."""
  train = dataclasses.replace(config.train, epochs=_CANDIDATE_EPOCHS.value)
  space = rnn.space(config.network.nodes)
  measured = corpus.validation[: config.score_tokens or None]
  settings = flatten(config.network) | flatten(train)
  settings |= {"seed": config.seed, "corpus": corpus.digest}
  evaluator = FromScratch(
    space,
    Local(
      TextCandidates(
        Trainer(config.network, train), corpus.train, measured, config.seed, 1
      )
    ),
    Trials(
      folder / "recurrent_cells.sqlite",
      space.name,
      settings | {"score_tokens": config.score_tokens},
    ),
    measure=PERPLEXITY,
  )
  last = pool.scores.shape[1] - 1
  rows = spread_out(pool.ranked(last).tolist(), _CANDIDATES.value)
  start, key = evaluator.init(jax.random.key(0)), jax.random.key(0)
  _, scores = evaluator.score(start, key, pool.tokens[rows], 0, progress)
  shared = pool.scores[rows, last]
  return agreement(shared, scores) | {
    "epochs": train.epochs,
    "shared": np.exp(-shared).tolist(),
    "from scratch": np.exp(-np.float64(scores)).tolist(),
    "architectures": [rnn.to_text(row) for row in pool.tokens[rows]],
  }


def agreement(
  shared: np.ndarray, alone: np.ndarray, resamples: int = 1000
) -> dict:
  """Returns rank correlations of two scores.

  Args:
    shared: [K].
    alone: [K].
    resamples: number of resamples of the bootstrap.

  Returns:
    {name: [value, low, high]}; low and high are the ends of the bootstrap's 95
    % interval (the percentiles, over architectures).
  """
  found = {}
  for name, correlation in (
    ("spearman", metrics.spearman_rho),
    ("kendall", metrics.kendall_tau),
  ):
    rng = np.random.default_rng(0)
    interval = metrics.interval(correlation, shared, alone, rng, resamples)
    found[name] = [correlation(shared, alone), *interval]
  return found


def _train(name, model, corpus, config, seed, found, progress) -> None:
  """Trains a model with a seed, unless the results hold it."""
  finals = found.setdefault("finals", {})
  entry = finals.setdefault(name, {"parameters": model.parameters})
  trainings = entry.setdefault("trainings", {})
  if str(seed) not in trainings:
    show = functools.partial(progress, f"{name}, seed {seed}")
    trainings[str(seed)] = train(model, corpus, config, seed, show)
    print(f"{name}, seed {seed}: {trainings[str(seed)]['test perplexity']:.2f}")
  entry |= _summary(trainings)


def _models(folder, config, pool) -> dict[str, Model]:
  """Returns the models to compare, {name: model}."""
  trainer = Trainer(config.network, config.train)
  cells = {
    "found": rnn.resolve(str(folder / "best.json"), "workdir"),
    "NAO-RNN": rnn.resolve("NAO-RNN"),
  }
  for number, row in enumerate(_random_cells(config, pool)):
    cells[f"random {number + 1}"] = row
  models = {name: of_cell(row, trainer) for name, row in cells.items()}
  return models | {"LSTM": of_lstm(models["found"].parameters, trainer)}


def _random_cells(config, pool) -> list[np.ndarray]:
  """Samples cells that were never in the pool.

  A larger number of cells begins with the same cells.
  """
  space = rnn.space(config.network.nodes)
  key = jax.random.key(config.seed + _OTHER_SEEDS)
  known, cells = set(space.keys(pool.tokens)), []
  for number in range(_RANDOM_CELLS.value):
    new = sample_new(space, jax.random.fold_in(key, number), 1, known)
    known |= set(space.keys(new))
    cells += list(new)
  return cells


def _summary(trainings: dict[str, dict]) -> dict:
  """Returns mean and deviation over seeds, and the speed of the fastest."""

  def values(name):
    return np.array([training[name] for training in trainings.values()])

  perplexities = values("test perplexity")
  return {
    "test perplexity": float(perplexities.mean()),
    "standard deviation": (
      float(perplexities.std(ddof=1)) if len(perplexities) > 1 else None
    ),
  } | {
    name: float(values(name).max())
    for name in ("words a second", "words a processor second")
  }


def _show_ranks(ranks: dict) -> None:
  rows = [
    {
      "correlation": name,
      "value": f"{ranks[name][0]:.2f}",
      "95 %": "{1:.2f} to {2:.2f}".format(*ranks[name]),
    }
    for name in ("spearman", "kendall")
  ]
  streams.show(
    rows,
    f"shared weights against {ranks['epochs']} epochs from scratch,"
    f" {len(ranks['shared'])} architectures",
  )


def _row(name: str, model: dict) -> dict[str, str]:
  error = model["standard deviation"]
  return {
    "model": name,
    "parameters": f"{model['parameters']:,}",
    "test perplexity": f"{model['test perplexity']:.2f}",
    "standard deviation": "" if error is None else f"{error:.2f}",
    "words a second": f"{model['words a second']:,.0f}",
    "words a processor second": f"{model['words a processor second']:,.0f}",
  }


if __name__ == "__main__":
  driver.run(main)
