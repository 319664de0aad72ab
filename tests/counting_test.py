"""The lower bounds on work that the benchmarks count."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import pytest

from benchmarks import counting


def test_a_product_in_a_loop_counts_for_each_step():
  matrix = jnp.ones((3, 4))

  def loop(x):
    return jax.lax.scan(
      lambda x, _: ((x @ matrix) @ matrix.T, None), x, length=5
    )

  assert counting.count(loop, jnp.ones((2, 3))).operations == 5 * 2 * 2 * 24


def test_of_branches_the_longest_counts():
  def branch(x):
    return jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, x)

  assert counting.count(branch, jnp.ones((3, 3))).operations == 2 * 27


def test_a_loop_of_unknown_length_is_refused():
  def loop(x):
    return jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, x)

  with pytest.raises(ValueError, match="unknown length"):
    counting.count(loop, 0)


@given(
  st.floats(-3, 3),
  st.floats(0.1, 10),
  st.lists(st.integers(1, 1000), min_size=2, max_size=6, unique=True),
)
def test_a_power_law_has_its_exponent(power, factor, sizes):
  amounts = [factor * size**power for size in sizes]
  assert counting.exponent(sizes, amounts) == pytest.approx(power, abs=1e-6)
