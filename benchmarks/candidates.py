"""Candidates an hour: one program for all against one compile for each.

python -m benchmarks.candidates --dataset=NAME --data_dir=DIR

Trains random architectures from scratch in both ways, in turn: as data in one
compiled program, as a search does, and as a stand-alone network that is
compiled for it. Both train on the same images and measure the validation part
after each epoch. The first candidate pays for compiling the common program and
is not counted; its seconds are shown.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time

from absl import flags
import jax
import numpy as np

from experiments import driver, run_flags
from nao_jax.data.images import ImageData
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs import streams
from nao_jax.runs.trials import Trials
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import sample_new
from nao_jax.tasks import image_presets
from nao_jax.tasks.image_training import open_data
from nao_jax.training import candidate, stand_alone
from nao_jax.training.feeds import InMemory

_CONFIG = run_flags.config(image_presets.PRESETS, "digits_scratch")
_DATA_DIR = run_flags.data_dir()
_COUNT = flags.DEFINE_integer("count", 4, "Counted candidates.", lower_bound=1)


def main(_):
  """Times both ways, candidate by candidate."""
  config = dataclasses.replace(_CONFIG(), input="memory")
  data = open_data(config, _DATA_DIR.value)
  recipe = {
    "network": dataclasses.replace(config.network, classes=data.classes),
    "train": config.train,
    "sgd": config.sgd,
    "augment": config.augment,
    "examples": len(data.train.labels),
  }
  space = cnn.space(config.network.nodes, config.network.ops)
  key = jax.random.key(config.seed)
  first, *rows = sample_new(space, key, _COUNT.value + 1, set())
  with tempfile.TemporaryDirectory() as folder:
    evaluator = FromScratch(
      space,
      Local(ImageCandidates(candidate.Trainer(**recipe), data, config.seed, 1)),
      Trials(pathlib.Path(folder) / "trials.sqlite", space.name, {}),
    )
    compiling = _seconds(_score, evaluator, first)
    seconds = [
      (_seconds(_score, evaluator, row), _seconds(_alone, recipe, data, row))
      for row in rows
    ]
  _show(compiling, *zip(*seconds, strict=True))


def _score(evaluator: FromScratch, row: np.ndarray) -> None:
  state, key = evaluator.init(jax.random.key(0)), jax.random.key(0)
  evaluator.score(state, key, row[None], 0, lambda *_: None)


def _alone(recipe: dict, data: ImageData, row: np.ndarray) -> None:
  trainer = stand_alone.Trainer(**recipe, tokens=tuple(row.tolist()))
  feed = InMemory(trainer, data, 1)
  first = trainer.init(jax.random.key(0), data.image_shape)
  for call in feed.train(first, jax.random.key(1)):
    if call.ends_epoch:
      feed.measure(call.state, "validation")


def _seconds(function, *arguments) -> float:
  start = time.monotonic()
  function(*arguments)
  return time.monotonic() - start


def _show(compiling: float, ours, alone) -> None:
  rows = []
  for name, seconds in (("one program", ours), ("a compile each", alone)):
    middle = statistics.median(seconds)
    numbers = {
      "median seconds": middle,
      "fastest": min(seconds),
      "slowest": max(seconds),
      "an hour": 3600 / middle,
    }
    rows.append({"way": name} | {x: f"{y:.1f}" for x, y in numbers.items()})
  streams.show(rows)
  ratio = statistics.median(b / a for a, b in zip(ours, alone, strict=True))
  print(
    f"the first candidate of the one program took {compiling:.1f} s; the median"
    f" ratio of a compile each to one program is {ratio:.2f}"
  )


if __name__ == "__main__":
  driver.run(main)
