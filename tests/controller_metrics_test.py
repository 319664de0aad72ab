import itertools

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from nao_jax.controller import metrics
from nao_jax.spaces import cnn
from tests.tiny_controllers import random_tokens

# Few distinct values, so ties are common.
pairs = st.lists(
  st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12
)


def signs(values):
  return np.array(
    [np.sign(a - b) for a, b in itertools.combinations(values, 2)]
  )


@given(pairs)
def test_pairwise_accuracy_counts_pairs_and_halves_ties(values):
  predictions, scores = np.transpose(values)
  agreement = signs(predictions) * signs(scores)
  ours = metrics.pairwise_accuracy(predictions, scores)
  assert ours == pytest.approx(np.mean((agreement + 1) / 2))


@given(pairs)
def test_kendall_tau_is_tau_b(values):
  predictions, scores = map(signs, np.transpose(values))
  untied = np.sum(predictions**2) * np.sum(scores**2)
  expected = np.sum(predictions * scores) / np.sqrt(max(untied, 1))
  ours = metrics.kendall_tau(*np.transpose(values))
  assert ours == pytest.approx(expected)


@given(pairs)
def test_spearman_rho_equals_scipys_where_it_is_defined(values):
  predictions, scores = np.transpose(values)
  ours = metrics.spearman_rho(predictions, scores)
  if np.ptp(predictions) and np.ptp(scores):
    expected = stats.spearmanr(predictions, scores).statistic
    assert ours == pytest.approx(expected)
  else:
    assert ours == 0


def test_a_perfect_order_scores_one_and_a_reversed_one_zero():
  scores = np.arange(50.0) ** 3
  assert metrics.ranking(np.sqrt(scores), scores) == pytest.approx((1, 1, 1))
  assert metrics.ranking(-scores, scores) == pytest.approx((0, -1, -1))


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_constant_predictions_are_chance(count):
  constant, scores = np.full(count, 0.5), np.arange(count)
  assert metrics.ranking(constant, scores) == (0.5, 0, 0)
  assert metrics.ranking(scores, constant) == (0.5, 0, 0)


def test_a_swapped_reconstruction_is_equivalent_but_not_exact():
  space = cnn.space()
  tokens = random_tokens(space, 8)
  # The two branches of the last node, with inputs that differ.
  tokens[:, -4:] = [1, 7, 2, 8]
  decoded = tokens.copy()
  decoded[:4] = decoded[:4, space.swap_permutations[1, 4]]
  decoded[7, 0] = 3 - decoded[7, 0]
  decoded[7, 1] = 7 + (decoded[7, 1] - 6) % 5
  result = metrics.reconstruction(space, tokens, decoded)
  assert result.exact == 3 / 8
  assert result.tokens == 1 - (4 * 4 + 2) / (8 * 40)
  assert result.equivalent == 7 / 8
