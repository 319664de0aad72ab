"""Folds of held-out members, and that they stay the same."""

import dataclasses
import hashlib
import types

import jax
import numpy as np
import pytest

from nao_jax.controller import fit
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.spaces import cnn, nasbench201, rnn
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, folds
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from nao_jax.strategies.uniform import sample_new
from tests.stand_ins import nothing

SPACES = {
  "table": nasbench201.space(),
  "cells": cnn.space(5),
  "triples": cnn.space(3, "large", "triples"),
  "recurrent": rnn.space(11),
}


@pytest.fixture(params=SPACES, scope="module")
def drawn(request):
  space = SPACES[request.param]
  return types.SimpleNamespace(
    space=space, tokens=sample_new(space, jax.random.key(0), 900, set())
  )


def test_a_fold_goes_with_the_architecture_wherever_it_stands(drawn):
  space, tokens = drawn.space, drawn.tokens
  order = np.random.default_rng(0).permutation(len(tokens))[:200]
  for fold in (
    lambda rows: folds.numbers(space, rows, 8),
    lambda rows: folds.held_out(space, rows, 0.3),
  ):
    np.testing.assert_array_equal(fold(tokens[order]), fold(tokens)[order])
    alone = [fold(row[None])[0] for row in tokens[:20]]
    np.testing.assert_array_equal(alone, fold(tokens)[:20])


def test_equal_functions_share_a_fold(drawn):
  space, tokens = drawn.space, drawn.tokens
  twins = np.asarray(fit.swap(jax.random.key(1), tokens, space=space))
  if space.swaps or space.functions:
    assert (twins != tokens).any()
  for rows in (tokens, twins):
    np.testing.assert_array_equal(
      folds.numbers(space, rows, 7),
      folds.numbers(space, space.canonical(tokens), 7),
    )
    np.testing.assert_array_equal(
      folds.held_out(space, rows, 0.5), folds.held_out(space, tokens, 0.5)
    )


@pytest.mark.parametrize("members", [2, 5, 8])
def test_folds_are_balanced(drawn, members):
  counts = np.bincount(
    folds.numbers(drawn.space, drawn.tokens, members), minlength=members
  )
  expected = len(drawn.tokens) / members
  assert len(counts) == members
  # Chi squared; its mean is members - 1, its deviation sqrt(2 (members - 1)).
  spread = np.sum((counts - expected) ** 2) / expected
  assert spread < members - 1 + 4 * np.sqrt(2 * (members - 1))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_share_is_held_out(drawn, share):
  found = folds.held_out(drawn.space, drawn.tokens, share).mean()
  assert found == pytest.approx(share, abs=0.05 if 0 < share < 1 else 0)


def test_more_held_out_are_the_same_ones_and_others(drawn):
  few, many = (folds.held_out(drawn.space, drawn.tokens, x) for x in (0.1, 0.4))
  assert (few <= many).all()


def test_folds_are_known_answers():
  """Computed by hand, and equal in any process and on any machine."""
  space = rnn.space(2)
  row = np.array([[1, 4, 2, 6]])
  name = np.array([1, 4, 2, 6], "<i4").tobytes()
  digest = hashlib.blake2b(name, digest_size=8).digest()
  number = int.from_bytes(digest, "little")
  assert folds.numbers(space, row, 1000) == [number % 1000] == [247]


# Three tokens that the encoder reads in one step: there is no smaller LSTM.
TINY = Space(
  "tiny", tuple(tuple(range(9 * i + 1, 9 * i + 10)) for i in range(3)), (), 3
)
SIZES = ControllerConfig(
  embedding=8, hidden=16, mlp_layers=1, mlp_width=32, mlp_dropout=0.0
)
STRATEGIES = {
  "nao": Nao(
    Controller(TINY, SIZES),
    FitConfig(epochs=100, batch=64, learning_rate=0.02, weight_decay=0.0),
    NaoConfig(top_k=4, held_out=0.5, max_step_size=2),
  ),
  "nao_plus": NaoPlus(
    Controller(TINY, SIZES),
    NaoPlusConfig(
      members=2,
      pretraining=0,
      steps=10,
      unlabelled=1,
      learning_rate=0.02,
      weight_decay=0.0,
      seeds=2,
      step_sizes=(0.5,),
      passes=1,
    ),
  ),
}
MEMBERS, ROUNDS, NEW = 60, 5, 6


