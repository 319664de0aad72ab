"""The loss of a training, computed by hand."""

import numpy as np
import pytest

from nao_jax.data.augment import AugmentConfig
from nao_jax.networks.macro import NetworkConfig
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


def _recipe(**train):
  return Recipe(
    NetworkConfig(), TrainConfig(**train), SgdConfig(), AugmentConfig(), 10
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
