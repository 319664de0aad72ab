"""Two small final trainings, of images and of a text."""

from collections.abc import Iterator
import contextlib
import json
import pathlib

import jax
import numpy as np
import pytest

from nao_jax.data.augment import AugmentConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.tasks.training import restore
from nao_jax.training import language
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig
from tests.short_networks import two_cells

# One small separable convolution, pools and identities.
IMAGES = TrainCnnConfig(
  arch="0 0 1 4 2 2 0 4 | 0 4 1 2 2 3 1 4",
  dataset="digits",
  seed=5,
  network=NetworkConfig(cells_per_stage=1, channels=4, dropout=0.1),
  train=TrainConfig(epochs=2, batch=128, drop_path_keep=0.9),
  sgd=SgdConfig(learning_rate=0.1),
  augment=AugmentConfig(padding=1, cutout=2),
)
TEXTS = TrainRnnConfig(
  arch="0 0 1 1 0 3",
  seed=5,
  network=LanguageModelConfig(
    width=8,
    output_dropout=0.2,
    hidden_dropout=0.1,
    input_dropout=0.2,
    embedding_dropout=0.1,
    word_dropout=0.1,
  ),
  train=TextTrainConfig(
    epochs=4, batch=8, bptt=5, learning_rate=5.0, clip=0.25
  ),
  # Averages as soon as a loss is worse than all before.
  patience=0,
  eval_batch=4,
)


@contextlib.contextmanager
def quick() -> Iterator[None]:
  """Compiles quickly: two cells, windows of one length."""
  with two_cells(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(language, "PADDED_TO", 30)
    yield


def write_text(folder: pathlib.Path) -> None:
  """Writes a text of 150 lines of four words, 20 different ones."""
  rng = np.random.default_rng(0)
  for part, lines in (("train", 110), ("valid", 20), ("test", 20)):
    sentences = "\n".join(_sentence(rng) for _ in range(lines))
    (folder / f"tiny.{part}.txt").write_text(sentences)


def _sentence(rng) -> str:
  """Nouns are followed by verbs, and a few of both are frequent."""
  noun, verb = (int(rng.zipf(1.5)) % 9 for _ in range(2))
  return f"the n{noun} v{verb}"


def history(workdir: pathlib.Path) -> list[dict]:
  """Returns the reports of the epochs."""
  lines = (workdir / "history.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def assert_same_bits(training, workdir, other) -> None:
  """Compares everything in the last checkpoints of two workdirs."""
  trees = (restore(training, path / "checkpoints") for path in (workdir, other))
  for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
    np.testing.assert_array_equal(a, b)
