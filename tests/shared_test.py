"""Shared weights within a round: what trains; stopped, resumed, poisoned."""

import collections
import dataclasses
import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import Examples
from nao_jax.errors import UserError
from nao_jax.evaluators import shared
from nao_jax.evaluators.shared import SharedWeights
from nao_jax.networks.cost import cost
from nao_jax.spaces import cnn
from nao_jax.training import recipe, supernet, supernet_feeds
from nao_jax.training.optimisers import SgdConfig
from tests import tiny_images, tracing
from tests.short_networks import ShortConfig
from tests.stand_ins import nothing

STEPS = 6
SEPARABLE_3, SEPARABLE_5, POOLED = range(3)
KEY = jax.random.key(1)


@pytest.fixture(scope="module", autouse=True)
def short_calls():
  """Many places to stop at."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(supernet_feeds, "STEPS_A_CALL", 2)
    patch.setattr(shared, "ARCHITECTURES_A_CALL", 1)
    yield


@pytest.fixture(scope="module")
def evaluator():
  data = tiny_images.noise(12, 8, 1)
  trainer = supernet.Trainer(
    ShortConfig(nodes=2, channels=2, classes=3, kinds="RN"),
    recipe.TrainConfig(epochs=4, batch=4, drop_path_keep=0.9),
    SgdConfig(),
    AugmentConfig(padding=1, flip=True),
    12,
  )
  return SharedWeights(
    trainer, data, 2, devices=1, sampling="parameters", only_new=True
  )


def _architecture(op):
  """Every branch is this op on the first input, int32 [L]."""
  branch = [0, op]
  return cnn.to_tokens(np.array([[branch * 2] * 2] * 2, np.int32))


POOL = np.stack([_architecture(SEPARABLE_3), _architecture(SEPARABLE_5)])
EXTENDED = np.concatenate([POOL, [_architecture(POOLED)]])


@pytest.fixture(scope="module")
def whole(evaluator):
  """A round without a stop: the state, the scores, and what was kept."""
  kept = []
  state = evaluator.init(jax.random.key(0))
  ended, scores = evaluator.score(
    state, KEY, POOL, 0, nothing, lambda *one: kept.append(jax.device_get(one))
  )
  return jax.device_get(ended), scores, kept


def _assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, jax.device_get(other))


def test_every_step_and_every_architecture_is_counted_once(whole):
  _, _, kept = whole
  done = [steps for state, steps in kept if not len(state.scores)]
  assert sum(done) == STEPS
  scored = [len(state.scores) for state, _ in kept if len(state.scores)]
  assert scored == [1, 2]


def test_a_round_goes_on_from_whatever_was_kept(evaluator, whole):
  ended, scores, kept = whole
  for state, _ in kept:
    again, found = evaluator.score(
      evaluator.replicate(state), KEY, POOL, 0, nothing
    )
    _assert_equal(ended, again)
    np.testing.assert_array_equal(scores, found)


@pytest.fixture(scope="module")
def second(evaluator, whole):
  """A second round, with a member more: its state, scores and what was kept."""
  kept, state = [], evaluator.replicate(whole[0])
  with tracing.programs() as found:
    ended, scores = evaluator.score(
      state,
      KEY,
      EXTENDED,
      1,
      nothing,
      lambda *one: kept.append(jax.device_get(one)),
    )
  # What draws in proportion has a chance for each member.
  assert {name.split()[-1] for name in found} <= {
    "draw_members",
    "jit(draw_members)",
  }
  return jax.device_get(ended), scores, kept


def test_all_are_scored_although_only_new_ones_train(evaluator, whole, second):
  start, (ended, scores, _) = whole[0], second
  assert len(scores) == len(EXTENDED)
  assert (start.trained, ended.trained) == (len(POOL), len(EXTENDED))
  steps = np.arange(STEPS, 2 * STEPS, dtype=np.int32)
  cells = evaluator._cells(start, KEY, EXTENDED, steps)
  assert (cells == cnn.to_cells(EXTENDED[2])).all()


def test_a_round_that_trains_only_new_ones_goes_on_from_what_was_kept(
  evaluator, second
):
  ended, scores, kept = second
  for state, _ in kept[1::2]:
    again, found = evaluator.score(
      evaluator.replicate(state), KEY, EXTENDED, 1, nothing
    )
    _assert_equal(ended, again)
    np.testing.assert_array_equal(scores, found)


def _shares(evaluator, tokens, steps=4000):
  """Returns the share of steps in which each architecture trains."""
  start = shared.SharedState(None, shared.NO_SCORES, np.int32(0))
  numbers = np.arange(steps, dtype=np.int32)
  cells = evaluator._cells(start, KEY, tokens, numbers)
  counts = collections.Counter(row.tobytes() for row in cells)
  rows = np.asarray(cnn.to_cells(tokens))
  return np.array([counts[row.tobytes()] for row in rows]) / steps


def test_architectures_train_in_proportion_to_their_parameters(evaluator):
  network = evaluator.trainer.network
  sizes = np.array([cost(network, row, 8, 1).parameters for row in EXTENDED])
  expected = sizes / sizes.sum()
  assert np.ptp(expected) > 0.1
  # Three standard deviations of a share of 4,000 draws are .024 at most.
  np.testing.assert_allclose(_shares(evaluator, EXTENDED), expected, atol=0.024)


def test_a_power_of_the_parameters_favours_large_architectures(evaluator):
  network = evaluator.trainer.network
  sizes = np.array([cost(network, row, 8, 1).parameters for row in EXTENDED])
  for power in (0.0, 3.0):
    chosen = dataclasses.replace(evaluator, power=power)
    expected = sizes**power / (sizes**power).sum()
    np.testing.assert_allclose(_shares(chosen, EXTENDED), expected, atol=0.024)


def test_few_images_for_scores_are_of_all_classes(evaluator):
  labels = np.repeat(np.arange(3, dtype=np.int32), 40)
  images = labels.astype(np.uint8).reshape(-1, 1, 1, 1)
  sorted_data = dataclasses.replace(
    evaluator.data, validation=Examples(images, labels)
  )
  few = dataclasses.replace(evaluator, data=sorted_data, score_images=12)
  chosen = few._scored_with
  assert len(chosen.labels) == 12
  assert set(chosen.labels) == {0, 1, 2}
  np.testing.assert_array_equal(chosen.images.ravel(), chosen.labels)
  for count in (0, 120, 1000):
    every = dataclasses.replace(few, score_images=count)
    np.testing.assert_array_equal(every._scored_with.labels, labels)


def test_uniform_sampling_trains_all_as_often(evaluator):
  uniform = dataclasses.replace(evaluator, sampling="uniform")
  np.testing.assert_allclose(_shares(uniform, EXTENDED), 1 / 3, atol=0.024)


def test_members_that_a_step_trains_together_differ(evaluator):
  three = dataclasses.replace(evaluator, each_step=3)
  for sampling in shared.SAMPLINGS:
    chosen = dataclasses.replace(three, sampling=sampling)
    start = shared.SharedState(None, shared.NO_SCORES, np.int32(0))
    cells = chosen._cells(start, KEY, EXTENDED, np.arange(9, dtype=np.int32))
    assert cells.shape[:2] == (9, 3)
    assert {len(np.unique(step, axis=0)) for step in cells} == {3}
    assert len(np.unique(cells[:, 0], axis=0)) == 3
  # Two new members share a step of three.
  cells = three._cells(start, KEY, POOL, np.arange(9, dtype=np.int32))
  assert {len(np.unique(step, axis=0)) for step in cells} == {2}


def test_a_round_of_several_architectures_a_step_goes_on(evaluator):
  two = dataclasses.replace(evaluator, each_step=2)
  kept = []
  ended, scores = two.score(
    two.init(KEY),
    KEY,
    POOL,
    0,
    nothing,
    lambda *one: kept.append(jax.device_get(one)),
  )
  (start, _), *_ = kept
  assert 0 < start.supernet.step < STEPS
  again, found = two.score(two.replicate(start), KEY, POOL, 0, nothing)
  _assert_equal(jax.device_get(ended), again)
  np.testing.assert_array_equal(scores, found)


def test_the_new_state_takes_the_place_of_the_old_one(evaluator):
  start = evaluator.init(KEY)
  evaluator.score(start, KEY, POOL, 0, nothing)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start.supernet))


def test_a_round_without_a_new_member_trains_the_old_ones(evaluator, whole):
  steps = np.arange(STEPS, dtype=np.int32)
  cells = evaluator._cells(whole[0], KEY, POOL, steps)
  assert len(np.unique(cells, axis=0)) == len(POOL)


def _poisoned(evaluator):
  """A fresh state in which one op gives nothing but NaN."""
  state = jax.device_get(evaluator.init(jax.random.key(0)))
  poisoned = jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x * np.nan if "sep_conv_5x5_pointwise_1" in str(path) else x
    ),
    state,
  )
  return evaluator.replicate(poisoned)


def test_steps_without_a_finite_gradient_change_nothing_and_are_named(
  evaluator, caplog
):
  state, scores = evaluator.score(_poisoned(evaluator), KEY, POOL, 0, nothing)
  start = "steps without a finite gradient, which changed nothing: "
  assert start in caplog.text
  skipped = caplog.text.partition(start)[2].splitlines()[0].split(", ")
  assert 0 < len(skipped) < STEPS
  healthy = {
    str(path): x
    for path, x in jax.tree_util.tree_leaves_with_path(state.supernet.params)
    if "sep_conv_5x5_pointwise_1" not in str(path)
  }
  assert all(np.isfinite(x).all() for x in healthy.values())
  assert int(state.supernet.step) == STEPS
  assert np.isfinite(scores).all()


def test_a_gradient_that_is_not_finite_shows_though_the_loss_is(
  evaluator, monkeypatch
):
  def gradients(params, key, batch, progress, **_):
    bad = jnp.where(batch.cells[0, 0, 1] == SEPARABLE_5, jnp.nan, 1.0)
    found = jax.tree.map(lambda x: jnp.full_like(x, bad), params)
    return found, batch.labels[0] + 1

  monkeypatch.setattr(supernet, "gradients", gradients)
  trainer, data = evaluator.trainer, evaluator.data
  images = recipe.Images(*data.train, data.mean, data.std)
  state = trainer.init(KEY, images)
  steps = jax.jit(functools.partial(supernet.train_steps, trainer=trainer))
  for op, lasting in ((SEPARABLE_3, False), (SEPARABLE_5, True)):
    pool = cnn.to_cells(_architecture(op)[None])[:, None]
    rows = supernet.Steps(np.zeros((2, 4), np.int32), pool)
    after, losses = steps(state, KEY, images, rows)
    same = jax.tree.map(np.array_equal, state.params, after.params)
    assert all(jax.tree.leaves(same)) == np.isnan(losses).all() == lasting
    assert int(after.step) == 2


@hypothesis.given(
  st.lists(st.sampled_from([1.0, np.nan]), min_size=1, max_size=60),
  st.integers(0, 60),
  st.integers(1, 60),
)
def test_bad_steps_are_counted_alike_wherever_a_round_is_interrupted(
  losses, stop, steps
):
  def outcome(*parts):
    bad, step = np.array(0, np.int32), 0
    for part in parts:
      step += len(part)
      # As a checkpoint gives it back.
      bad = np.array(bad)
      bad.flags.writeable = False
      try:
        bad = shared.count_bad(bad, np.array(part), step, steps)
      except UserError as error:
        return str(error)
    return int(bad)

  found = outcome(losses)
  assert found == outcome(losses[:stop], losses[stop:])
  runs = "".join("x" if np.isnan(loss) else " " for loss in losses)
  ends = "x" * min(shared.MOST_BAD, steps) in runs
  assert found == (len(runs) - len(runs.rstrip("x"))) or ends
  assert isinstance(found, str) == ends


def test_weights_that_all_steps_fail_with_end_the_search(evaluator):
  state = _poisoned(evaluator)
  # Twice the same, as another number of them is another program.
  pool = POOL[[1, 1]]
  with pytest.raises(
    UserError, match=r"diverged: .* to step 6, .*learning_rate"
  ):
    evaluator.score(state, KEY, pool, 0, nothing)
