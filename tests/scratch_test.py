import dataclasses

import jax
import numpy as np
import pytest

from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import Examples, ImageData
from nao_jax.errors import UserError
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.scratch import ScratchConfig, ScratchTrainer
from tests.short_networks import ShortConfig

CLASSES = 4
KEY = jax.random.key(0)
# One small separable convolution, pools and identities.
TOKENS = np.array([1, 4, 2, 8, 3, 6, 1, 8, 1, 8, 2, 6, 3, 7, 2, 8], np.int32)
CONFIG = ScratchConfig(
  repeats=2,
  epochs=4,
  channels=4,
  cells_per_stage=1,
  batch=16,
  drop_path_keep=0.9,
)


def _toy(count, seed):
  """A bright quarter on noise; which one is the class."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, CLASSES, count).astype(np.int32)
  images = rng.integers(0, 100, (count, 8, 8, 1), np.uint8)
  for image, label in zip(images, labels, strict=True):
    row, column = 4 * (label // 2), 4 * (label % 2)
    image[row : row + 4, column : column + 4] += 100
  return Examples(images, labels)


@pytest.fixture(scope="module", autouse=True)
def fast_compilation():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def data():
  # 50 test images leave the last batch incomplete.
  parts = (_toy(128, 0), _toy(0, 1), _toy(50, 2))
  mean, std = np.float32([0.3]), np.float32([0.2])
  return ImageData("quarters", CLASSES, *parts, mean, std)


def _trainer(data, **changes):
  return ScratchTrainer(
    ShortConfig(nodes=2, classes=CLASSES, kinds="RN"),
    dataclasses.replace(CONFIG, **changes),
    SgdConfig(learning_rate=0.1),
    AugmentConfig(padding=0, flip=False),
    data,
  )


@pytest.fixture(scope="module")
def steps_seen():
  return []


@pytest.fixture(scope="module")
def accuracies(data, steps_seen):
  found = _trainer(data).test_accuracies(
    KEY, TOKENS, progress=lambda *call: steps_seen.append(call)
  )
  return np.float32(list(found))


def test_accuracies_are_shares_of_the_test_part(accuracies, data):
  assert accuracies.shape == (2,)
  hits = accuracies * len(data.test.labels)
  np.testing.assert_allclose(hits, np.rint(hits), atol=1e-4)
  assert ((accuracies >= 0) & (accuracies <= 1)).all()


def test_training_beats_chance(accuracies):
  assert accuracies.min() > 0.5


def test_repeats_have_weights_and_an_order_of_their_own(data):
  # Before they have learnt much, equal repeats would still be equal.
  trainer = _trainer(data, repeats=3, epochs=1)
  assert len(set(trainer.test_accuracies(jax.random.key(1), TOKENS))) > 1


def test_progress_counts_steps(accuracies, steps_seen):
  done, totals = zip(*steps_seen, strict=True)
  assert set(totals) == {CONFIG.epochs * (128 // CONFIG.batch)} == {done[-1]}
  assert list(done) == sorted(set(done))


def test_what_is_known_is_not_trained_again(data):
  trainer = dataclasses.replace(_trainer(data), network=None)
  assert not list(trainer.test_accuracies(KEY, TOKENS, CONFIG.repeats))


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"batch": 0}, "`batch=0`: allowed: 1 to 128"),
    ({"batch": 129}, "`batch=129`: allowed: 1 to 128"),
  ],
)
def test_impossible_settings_are_refused(changes, named):
  with pytest.raises(UserError, match=named):
    dataclasses.replace(CONFIG, **changes).check(128)
