"""Who is held out of which controller, and that it stays so."""

import hashlib
import types

import jax
import numpy as np
import pytest

from nao_jax.controller import fit
from nao_jax.spaces import cnn, nasbench201, rnn
from nao_jax.strategies import folds
from nao_jax.strategies.uniform import sample_new

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
  """In any process and on any machine: by hand, and as written down once."""
  space = rnn.space(2)
  row = np.array([[1, 4, 2, 6]])
  name = np.array([1, 4, 2, 6], "<i4").tobytes()
  digest = hashlib.blake2b(name, digest_size=8).digest()
  number = int.from_bytes(digest, "little")
  assert folds.numbers(space, row, 1000) == [number % 1000] == [247]
