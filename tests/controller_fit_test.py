import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.controller import fit, metrics
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.spaces import cnn
from tests import trees
from tests.tiny_controllers import TINY, random_params, random_tokens

# Seven architectures in batches of three: the last batch has two holes.
COUNT = 7
STILL = fit.FitConfig(epochs=1, batch=3, learning_rate=0.0)
SPACE = cnn.space(2)
# One possible swap: there is nothing random about the augmentation.
ONLY = SPACE.swaps[0][1]
SWAPPED = SPACE.swap_permutations[0, 1]


@pytest.fixture(scope="module")
def controller():
  return Controller(dataclasses.replace(SPACE, swaps=((ONLY,),)), TINY)


@pytest.fixture(scope="module")
def params(controller):
  return random_params(controller)


@pytest.fixture(scope="module")
def tokens(controller):
  return random_tokens(controller.space, COUNT)


@pytest.fixture(scope="module")
def targets():
  return jnp.linspace(0.0, 1.0, COUNT)


@pytest.fixture(scope="module")
def loss_and_gradients(controller):
  def loss(params, tokens, targets, weights):
    batch = fit.Batch(tokens, targets, weights)
    return fit.loss(params, batch, controller=controller, trade_off=0.8)

  return jax.jit(jax.grad(loss, has_aux=True))


def norm(tree):
  return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def run(controller, state, tokens, targets, config, calls=1, trains=None):
  for _ in range(calls):
    state, losses = fit.fit(
      state,
      jax.random.key(2),
      fit.Examples(tokens, targets, trains=trains),
      controller=controller,
      config=config,
    )
  return state, losses


def test_an_epoch_counts_everything_once_and_swaps_inputs_and_targets_alike(
  controller, params, tokens, targets, loss_and_gradients
):
  state = fit.start(params, STILL)
  _, losses = run(controller, state, tokens, targets, STILL)
  ones = jnp.ones(COUNT)
  swapped = tokens[:, SWAPPED]
  _, expected = loss_and_gradients(params, swapped, targets, ones)
  _, as_given = loss_and_gradients(params, tokens, targets, ones)
  for ours, theirs in zip(losses, expected, strict=True):
    np.testing.assert_allclose(ours, [theirs], rtol=1e-5)
  assert abs(expected.cross_entropy - as_given.cross_entropy) > 2e-4


def test_more_epochs_do_not_recompile(controller, params, tokens, targets):
  state = fit.start(params, STILL)
  state, _ = run(controller, state, tokens, targets, STILL)
  compiled = fit.fit._cache_size()
  state, _ = run(controller, state, tokens[::-1], targets, STILL)
  assert fit.fit._cache_size() == compiled
  assert state.epoch == 2


