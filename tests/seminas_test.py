"""SemiNAS: its controller, its pseudo-labels and its seeds."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.controller import metrics
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.layers import normalise
from nao_jax.controller.model import SEMI, Controller
from nao_jax.spaces import rnn
from nao_jax.strategies import Observations
from nao_jax.strategies.seminas import SemiNas, SemiNasConfig
from tests import tiny_controllers
from tests.stand_ins import nothing

SPACE = rnn.space(3)
SIZES = dataclasses.replace(tiny_controllers.TINY, residual=True)
STRATEGY = SemiNas(
  Controller(SPACE, SIZES),
  FitConfig(epochs=20, batch=8),
  SemiNasConfig(
    top_k=9, max_step_size=3.0, unlabelled=30, epochs=20, repeats=2
  ),
)
TOKENS = np.unique(tiny_controllers.random_tokens(SPACE, 12), axis=0)
SEEN = Observations(
  TOKENS, np.arange(float(len(TOKENS))), set(SPACE.keys(TOKENS))
)
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def told():
  """A round's state, and all states that were kept on the way."""
  params = tiny_controllers.random_params(STRATEGY.controller)
  begin = jax.eval_shape(STRATEGY.init, KEY)
  begin = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), begin)
  begin = begin._replace(fit=begin.fit._replace(params=params))
  kept = []
  state, found = STRATEGY.tell(
    begin, KEY, SEEN, nothing, lambda state, _: kept.append(state)
  )
  return types.SimpleNamespace(state=state, kept=kept, found=found)


def _same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_random_architectures_get_the_predictions_of_the_first_fit(told):
  first = [state for state in told.kept if not state.labelled]
  assert 0 < len(first) < len(told.kept)
  predicted, _ = metrics.predict(
    first[-1].fit.params, told.state.tokens, controller=STRATEGY.controller
  )
  np.testing.assert_array_equal(told.state.targets, predicted)
  assert told.found["unlabelled"] == len(told.state.tokens) == 30


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_round_goes_on_from_whatever_was_kept(told, share):
  """In the first fit, at its end, and in the second."""
  begin = told.kept[round(share * len(told.kept)) - 1]
  state, _ = STRATEGY.tell(begin, KEY, SEEN, nothing, nothing)
  _same(state, told.state)


def test_the_second_fit_repeats_members_and_adds_the_others(told):
  pool = STRATEGY._nao(1).examples(SEEN)
  both = STRATEGY._both(pool, told.state, SEEN)
  np.testing.assert_array_equal(
    both.tokens, [*np.repeat(TOKENS, 2, 0), *told.state.tokens]
  )
  np.testing.assert_array_equal(
    both.targets, [*np.repeat(pool.targets, 2), *told.state.targets]
  )
  assert both.trains.all()


def test_seeds_are_the_best_of_both_best_first(told):
  targets = np.linspace(0, 0.99, 30, dtype=np.float32)[::-1]
  state = told.state._replace(targets=targets)
  seeds, parents = STRATEGY.seeds(state, SEEN)
  names = SPACE.keys(seeds)
  assert len(names) == len(set(names)) == STRATEGY.config.top_k
  assert parents[0] == len(TOKENS) - 1  # Its target is 1.
  members = SEEN.scores / SEEN.scores.max()
  value = dict(zip(SPACE.keys(state.tokens)[::-1], targets[::-1], strict=True))
  value |= dict(zip(SPACE.keys(TOKENS), members, strict=True))
  expected = sorted(value.values())[::-1][: len(names)]
  np.testing.assert_allclose([value[name] for name in names], expected)
  for seed, parent in zip(seeds, parents, strict=True):
    if parent >= 0:
      np.testing.assert_array_equal(seed, TOKENS[parent])
    else:
      assert SEEN.known.isdisjoint(SPACE.keys(seed[None]))
  assert (parents < 0).any()


def test_the_next_round_goes_on_from_the_controller(told):
  assert not told.state.labelled
  assert told.state.fit.epoch == 0
  kept = []
  STRATEGY.tell(
    told.state,
    jax.random.key(2),
    SEEN,
    nothing,
    lambda state, _: kept.append(state),
  )
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), kept[0].fit.params, told.state.fit.params
  )
  # Adam moves a weight by no more than about the learning rate in a step.
  steps = 2 * -(-len(TOKENS) // STRATEGY.fit.batch)
  assert 0 < max(jax.tree.leaves(moved)) < 2 * steps * 1e-3


@pytest.mark.parametrize("residual", [False, True])
def test_the_residual_encoder_reads_backwards_too(residual):
  controller = Controller(SPACE, dataclasses.replace(SIZES, residual=residual))
  params = tiny_controllers.random_params(controller)
  outputs = [
    controller.encode(params, tokens[None])[0][0]
    for tokens in np.array([[1, 4, 1, 4, 1, 4], [1, 4, 1, 4, 3, 4]])
  ]
  differs = np.abs(outputs[0] - outputs[1]).max(-1) > 1e-6
  np.testing.assert_array_equal(differs, [residual, residual, True])


def test_without_the_lstm_the_encoder_projects_its_inputs():
  controller = STRATEGY.controller
  params = tiny_controllers.random_params(controller)
  encoder = params["encoder"]
  silent = jax.tree.map(jnp.zeros_like, encoder)
  silent |= {"embedding": encoder["embedding"], "Dense_0": encoder["Dense_0"]}
  outputs, _ = controller.encode({"encoder": silent}, TOKENS)
  inputs = encoder["embedding"][TOKENS].reshape(
    len(TOKENS), outputs.shape[1], -1
  )
  dense = encoder["Dense_0"]
  expected = normalise(inputs * 0.5**0.5 @ dense["kernel"] + dense["bias"])
  np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_the_predictor_adds_its_inputs():
  controller = STRATEGY.controller
  params = tiny_controllers.random_params(controller)
  silent = jax.tree.map(jnp.zeros_like, params["predictor"])
  silent["Dense_2"] = last = params["predictor"]["Dense_2"]
  embedding = np.random.default_rng(0).normal(size=(5, SIZES.hidden))
  logits = embedding * 0.5**0.5 @ last["kernel"][:, 0] + last["bias"]
  np.testing.assert_allclose(
    controller.predict({"predictor": silent}, np.float32(embedding)),
    jax.nn.sigmoid(logits),
    atol=1e-5,
  )


def test_defaults_are_the_official_sizes():
  config = SemiNasConfig()
  np.testing.assert_array_equal(config.step_sizes, np.arange(1, 101))
  imagenet = SemiNasConfig(step_size=0.1, max_step_size=10.0).step_sizes
  np.testing.assert_allclose(imagenet, np.arange(1, 101) / 10, rtol=1e-6)
  assert (config.unlabelled, config.top_k) == (10_000, 100)
  encoder = jax.eval_shape(Controller(SPACE, SEMI).init, KEY)["encoder"]
  units = encoder["forwards"]["recurrent_kernel"].shape
  assert units == (SPACE.tokens_per_step * 16, SPACE.tokens_per_step * 64)