def _noise(tokens, seed):
  """A score that says nothing but which architecture it is of."""
  names = [hashlib.sha256(name).digest() for name in TINY.keys(tokens)]
  return np.array(
    [np.random.default_rng([seed, *name]).normal() for name in names]
  )


def _accuracies(strategy, seed):
  """Held-out pairwise accuracy in each round of a pool that changes.

  Chance decides who leaves: where the worst do, what is left has been chosen
  by its noise, and what comes by a prediction of it.
  """
  key, rng = jax.random.key(seed), np.random.default_rng(seed)
  tokens = sample_new(TINY, key, MEMBERS, set())
  known = set(TINY.keys(tokens))
  state = strategy.init(jax.random.fold_in(key, 1))
  for round_ in range(ROUNDS):
    round_key = jax.random.fold_in(key, 2 + round_)
    seen = Observations(tokens, _noise(tokens, seed), known)
    state, report = strategy.tell(state, round_key, seen, nothing, nothing)
    if "asked" in getattr(state, "_fields", ()):
      state = state._replace(asked=np.int32(8 * NEW))
    yield report["pairwise_accuracy"]
    new = sample_new(TINY, round_key, NEW, known)
    known |= set(TINY.keys(new))
    stay = np.sort(rng.permutation(MEMBERS)[NEW:])
    tokens = np.concatenate([tokens[stay], new])


# An ensemble predicts each member, a controller half of them.
@pytest.mark.parametrize(("name", "seeds"), [("nao", 10), ("nao_plus", 5)])
def test_noise_is_predicted_no_better_than_by_chance(name, seeds):
  """A controller fitted to a member in any round would know its noise."""
  found = np.array(
    [[*_accuracies(STRATEGIES[name], seed)] for seed in range(seeds)]
  )
  assert found[:, 1:].mean() == pytest.approx(0.5, abs=0.05)


def test_scores_of_the_held_out_change_nothing_that_is_learnt():
  strategy = STRATEGIES["nao"]
  tokens = sample_new(TINY, jax.random.key(0), MEMBERS, set())
  scores = _noise(tokens, 0)
  hidden = folds.held_out(TINY, tokens, strategy.config.held_out)
  others = np.where(hidden, 100 - 50 * scores, scores)
  states = [
    strategy.tell(
      strategy.init(jax.random.key(1)),
      jax.random.key(2),
      Observations(tokens, values, set()),
      nothing,
      nothing,
    )[0]
    for values in (scores, others)
  ]
  jax.tree.map(np.testing.assert_array_equal, *states)
  strategy = STRATEGIES["nao_plus"]
  apart = strategy._held_out(tokens)
  assert apart.any(axis=0).all()
  assert (apart[0] == ~apart[1]).all()


def _tell(strategy, count):
  tokens = sample_new(TINY, jax.random.key(0), count, set())
  seen = Observations(tokens, np.arange(count, dtype=float), set())
  state = strategy.init(jax.random.key(1))
  return strategy.tell(state, jax.random.key(2), seen, nothing, nothing)[1]


def test_a_pool_of_which_all_would_be_held_out_is_learnt_as_a_whole():
  nao, plus = STRATEGIES["nao"], STRATEGIES["nao_plus"]
  nao = dataclasses.replace(nao, config=NaoConfig(held_out=0.999999))
  assert _tell(nao, 5)["held_out"] == 0
  assert _tell(plus, 1)["held_out"] == 0


def test_without_two_held_out_nothing_is_said_of_the_ranking():
  nao = dataclasses.replace(
    STRATEGIES["nao"], config=NaoConfig(top_k=4, held_out=0.0)
  )
  report = _tell(nao, MEMBERS)
  assert report["held_out"] == 0
  assert "token_accuracy" in report
  assert not {"pairwise_accuracy", "kendall_tau"} & set(report)
