"""One device and four give the same numbers; conftest.py fakes the four."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from nao_jax import parallel
from nao_jax.data.augment import AugmentConfig
from nao_jax.errors import UserError
from nao_jax.evaluators.shared import (
  NO_SCORES,
  SharedState,
  SharedWeights,
  check_each_step,
)
from nao_jax.networks import normalisation
from nao_jax.spaces import cnn
from nao_jax.training import recipe, supernet
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.supernet import Steps
from tests import tiny_images, tracing, trees
from tests.short_networks import ShortConfig

DEVICES, BATCH, EXAMPLES, STEPS = 4, 8, 20, 3
# The normal cell reads a larger map, so each kind of BatchNorm is there.
NETWORK = ShortConfig(nodes=2, channels=2, classes=3, kinds="RN")
# Ops of each kind, strided too; an input of the reduction cell is a loose end.
CELLS = np.array([[[0, 1, 1, 4], [1, 3, 0, 2]], [[1, 4, 1, 0], [2, 2, 2, 3]]])
TRAINER = supernet.Trainer(
  NETWORK,
  recipe.TrainConfig(epochs=4, batch=BATCH, drop_path_keep=0.5),
  SgdConfig(),
  AugmentConfig(padding=1, flip=True),
  EXAMPLES,
)


@pytest.fixture(scope="module")
def data():
  return tiny_images.noise(EXAMPLES, 11, 1)


@pytest.fixture(scope="module")
def images(data):
  return recipe.Images(*data.train, data.mean, data.std)


@pytest.fixture(scope="module")
def state(images):
  return TRAINER.init(jax.random.key(0), images)


@pytest.fixture(scope="module")
def pool():
  """Six architectures, a number that four devices do not divide."""
  return np.asarray(cnn.space(2).sample(jax.random.key(1), 6))


# Some leaves are 0 but for rounding.
_assert_close = functools.partial(trees.assert_close, atol=1e-7)


def _assert_replicas_agree(tree):
  for leaf in jax.tree.leaves(tree):
    assert len(leaf.addressable_shards) == DEVICES
    first, *others = (np.asarray(s.data) for s in leaf.addressable_shards)
    for other in others:
      np.testing.assert_array_equal(first, other)


@pytest.fixture(scope="module")
def spread_steps():
  steps = functools.partial(
    supernet.train_steps, trainer=TRAINER, axis_name=parallel.AXIS
  )
  return parallel.spread(
    steps, in_axes=(None, None, None, Steps(1, None)), out_axes=(None, None)
  )


@pytest.fixture(scope="module")
def step_inputs(state, images, pool):
  indices = np.random.default_rng(2).integers(0, EXAMPLES, (STEPS, BATCH))
  # From the middle of the training, where drop-path drops.
  state = state._replace(step=jnp.asarray(4, jnp.int32))
  key = jax.random.key(5)
  cells = cnn.to_cells(pool)[:, None]
  return (state, key, images), Steps(indices.astype(np.int32), cells)


def _shared(steps):
  """The steps as four devices get them."""
  return Steps(
    steps.indices.reshape(STEPS, DEVICES, -1), parallel.replicate(steps.cells)
  )


@pytest.fixture(scope="module")
def four_results(spread_steps, step_inputs):
  whole, steps = step_inputs
  return spread_steps(*parallel.replicate(whole), _shared(steps))


def test_gradients_of_four_devices_are_those_of_one(state, batch):
  images, labels = batch
  function = functools.partial(supernet.gradients, trainer=TRAINER)
  halfway = np.float32(0.5)
  key = jax.random.key(3)
  batch = supernet.Batch(images, labels, CELLS)
  one = jax.jit(function)(state.params, key, batch, halfway)
  four = parallel.spread(
    functools.partial(function, axis_name=parallel.AXIS),
    in_axes=(None, None, supernet.Batch(0, 0, None), None),
    out_axes=None,
  )(
    *parallel.replicate((state.params, key)),
    supernet.Batch(
      images.reshape(DEVICES, -1, *images.shape[1:]),
      labels.reshape(DEVICES, -1),
      parallel.replicate(CELLS),
    ),
    parallel.replicate(halfway),
  )
  largest = [np.abs(leaf).max() for leaf in jax.tree.leaves(one[0])]
  assert max(largest) > 1e-3
  # Unoptimised programs round by up to 1.2e-5 differently (measured).
  _assert_close(four, one, share=5e-5)
  _assert_replicas_agree(four)


@pytest.fixture(scope="module")
def batch(data):
  images = jnp.float32(data.train.images[:BATCH]) / 255
  return images, data.train.labels[:BATCH]


@pytest.fixture(scope="module")
def of_each(state, pool, batch):
  """Four architectures and their gradients, each on two images, by hand."""
  cells = cnn.to_cells(pool[:DEVICES])
  one = jax.jit(functools.partial(supernet.gradients, trainer=TRAINER))
  key = jax.random.key(3)
  shares = [np.split(x, DEVICES) for x in batch]
  return cells, [
    one(
      state.params,
      jax.random.fold_in(key, number),
      supernet.Batch(*(share[number] for share in shares), cells[number]),
      np.float32(0.5),
    )
    for number in range(DEVICES)
  ]


@pytest.fixture(scope="module")
def together(state, batch, of_each):
  """The gradient of a step that trains four, by number of devices."""

  def on(devices):
    function = functools.partial(
      supernet.mean_gradients, trainer=TRAINER, axis_name=parallel.AXIS
    )
    place = functools.partial(parallel.replicate, devices=devices)
    return parallel.spread(
      function,
      in_axes=(None, None, supernet.Batch(0, 0, None), None),
      out_axes=None,
      devices=devices,
    )(
      *place((state.params, jax.random.key(3))),
      supernet.Batch(
        *(x.reshape(devices, -1, *x.shape[1:]) for x in batch),
        place(of_each[0]),
      ),
      place(np.float32(0.5)),
    )

  return {devices: on(devices) for devices in (1, DEVICES)}


def test_a_step_of_four_architectures_averages_their_gradients(
  of_each, together
):
  mean = jax.tree.map(lambda *x: np.mean(x, 0), *of_each[1])
  for gradient in together.values():
    _assert_close(gradient, mean, share=5e-5)
  _assert_replicas_agree(together[DEVICES])


def test_who_uses_a_parameter_alone_gives_it_its_share_of_a_gradient(
  of_each, together
):
  single = [jax.tree.leaves(gradient) for gradient, _ in of_each[1]]
  mean = jax.tree.leaves(together[DEVICES][0])
  users = np.zeros(DEVICES + 1, int)
  for leaf, *parts in zip(mean, *single, strict=True):
    used = np.array([np.abs(part) > 0 for part in parts])
    count = used.sum(0)
    users += np.bincount(count.reshape(-1), minlength=DEVICES + 1)
    assert not np.asarray(leaf)[count == 0].any()
    alone = np.sum(parts, 0)[count == 1] / DEVICES
    np.testing.assert_allclose(
      np.asarray(leaf)[count == 1], alone, atol=5e-5 * np.abs(leaf).max() + 1e-7
    )
  assert (users[[0, 1, DEVICES]] > 0).all()


def test_train_steps_of_four_devices_are_those_of_one(
  step_inputs, four_results
):
  whole, rows = step_inputs
  steps = functools.partial(supernet.train_steps, trainer=TRAINER)
  one = jax.jit(steps)(*whole, rows)
  assert one[0].step == four_results[0].step == 4 + STEPS
  # Rounding grows from step to step; a missed average would be off by 100 %.
  _assert_close(four_results, one, share=1e-3)


def test_replicas_agree_after_training(four_results):
  _assert_replicas_agree(four_results)


def test_further_calls_trace_nothing_anew(
  spread_steps, step_inputs, four_results
):
  (_, *whole), steps = step_inputs
  shared = _shared(steps)
  inputs = parallel.replicate(tuple(whole))
  with tracing.programs() as found:
    spread_steps(four_results[0], *inputs, shared)
  assert not found


def test_batch_norm_takes_its_statistics_over_all_devices():
  rng = np.random.default_rng(0)
  # Devices whose shares differ in mean and scale would differ alone.
  shift = np.repeat(np.arange(DEVICES), 2)
  x = np.float32(rng.normal(size=(3, 4, 4, BATCH)) * (1 + shift) + shift)
  scale, offset = rng.normal(size=(2, 3)).astype(np.float32)
  shared = np.stack(np.split(x, DEVICES, -1))

  def normalised(x, scale, offset):
    moments = normalisation.moments(x, parallel.AXIS)
    return normalisation.batch_norm(x, scale, offset, parallel.AXIS), moments

  y, (mean, variance) = parallel.spread(
    normalised, in_axes=(0, None, None), out_axes=(0, None)
  )(shared, scale, offset)
  axes = (1, 2, 3)
  np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-5)
  np.testing.assert_allclose(variance, x.var(axes), rtol=1e-5)
  expected = normalisation.batch_norm(x, scale, offset)
  np.testing.assert_allclose(np.concatenate(list(y), -1), expected, atol=1e-5)


@pytest.fixture(scope="module")
def evaluators(data):
  return {n: SharedWeights(TRAINER, data, 2, devices=n) for n in (1, DEVICES)}


def test_pool_scores_of_four_devices_are_those_of_one(
  evaluators, state, data, pool
):
  calls = {n: [] for n in evaluators}
  # All steps of the first round are done.
  done = TRAINER.steps // 2
  state = state._replace(step=np.int32(done))
  trained = SharedState(state, NO_SCORES, np.int32(0))
  scores = {
    n: evaluator.score(
      evaluator.replicate(trained),
      jax.random.key(0),
      pool,
      0,
      lambda *call, n=n: calls[n].append(call),
    )[1]
    for n, evaluator in evaluators.items()
  }
  assert len(set(scores[1])) > 1
  np.testing.assert_allclose(scores[DEVICES], scores[1], rtol=1e-6)
  ends = {calls[n][-1][:3] for n in evaluators}
  assert ends == {("score pool", 6, 6)}
  # Every score is a share of the whole validation part.
  count = len(data.validation.labels)
  np.testing.assert_allclose(
    scores[1] * count, np.rint(scores[1] * count), atol=1e-4
  )


def test_every_round_sees_other_batches_of_all_devices(evaluators):
  key = jax.random.key(0)
  for devices, evaluator in evaluators.items():
    first, second = (
      evaluator.feed.batches(key, range(2 * r, 2 * r + 2)) for r in range(2)
    )
    assert first.shape[1:] == (devices, BATCH // devices)
    assert first.size == 2 * (EXAMPLES // BATCH) * BATCH
    assert not np.array_equal(first, second)
  one, four = (
    e.feed.batches(key, range(2)).reshape(-1) for e in evaluators.values()
  )
  np.testing.assert_array_equal(one, four)


def test_own_part_is_what_the_device_is_given():
  x = np.arange(2 * BATCH).reshape(2, BATCH)
  own = parallel.spread(
    lambda x, _: parallel.own_part(x, 1, parallel.AXIS), in_axes=(None, 0)
  )(parallel.replicate(x), np.arange(DEVICES))
  np.testing.assert_array_equal(np.concatenate(list(own), 1), x)
  assert parallel.own_part(x, 1, None) is x


def test_replicate_puts_whole_arrays_on_all_devices():
  x = parallel.replicate(np.arange(3), devices=2)
  assert x.sharding.spec == PartitionSpec()
  assert len(x.devices()) == parallel.count(2) == 2


@pytest.mark.parametrize(
  ("each", "batch", "members", "message"),
  [
    (0, 8, 8, r"step=0`: .* give 1 or a multiple of 4 \(`devices`\)"),
    (2, 8, 8, r"step=2`: .* give 1 or a multiple of 4 \(`devices`\)"),
    (8, 12, 8, "step=8`: they share `train.batch=12` evenly"),
    (8, 8, 7, r"step=8`: there are 7 members \(`search.pool_size`\)"),
  ],
)
def test_architectures_that_cannot_share_a_step_are_refused(
  each, batch, members, message
):
  with pytest.raises(UserError, match=f"^`architectures_per_{message}"):
    check_each_step(each, batch, members, DEVICES)


def test_a_batch_that_devices_cannot_share_is_refused():
  assert TRAINER.check(DEVICES) is None
  with pytest.raises(UserError, match=r"`train.batch=8`: 3 devices"):
    TRAINER.check(3)
