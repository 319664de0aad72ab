import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax import parallel
from nao_jax.data.augment import AugmentConfig, eval_batches
from nao_jax.errors import UserError
from nao_jax.training import stand_alone
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Images, TrainConfig, to_bfloat16
from tests.short_networks import ShortConfig

BATCH, EXAMPLES, SIZE, CLASSES = 8, 24, 8, 6
# A 3x3 convolution, pools and identities: quick to compile.
TOKENS = (1, 6, 2, 4, 3, 13, 1, 4, 1, 6, 2, 9, 3, 4, 1, 4)
TRAINER = stand_alone.Trainer(
  network=ShortConfig(
    ops="large", nodes=2, channels=4, classes=CLASSES, kinds="RN"
  ),
  train=TrainConfig(epochs=4, batch=BATCH, drop_path_keep=0.5),
  sgd=SgdConfig(),
  augment=AugmentConfig(padding=1),
  examples=EXAMPLES,
  tokens=TOKENS,
)
# Nothing random, so that batches cut up otherwise can be compared.
PLAIN = dataclasses.replace(
  TRAINER, train=dataclasses.replace(TRAINER.train, drop_path_keep=1.0)
)


@pytest.fixture(scope="module")
def data():
  rng = np.random.default_rng(0)
  return Images(
    images=rng.integers(0, 256, (EXAMPLES, SIZE, SIZE, 3), np.uint8),
    labels=rng.integers(0, CLASSES, EXAMPLES).astype(np.int32),
    mean=np.float32([0.4, 0.5, 0.6]),
    std=np.float32([0.2, 0.2, 0.3]),
  )


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(1)
  images = np.float32(rng.standard_normal((BATCH, SIZE, SIZE, 3)))
  return images, rng.integers(0, CLASSES, BATCH).astype(np.int32)


@pytest.fixture(scope="module")
def state():
  state = TRAINER.init(jax.random.key(0), (SIZE, SIZE, 3))
  return state._replace(step=jnp.int32(9))  # Drop-path is on by then.


def _gradients(trainer):
  return jax.jit(functools.partial(stand_alone.gradients, trainer=trainer))


def _assert_close(tree, other, tolerance):
  """Leaf by leaf, relative to the leaf's largest value."""
  for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
    scale = np.abs(a).max() + 1e-6
    np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


def test_micro_batches_give_the_mean_of_their_gradients(state, batch):
  images, labels = batch
  key = jax.random.key(2)
  whole = _gradients(dataclasses.replace(PLAIN, accumulate=2))
  gradient, stats, loss = whole(state, key, images, labels)
  half = _gradients(PLAIN)
  first, stats_1, loss_1 = half(state, key, images[:4], labels[:4])
  then = state._replace(batch_stats=stats_1)
  second, stats_2, loss_2 = half(then, key, images[4:], labels[4:])
  mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
  _assert_close(gradient, mean, 1e-5)
  _assert_close(stats, stats_2, 1e-5)
  np.testing.assert_allclose(loss, (loss_1 + loss_2) / 2, rtol=1e-5)


def test_bfloat16_changes_gradients_little_and_weights_stay_float32(
  state, batch
):
  key = jax.random.key(2)
  exact = _gradients(PLAIN)(state, key, *batch)
  rough = _gradients(dataclasses.replace(PLAIN, bfloat16=True))(
    state, key, *batch
  )
  assert {x.dtype for x in jax.tree.leaves(rough)} == {jnp.dtype("float32")}
  a, b = (
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])
    for gradient in (exact[0], rough[0])
  )
  assert not np.array_equal(a, b)
  assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
  _assert_close(exact[1], rough[1], 0.05)


def test_bfloat16_leaves_classifiers_and_batch_norm_alone(state):
  kept = {
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree.leaves_with_path(to_bfloat16(state.params))
    if leaf.dtype == jnp.float32
  }
  assert kept
  for name in kept:
    assert "scale" in name or "offset" in name or "classifier" in name
  assert "['classifier']['kernel']" in kept


def test_four_devices_give_the_gradients_of_one(state, batch):
  images, labels = batch
  one = _gradients(TRAINER)(state, jax.random.key(2), images, labels)
  spread = parallel.spread(
    functools.partial(
      stand_alone.gradients, trainer=TRAINER, axis_name=parallel.AXIS
    ),
    in_axes=(None, None, 0, 0),
    out_axes=(None, None, None),
  )
  four = spread(
    state,
    jax.random.key(2),
    images.reshape(4, -1, SIZE, SIZE, 3),
    labels.reshape(4, -1),
  )
  _assert_close(one, four, 2e-4)


def test_training_learns_the_batch_and_counts_steps(data):
  start = TRAINER.init(jax.random.key(0), (SIZE, SIZE, 3))
  steps = jax.jit(
    functools.partial(
      stand_alone.train_steps,
      trainer=dataclasses.replace(
        PLAIN, augment=AugmentConfig(padding=0, flip=False)
      ),
    )
  )
  indices = np.tile(np.arange(BATCH), (12, 1))
  state, losses = steps(start, jax.random.key(0), data, (indices, None))
  assert int(state.step) == 12
  assert losses[-1] < losses[0] / 2


def test_every_example_counts_once_in_a_padded_evaluation(state, data):
  batches = eval_batches(EXAMPLES, 7)
  assert batches[0].size > EXAMPLES
  measured = jax.jit(
    functools.partial(stand_alone.measure_batches, trainer=TRAINER)
  )(state, data, *batches)
  logits = np.float64(
    stand_alone.classify(
      state, data.images, data.mean, data.std, trainer=TRAINER
    )
  )
  order = np.argsort(-logits, axis=1)
  hits = order == data.labels[:, None]
  norm = np.log(np.exp(logits).sum(1))
  losses = norm - logits[np.arange(EXAMPLES), data.labels]
  assert int(measured.examples) == EXAMPLES
  assert int(measured.right) == hits[:, 0].sum()
  assert int(measured.in_top_5) == hits[:, :5].sum()
  np.testing.assert_allclose(measured.loss, losses.sum(), rtol=1e-5)


def test_a_batch_that_cannot_be_cut_is_refused():
  trainer = dataclasses.replace(TRAINER, accumulate=3)
  with pytest.raises(UserError, match=r"`accumulate=3`: `train\.batch=8`"):
    trainer.check(1)