MOVING = dataclasses.replace(STILL, learning_rate=1e-2, epochs=3)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_who_is_held_out_of_a_fit_has_no_part_in_it(
  controller, params, tokens, targets, loss_and_gradients, count
):
  trains = np.isin(np.arange(COUNT), np.arange(COUNT)[::-1][:count])
  state = fit.start(params, STILL)
  _, losses = run(controller, state, tokens, targets, STILL, trains=trains)
  _, expected = loss_and_gradients(
    params, tokens[:, SWAPPED], targets, np.float32(trains)
  )
  for ours, theirs in zip(losses, expected, strict=True):
    np.testing.assert_allclose(ours, [theirs], rtol=1e-5)
  # Nor do others in their place change anything, in as many steps.
  state = fit.start(params, MOVING)
  one, _ = run(controller, state, tokens, targets, MOVING, trains=trains)
  rows, values = tokens.copy(), np.where(trains, targets, 0.5)
  rows[~trains] = tokens[-1]
  other, _ = run(controller, state, rows, values, MOVING, trains=trains)
  trees.assert_close(one, other, rtol=0)
  (adam,) = (x for x in jax.tree.leaves(one.optimiser) if jnp.ndim(x) == 0)
  assert adam == MOVING.epochs * -(-count // MOVING.batch)


def test_one_program_serves_however_many_are_held_out(
  controller, params, tokens, targets
):
  state = fit.start(params, STILL)
  run(controller, state, tokens, targets, STILL, trains=np.arange(COUNT) < 6)
  compiled = fit.fit._cache_size()
  run(controller, state, tokens, targets, STILL, trains=np.arange(COUNT) < 2)
  assert fit.fit._cache_size() == compiled


def test_a_row_without_weight_has_no_influence(
  params, tokens, targets, loss_and_gradients
):
  weights = jnp.ones(COUNT).at[-1].set(0.0)
  other_tokens, other_targets = tokens.copy(), targets.at[-1].set(0.0)
  other_tokens[-1] = tokens[0]
  one, _ = loss_and_gradients(params, tokens, targets, weights)
  other, _ = loss_and_gradients(params, other_tokens, other_targets, weights)
  full, _ = loss_and_gradients(params, tokens, targets, jnp.ones(COUNT))
  trees.assert_close(one, other, rtol=0)
  assert norm(jax.tree.map(jnp.subtract, one, full)) > 1e-3


def test_a_swap_is_drawn_from_every_cell():
  space = cnn.space()
  # Distinct numbers at all positions show what moved.
  positions = np.tile(np.arange(space.length), (200, 1))
  moved = fit.swap(jax.random.key(5), positions, space=space)
  moved = np.asarray(moved != positions).reshape(200, 2, 5, 4)
  assert (moved.all(axis=-1).sum(axis=-1) == 1).all()
  assert (moved.any(axis=-1).sum(axis=-1) == 1).all()
  node = moved[..., 0].argmax(axis=-1)
  assert len({tuple(pair) for pair in node}) == 25


def test_a_space_without_swaps_leaves_the_tokens_as_they_are(tokens):
  space = dataclasses.replace(SPACE, swaps=())
  swapped = fit.swap(jax.random.key(5), tokens, space=space)
  np.testing.assert_array_equal(swapped, tokens)


def test_a_step_is_adam_on_clipped_gradients_with_coupled_decay(
  controller, params, tokens, targets, loss_and_gradients
):
  config = fit.FitConfig(
    epochs=3, batch=COUNT, weight_decay=0.3, clip=0.05, swap=False
  )
  state = fit.start(params, config)
  state, _ = run(controller, state, tokens, targets, config)
  expected = jax.tree.map(np.asarray, params)
  mean = square = jax.tree.map(np.zeros_like, expected)
  for step in range(1, 4):
    g, _ = loss_and_gradients(expected, tokens, targets, jnp.ones(COUNT))
    scale = 0.05 / norm(g)
    assert scale < 1
    g = jax.tree.map(lambda g, w, c=scale: c * g + 0.3 * w, g, expected)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, g)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, g)

    def move(w, m, v, step=step):
      mean, square = m / (1 - 0.9**step), v / (1 - 0.999**step)
      return w - 1e-3 * mean / (np.sqrt(square) + 1e-8)

    expected = jax.tree.map(move, expected, mean, square)
  trees.assert_close(state.params, expected, atol=2e-5)


@pytest.fixture(scope="module")
def twenty():
  """A controller with dropout and what a fit of 20 architectures needs."""
  config = ControllerConfig(16, 32, mlp_layers=1, mlp_width=32)
  controller = Controller(SPACE, config)
  params = random_params(controller, scale=0.2)
  tokens = random_tokens(SPACE, 20)
  targets = jnp.linspace(0, 1, 20)
  config = fit.FitConfig(
    epochs=40, batch=12, learning_rate=1e-2, weight_decay=0.0
  )
  return controller, fit.start(params, config), tokens, targets, config


def test_two_chunks_of_epochs_equal_one(twenty):
  *problem, long = twenty
  short = dataclasses.replace(long, epochs=20)
  whole, losses = run(*problem, long)
  parts, last = run(*problem, short, calls=2)
  assert whole.epoch == parts.epoch == 40
  trees.assert_close(losses.total[20:], last.total, rtol=1e-3)
  trees.assert_close(whole.params, parts.params, rtol=1e-3, atol=1e-4)


def test_every_epoch_has_its_own_randomness(twenty):
  controller, state, tokens, targets, config = twenty
  config = dataclasses.replace(config, epochs=20)
  _, losses = run(controller, state, tokens, targets, config)
  later = state._replace(epoch=state.epoch + 20)
  _, other = run(controller, later, tokens, targets, config)
  assert np.all(losses.total != other.total)


def test_a_fit_memorises_twenty_architectures(twenty):
  controller, _, tokens, _, _ = twenty
  state, losses = run(*twenty, calls=12)
  # A swap is never left out, so these are the strings that the fit has seen.
  seen = fit.swap(jax.random.key(5), tokens, space=SPACE)
  decoded = metrics.reconstruct(state.params, seen, controller=controller)
  np.testing.assert_array_equal(decoded, seen)
  assert losses.mse[-1] < 0.01


def test_equal_scores_become_one_half():
  np.testing.assert_array_equal(
    fit.normalise_targets(jnp.full(3, 0.9)), [0.5, 0.5, 0.5]
  )


def test_scores_become_targets_from_zero_to_one_in_the_same_order():
  targets = fit.normalise_targets(jnp.array([3.0, -1.0, 1.0]))
  np.testing.assert_allclose(targets, [1.0, 0.0, 0.5])


def test_who_is_held_out_sets_no_bound_of_the_targets():
  scores = jnp.array([3.0, -1.0, 9.0, 1.0])
  targets = fit.normalise_targets(scores, scores < 5)
  np.testing.assert_allclose(targets[jnp.array([0, 1, 3])], [1.0, 0.0, 0.5])
