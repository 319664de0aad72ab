"""Steps of several controllers that learn side by side."""

import dataclasses

import jax
import numpy as np

from nao_jax.controller.model import Controller
from nao_jax.spaces import nasbench201
from nao_jax.strategies import Observations, ensemble, nao_plus
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from tests import tiny_controllers

CONFIG = NaoPlusConfig(members=2, labelled=3, unlabelled=1, learning_rate=0.25)
SPACE = nasbench201.space()
STRATEGY = NaoPlus(Controller(SPACE, tiny_controllers.TINY), CONFIG)


def _lessons(steps):
  """Returns all training batches of a fit with this number of steps."""
  tokens = tiny_controllers.random_tokens(SPACE, 8)
  seen = Observations(tokens, np.arange(8.0), set())
  rng = np.random.default_rng(0)
  calls = nao_plus._lessons(rng, seen, steps, CONFIG.trade_off, STRATEGY)
  return jax.tree.map(lambda *parts: np.concatenate(parts), *calls)


def test_the_rate_falls_to_zero_in_the_second_half_of_a_fit():
  steps = 2 * nao_plus.STEPS_A_CALL + 4
  rates = _lessons(steps).rates / CONFIG.learning_rate
  np.testing.assert_allclose(rates[: steps // 2], 1, rtol=1e-6)
  falling = 2 - 2 * np.arange(steps // 2, steps) / steps
  np.testing.assert_allclose(rates[steps // 2 : steps], falling, rtol=1e-5)
  assert not rates[steps:].any()


def test_weights_decay_beside_the_step_and_not_within_it():
  """Decoupled: by rate * decay * weight, whatever the gradients."""
  params = jax.tree.map(
    lambda *members: np.stack(members),
    *(
      tiny_controllers.random_params(STRATEGY.controller, seed)
      for seed in range(CONFIG.members)
    ),
  )
  adam = jax.vmap(ensemble._adam().init)(params)
  none = np.int32(0)
  state = ensemble.Ensemble(params, adam, none, none, none)
  lessons = jax.tree.map(lambda leaf: leaf[:1], _lessons(10))
  decay, after = 0.125, {}
  for weight_decay in (0.0, decay):
    after[weight_decay] = ensemble.train(
      state,
      jax.random.key(1),
      lessons,
      controller=STRATEGY.controller,
      config=dataclasses.replace(CONFIG, weight_decay=weight_decay),
    ).params
  jax.tree.map(
    lambda with_, without, before: np.testing.assert_allclose(
      without - with_, CONFIG.learning_rate * decay * before, atol=1e-5
    ),
    after[decay],
    after[0.0],
    params,
  )
