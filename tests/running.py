"""Whole runs in one call, with the options of a run as arguments.

Searches have no report at their end, which takes longer than some of them.
"""

import pytest

from nao_jax import experiment, final_training
from nao_jax.tasks.images import Images
from nao_jax.tasks.task import RunOptions
from nao_jax.tasks.texts import Texts
from tests.stand_ins import nothing

_OPTIONS = ("devices", "checkpoints", "plain", "team")


def search_images(config, *, data_dir, latency=None, **rest) -> dict | None:
  """Searches images; takes the arguments of the run and of `RunOptions`."""
  return _run(experiment.run, Images(data_dir, latency), config, rest)


def search_texts(config, **rest) -> dict | None:
  """Searches a text; takes the arguments of the run and of `RunOptions`."""
  return _run(experiment.run, Texts(), config, rest)


def train_images(config, *, data_dir, **rest) -> dict | None:
  """Trains on images; takes the arguments of the run and of `RunOptions`."""
  return _run(final_training.run, Images(data_dir), config, rest)


def train_texts(config, **rest) -> dict | None:
  """Trains on a text; takes the arguments of the run and of `RunOptions`."""
  return _run(final_training.run, Texts(), config, rest)


def _run(run, task, config, arguments: dict) -> dict | None:
  options = {
    name: arguments.pop(name) for name in _OPTIONS if name in arguments
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(experiment, "_report", nothing)
    return run(task, config, options=RunOptions(**options), **arguments)
