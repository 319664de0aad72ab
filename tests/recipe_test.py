"""The loss of a training, computed by hand."""

import dataclasses

import numpy as np
import pytest

from nao_jax.data import labels
from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import Examples, ImageData
from nao_jax.networks.macro import NetworkConfig
from nao_jax.tasks import image_presets, images
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Recipe, TrainConfig, cross_entropy

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0]], np.float32)
OTHER = np.array([[1.0, 1.0, 0.0], [-2.0, 0.3, 0.1]], np.float32)
LABELS = np.array([2, 1], np.int32)


def _by_hand(logits, smoothing):
  """A label keeps 1 - smoothing; all classes share the rest."""
  total = 0.0
  for row, label in zip(np.float64(logits), LABELS, strict=True):
    logs = row - np.log(np.exp(row).sum())
    for k, log in enumerate(logs):
      weight = smoothing / len(row) + (1 - smoothing) * (k == label)
      total -= weight * log
  return total / len(LABELS)


def _recipe(class_weights=(), **train):
  return Recipe(
    NetworkConfig(),
    TrainConfig(**train),
    SgdConfig(),
    AugmentConfig(),
    10,
    class_weights=class_weights,
  )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_labels_are_smoothed_over_all_classes(smoothing):
  found = cross_entropy(LOGITS, LABELS, smoothing)
  assert found == pytest.approx(_by_hand(LOGITS, smoothing), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_the_loss_smooths_both_heads_and_weights_the_second(smoothing, weight):
  recipe = _recipe(label_smoothing=smoothing, auxiliary_weight=weight)
  first, second = _by_hand(LOGITS, smoothing), _by_hand(OTHER, smoothing)
  found = recipe.loss((LOGITS, OTHER), LABELS)
  assert found == pytest.approx(first + weight * second, rel=1e-5)
  assert recipe.loss((LOGITS, None), LABELS) == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_make_up_for_unequal_classes(power):
  counts = np.array([90, 9, 1, 0])
  weights = np.array(labels.class_weights(counts, power))
  assert weights @ counts == pytest.approx(counts.sum())
  assert weights[1] / weights[0] == pytest.approx(10**power)
  # At most, all images of a class together weigh as much as those of another.
  if power == 1:
    assert weights[:3] * counts[:3] == pytest.approx(100 / 3)


def test_the_loss_weights_each_image_by_its_class():
  weights = (3.0, 0.25, 2.0)
  recipe = _recipe(weights, label_smoothing=0.1)
  each = [
    float(cross_entropy(LOGITS[n : n + 1], LABELS[n : n + 1], 0.1))
    for n in range(2)
  ]
  assert float(recipe.loss((LOGITS, None), LABELS)) == pytest.approx(
    (2.0 * each[0] + 0.25 * each[1]) / 2, rel=1e-5
  )


def test_all_trainings_of_a_search_weigh_classes_alike():
  config = image_presets.PRESETS["digits"]
  train = dataclasses.replace(config.train, class_balance=1.0)
  config = dataclasses.replace(config, train=train)
  part = Examples(np.zeros((4, 8, 8, 1), np.uint8), np.int32([0, 0, 0, 1]))
  data = ImageData("none", 2, part, part, part, None, None)
  shared = images.OpenImages(config, data, devices=1).shared().trainer
  last = [
    images.final_trainer(config, data, budget)
    for budget in (config.final, config.finalist)
  ]
  for trainer in (shared, *last):
    assert trainer.class_weights == pytest.approx((2 / 3, 2))
