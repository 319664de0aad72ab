"""The parts around the cells: drop-path, dropout, refusals."""

import dataclasses

import jax
import numpy as np
import pytest

from nao_jax import parallel
from nao_jax.errors import UserError
from nao_jax.networks import macro
from tests.tiny_networks import TINY

CELLS = len(TINY.cells)


@pytest.fixture(scope="module")
def masks():
  """The network keeps 0.6 in the end; half of the training is done."""
  return np.asarray(
    macro.drop_path_masks(jax.random.key(0), TINY, 4000, 0.6, 0.5)
  )


def test_a_kept_branch_is_divided_by_its_scheduled_probability(masks):
  assert masks.shape == (CELLS, 2 * TINY.nodes, 4000)
  for k, cell in enumerate(masks):
    survival = 1 - 0.5 * (k + 1) / CELLS * 0.4
    values = np.unique(cell)
    np.testing.assert_allclose(values, [0, 1 / survival], rtol=1e-6)


def test_drop_path_keeps_the_mean(masks):
  np.testing.assert_allclose(masks.mean((1, 2)), 1, atol=0.02)


def test_deeper_cells_drop_more(masks):
  dropped = (masks == 0).mean((1, 2))
  assert (np.diff(dropped) > 0.02).all()


def test_branches_and_images_are_dropped_independently(masks):
  kept = (masks[-1] > 0).astype(float)
  correlation = np.corrcoef(kept) - np.eye(len(kept))
  assert np.abs(correlation).max() < 0.08
  assert len(np.unique(kept, axis=1).T) > 16


def test_nothing_is_dropped_at_the_start():
  masks = macro.drop_path_masks(jax.random.key(0), TINY, 8, 0.1, 0.0)
  np.testing.assert_array_equal(masks, np.ones(masks.shape))


def test_cells_double_their_width_at_each_reduction():
  config = dataclasses.replace(TINY, cells_per_stage=2, channels=6)
  assert config.cells == (
    (False, 6), (False, 6),
    (True, 12), (False, 12), (False, 12),
    (True, 24), (False, 24), (False, 24),
  )  # fmt: skip


@pytest.mark.parametrize(
  ("changes", "size", "culprit"),
  [
    ({"channels": 7}, 32, "`channels=7`.*even"),
    ({"channels": 0}, 32, "`channels=0`"),
    ({}, 34, "34 pixels.*multiple of 4"),
    ({"auxiliary": True}, 28, "`auxiliary=True`.*32x32.*28x28"),
    ({"ops": "tiny"}, 32, "`ops=tiny`.*small, middle, large"),
    ({"nodes": 1}, 32, "`nodes=1`.*2 to 7"),
    ({"nodes": 8}, 32, "`nodes=8`.*2 to 7"),
  ],
)
def test_sizes_that_cannot_be_built_are_refused(changes, size, culprit):
  with pytest.raises(UserError, match=culprit):
    dataclasses.replace(TINY, **changes).check(size)


def test_sizes_that_can_be_built_pass():
  TINY.check(8)
  dataclasses.replace(TINY, auxiliary=True).check(32)


def test_a_batch_loses_the_same_features_on_one_device_and_on_four():
  features = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
  key = {"dropout": jax.random.key(1)}
  whole = macro.Dropout(0.5).apply({}, features, rngs=key)
  assert 0.2 < np.mean(np.asarray(whole) == 0) < 0.8
  kept = np.asarray(whole) != 0
  np.testing.assert_allclose(whole[kept], 2 * features[kept])
  across = macro.Dropout(0.5, parallel.AXIS)
  parts = parallel.spread(
    lambda part, key: across.apply({}, part, rngs={"dropout": key}),
    in_axes=(0, None),
  )(features.reshape(4, 2, 16), key["dropout"])
  np.testing.assert_array_equal(np.reshape(parts, (8, 16)), whole)
