import dataclasses

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.controller import ascent
from nao_jax.controller.model import Controller, embed
from nao_jax.spaces import cnn
from tests.tiny_controllers import TINY, random_params, random_tokens

SPACE = cnn.space(2)
STEP_SIZES = jnp.array([0.0, 1.0, 30.0, 1000.0])
# A few architectures; the later half are the earlier half, swapped.
SOME = random_tokens(SPACE, 4, seed=3)
SOME = np.concatenate([SOME, SOME[:, SPACE.swap_permutations[1, 0]]])


@pytest.fixture(scope="module")
def controller():
  return Controller(SPACE, TINY)


@pytest.fixture(scope="module")
def params(controller):
  return random_params(controller)


@pytest.fixture(scope="module")
def seeds():
  return random_tokens(SPACE, 6)


@pytest.fixture(scope="module")
def outputs(controller, params, seeds):
  return jax.jit(controller.encode)(params, seeds)[0]


@pytest.fixture(scope="module")
def moved(controller, params, outputs):
  return ascent.ascend(params, outputs, STEP_SIZES, controller=controller)


@pytest.fixture(scope="module")
def proposals(controller, params, seeds):
  return ascent.propose(params, seeds, STEP_SIZES, controller=controller)


def test_a_step_of_size_zero_moves_nothing(outputs, moved):
  np.testing.assert_allclose(moved[0], outputs, atol=1e-6)


def test_small_steps_raise_the_prediction_of_every_seed(proposals):
  assert (proposals.after[1] > proposals.before).all()


def test_points_have_length_one_after_any_step(moved):
  np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), 1, rtol=1e-5)


def test_the_gradient_is_the_slope_of_the_prediction(
  controller, params, outputs
):
  uphill = ascent.gradient(params, outputs, controller=controller)
  rng = np.random.default_rng(2)
  direction = rng.standard_normal(outputs.shape, np.float32)

  def predict(step):
    return controller.predict(params, embed(outputs + step * direction))

  slopes = (predict(0.001) - predict(-0.001)) / 0.002
  expected = jnp.sum(uphill * direction, axis=(1, 2))
  np.testing.assert_allclose(slopes, expected, rtol=0.01, atol=2e-4)


def test_seeds_do_not_disturb_each_other(controller, params, outputs, moved):
  alone = ascent.ascend(params, outputs[2:3], STEP_SIZES, controller=controller)
  np.testing.assert_allclose(alone[:, 0], moved[:, 2], atol=1e-5)


def test_proposals_are_the_decoded_points(controller, params, moved, proposals):
  decode = jax.jit(controller.greedy_decode)
  for tokens, outputs in zip(proposals.tokens, moved, strict=True):
    expected = decode(params, outputs, embed(outputs))
    np.testing.assert_array_equal(tokens, expected)


def test_every_proposal_is_an_architecture(proposals):
  positions = np.arange(SPACE.length)
  assert SPACE.legal[positions, np.asarray(proposals.tokens)].all()


def test_step_sizes_are_data_and_do_not_recompile(controller, params, seeds):
  def propose(step_sizes):
    ascent.propose(params, seeds, step_sizes, controller=controller)

  propose(STEP_SIZES)
  compiled = ascent.propose._cache_size()
  propose(STEP_SIZES + 1)
  assert ascent.propose._cache_size() == compiled


def naive_select(proposals, known, limit):
  """The official order, with lists and comparisons."""
  accepted, origins, new = [], [], [0] * len(proposals)
  seen = [SPACE.canonical(tokens).tolist() for tokens in known]
  for step, row in enumerate(proposals):
    for seed, tokens in enumerate(row):
      canonical = SPACE.canonical(tokens).tolist()
      if canonical in seen:
        continue
      seen.append(canonical)
      new[step] += 1
      if len(accepted) < limit:
        accepted.append(tokens.tolist())
        origins.append([step, seed])
  return accepted, origins, new


@given(
  picks=st.lists(
    st.lists(st.integers(0, 7), min_size=3, max_size=3), min_size=1, max_size=4
  ),
  known=st.lists(st.integers(0, 7), max_size=3),
  limit=st.integers(0, 6),
)
def test_selection_takes_new_functions_in_the_official_order(
  picks, known, limit
):
  proposals = SOME[np.array(picks)]
  keys = set(SPACE.keys(SOME[known])) if known else set()
  selection = ascent.select(SPACE, proposals, keys, limit)
  expected = naive_select(proposals, SOME[known] if known else [], limit)
  for ours, theirs in zip(selection, expected, strict=True):
    assert ours.tolist() == theirs


def test_selection_tells_swapped_architectures_apart_without_swaps():
  plain = dataclasses.replace(SPACE, swaps=())
  proposals = SOME[None, [0, 4]]
  assert len(ascent.select(SPACE, proposals, set(), 9).tokens) == 1
  assert len(ascent.select(plain, proposals, set(), 9).tokens) == 2
