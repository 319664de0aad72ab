"""The LSTM's own tape equals automatic differentiation of the plain loop."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.controller import lstm
from tests import trees

# Sums are taken in other orders.
pytestmark = pytest.mark.usefixtures("double_precision")


def plain(kernel, gates, output, memory):
  """The textbook equations, one step after the other."""
  outputs = []
  for x in gates:
    enter, keep, new, leave = jnp.split(x + output @ kernel, 4, axis=-1)
    memory = jax.nn.sigmoid(keep) * memory
    memory += jax.nn.sigmoid(enter) * jnp.tanh(new)
    output = jax.nn.sigmoid(leave) * jnp.tanh(memory)
    outputs.append(output)
  return jnp.stack(outputs)


@settings(max_examples=4)  # Each example is compiled.
@given(
  steps=st.integers(1, 5),
  batch=st.integers(1, 3),
  hidden=st.integers(1, 4),
  seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_those_of_the_plain_loop(
  steps, batch, hidden, seed
):
  rng = np.random.default_rng(seed)
  shapes = (
    (hidden, 4 * hidden),
    (steps, batch, 4 * hidden),
    (batch, hidden),
    (batch, hidden),
  )
  arguments = [rng.standard_normal(shape) for shape in shapes]
  weights = rng.standard_normal((steps, batch, hidden))
  trees.assert_same_gradients(lstm.run, plain, weights, *arguments)
