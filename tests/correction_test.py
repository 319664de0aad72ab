"""Correction of predictions by signals that cost nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from nao_jax.controller.model import Controller
from nao_jax.search import loop
from nao_jax.spaces import nasbench201
from nao_jax.strategies import Observations, correction
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from nao_jax.strategies.proxies import Proxy
from nao_jax.strategies.uniform import sample_new
from tests import tiny_controllers
from tests.stand_ins import nothing

SPACE = nasbench201.space()
TOKENS = sample_new(SPACE, jax.random.key(0), 60, set())


def _convolutions(tokens):
  return (nasbench201.to_ops(tokens) == 3).sum(-1)


CONVOLUTIONS = Proxy("convolutions", _convolutions)
NOISE = np.random.default_rng(0).uniform(size=(2, len(TOKENS)))


def _fit(predicted, targets, proxies=(CONVOLUTIONS,)):
  return correction.fit(SPACE, proxies, TOKENS, predicted, targets)


def test_predictions_that_are_right_are_left_as_they_are():
  weights = _fit(NOISE[0], NOISE[0]).weights
  np.testing.assert_allclose(weights, [1, 0], atol=1e-6)


def test_a_signal_replaces_predictions_that_know_nothing():
  found = _convolutions(TOKENS)[None]
  targets = correction.quantiles(found, np.sort(found))[0]
  own, convolutions = _fit(NOISE[0], targets).weights
  assert own < 0.2
  assert convolutions > 0.8


def test_a_signal_against_the_scores_gets_no_weight():
  found = _convolutions(TOKENS)[None]
  targets = 1 - correction.quantiles(found, np.sort(found))[0]
  assert _fit(NOISE[0], targets).weights[1] == 0


def test_neither_scale_nor_place_of_a_signal_counts():
  other = Proxy("scaled", lambda rows: 1e6 * _convolutions(rows) - 3.0)
  one, two = (
    _fit(*NOISE, (proxy,))(NOISE[:, :3].T, TOKENS[:3])
    for proxy in (CONVOLUTIONS, other)
  )
  np.testing.assert_array_equal(one, two)


def test_quantiles_lie_between_those_of_the_smaller_and_the_larger():
  known = np.array([[1.0, 2.0, 2.0, 4.0]])
  found = correction.quantiles(np.array([[0.0, 1.0, 2.0, 3.0, 9.0]]), known)
  np.testing.assert_array_equal(found, [[0, 0.125, 0.5, 0.75, 1]])


def test_runs_from_before_there_were_signals_keep_their_identity():
  """Workdirs are compared by settings that do not name them."""
  controller = Controller(SPACE, tiny_controllers.TINY)
  assert "proxies" not in loop._plain(NaoPlus(controller))
  assert "proxies" in loop._plain(NaoPlus(controller, proxies=(CONVOLUTIONS,)))


@pytest.mark.parametrize("quick", [True, False])
def test_the_strategy_follows_a_signal_that_is_quick(quick):
  """The scores are the signal, and the controllers have learnt next to none."""
  strategy = NaoPlus(
    Controller(SPACE, tiny_controllers.TINY),
    NaoPlusConfig(members=2, pretraining=10, most_steps=10, passes=1, seeds=8),
    (Proxy("convolutions", _convolutions, quick),),
  )
  scores = _convolutions(TOKENS).astype(np.float64)
  observed = Observations(TOKENS, scores, set(SPACE.keys(TOKENS)))
  state = strategy.init(jax.random.key(1))
  state, found = strategy.tell(
    state, jax.random.key(2), observed, nothing, nothing
  )
  assert ("signals" in found) == quick
  if quick:
    assert found["signals"]["proxies"]["convolutions"] > 0.5
    plain = dataclasses.replace(strategy, proxies=())
    with_, without = (
      each.ask(state, jax.random.key(3), observed, 4)[1].tokens
      for each in (strategy, plain)
    )
    assert _convolutions(with_).sum() > _convolutions(without).sum()
