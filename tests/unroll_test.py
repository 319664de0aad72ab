"""The recurrent cell's own tape equals jax.grad of the plain loop."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.networks import unroll as unroll_module
from nao_jax.networks.unroll import unroll
from tests import trees

# Sums are taken in other orders.
pytestmark = pytest.mark.usefixtures("double_precision")

ACTIVATE = (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, lambda u: u)


def plain(inputs, hidden, first, nodes, kept, cell, length):
  """The equations of networks/recurrent.py, for the steps that count."""

  def highway(state, pair, activate):
    gate, candidate = jnp.split(pair, 2, axis=-1)
    return state + jax.nn.sigmoid(gate) * (activate(candidate) - state)

  outputs = []
  for x in inputs[:length]:
    states = [highway(hidden, x + (hidden * kept) @ first, jnp.tanh)]
    for matrix, (source, activation) in zip(nodes, cell, strict=True):
      pair = (states[source] * kept) @ matrix
      states.append(highway(states[source], pair, ACTIVATE[activation]))
    hidden = sum(states[1:]) / len(cell)
    outputs.append(hidden)
  return jnp.stack(outputs), hidden


@settings(max_examples=3)  # Each example is compiled.
@given(
  nodes=st.integers(1, 4),
  steps=st.integers(1, 4),
  padding=st.integers(0, 2),
  batch=st.integers(1, 3),
  width=st.integers(1, 4),
  seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_those_of_the_plain_loop(
  nodes, steps, padding, batch, width, seed
):
  rng = np.random.default_rng(seed)
  predecessors = rng.integers(0, 1 + np.arange(nodes))
  cell = np.transpose([predecessors, rng.integers(0, len(ACTIVATE), nodes)])
  shapes = (
    (steps + padding, batch, 2 * width),
    (batch, width),
    (width, 2 * width),
    (nodes, width, 2 * width),
  )
  arguments = [rng.standard_normal(shape) for shape in shapes]
  kept = rng.integers(0, 2, (batch, width)) / 0.5
  weights = rng.standard_normal((steps, batch, width)), arguments[1]

  def ours(*arguments):
    outputs, hidden = unroll(*arguments, kept, jnp.int32(cell), steps)
    return outputs[:steps], hidden

  trees.assert_same_gradients(
    ours, lambda *a: plain(*a, kept, cell, steps), weights, *arguments
  )


@pytest.mark.parametrize(
  "functions", [unroll_module._ACTIVATE, unroll_module._SLOPE]
)
def test_a_gpu_selects_what_a_cpu_switches_to(functions, monkeypatch):
  x = jnp.linspace(-2, 2, 7)
  choose = functools.partial(unroll_module._choose, functions=functions, x=x)
  expected = [choose(jnp.int32(i)) for i in range(len(functions))]
  monkeypatch.setattr(
    unroll_module.lax,
    "platform_dependent",
    lambda *args, cpu, default: default(*args),
  )
  for i, value in enumerate(expected):
    np.testing.assert_array_equal(choose(jnp.int32(i)), value)
