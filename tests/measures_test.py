"""Scores as people see them."""

import math

import pytest

from nao_jax.metrics import ACCURACY, PERPLEXITY


@pytest.mark.parametrize("perplexity", [1.0, 12.34, 84.2, 9999.5])
def test_a_perplexity_is_that_of_a_loss_in_nats(perplexity):
  assert PERPLEXITY.show(-math.log(perplexity)) == f"{perplexity:.2f}"


@pytest.mark.parametrize("score", [-14.0, -1e6, -math.inf])
def test_a_perplexity_beyond_a_million_is_not_spelt_out(score):
  assert PERPLEXITY.show(score) == "> 1e6"


def test_no_number_is_shown_as_none():
  assert PERPLEXITY.show(math.nan) == ACCURACY.show(math.nan) == "nan"


def test_an_accuracy_is_the_score():
  assert ACCURACY.show(0.98765) == "0.9877"
