"""The tape: what runs, how often, what it adds up to, what it remembers."""

import dataclasses
import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.networks import convolutions, tape
from tests import trees


@dataclasses.dataclass(frozen=True)
class Times:
  """Multiplies by a factor, and takes every stride-th pixel."""

  stride: int
  factor: float

  def __call__(self, x, weights, memory):
    return self.factor * x[:, :: self.stride, :: self.stride], memory


# Small and first: what is wrong in the large shows here within seconds.
@pytest.mark.parametrize(
  ("reduction", "expected"),
  # Nodes 2 and 3: 10 of state 0 plus 100 of state 1, then 100 of node 2 plus
  # 10 of state 1. A strided branch adds half a unit for every unit.
  [(False, (210.0, 21020.0)), (True, (315.0, 31530.0))],
)
def test_only_branches_that_read_an_input_are_strided(reduction, expected):
  rows = np.array([[0, 0, 1, 1], [2, 1, 1, 0]], np.int32)
  inputs = np.ones((2, 1, 4, 4, 1), np.float32)
  inputs[1] = 2
  # What stands for the inputs must not be read by any branch.
  shrunk = np.full((2, 1, 2, 2, 1), -7, np.float32) if reduction else None

  def operations(stride):
    scale = 1.5 if stride == 2 else 1
    return tuple(Times(stride, scale * factor) for factor in (10.0, 100.0))

  states, _ = tape.run_cell(
    operations, inputs, shrunk, lambda stride: ((), ()), (), None, rows
  )
  assert states.shape == (4, 1, *((2, 2) if reduction else (4, 4)), 1)
  np.testing.assert_array_equal(states[:2], inputs if shrunk is None else -7)
  for state, value in zip(states[2:], expected, strict=True):
    np.testing.assert_array_equal(state, value)


def test_only_loose_ends_are_combined():
  states = np.float32([1, 2, 3, 4]).reshape(4, 1, 1, 1, 1)
  kernels = np.float32([1, 10, 100, 1000]).reshape(4, 1, 1)
  loose = np.array([False, True, False, True])
  assert tape.combine(states, kernels, loose).item() == 4020
  order, count = tape.loose_ends(jnp.asarray(loose))
  assert (order.tolist(), count.item()) == ([1, 3, 0, 2], 2)


MAP = (3, 4, 4, 2)
NODES, OPS = 3, 3
BRANCHES = 2 * NODES


@dataclasses.dataclass(frozen=True)
class Scale:
  """An operation that reports each time it runs, and remembers its input."""

  index: int
  runs: list = dataclasses.field(compare=False)

  def __call__(self, x, weight, memory):
    jax.debug.callback(lambda: self.runs.append(self.index))
    return (self.index + 1) * weight * x, memory + jnp.mean(x)


@pytest.fixture(scope="module")
def runs():
  return []


@pytest.fixture(scope="module")
def value_and_gradient(runs):
  """(inputs, weights [op, E], op [E], source [E], count []) to results.

  They are (the sum of the states, (the states, the memory)) and gradients.
  """
  operations = tuple(Scale(index, runs) for index in range(OPS))

  def total(inputs, weights, op, source, count):
    states = jnp.pad(inputs, ((0, NODES), *((0, 0),) * 4))
    plan = tape.Plan(
      jnp.arange(BRANCHES), count, op, source, 2 + jnp.arange(BRANCHES) // 2
    )
    states, memory = tape.run_branches(
      operations, None, states, tuple(weights), jnp.zeros(BRANCHES), None, plan
    )
    return jnp.sum(states), (states, memory)

  return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _architecture(seed):
  rng = np.random.default_rng(seed)
  op = rng.integers(0, OPS, BRANCHES).astype(np.int32)
  return op, rng.integers(0, 2 + np.arange(BRANCHES) // 2).astype(np.int32)


@pytest.mark.parametrize("seed", range(4))
def test_only_the_chosen_operation_of_a_branch_runs(
  seed, runs, value_and_gradient
):
  op, source = _architecture(seed)
  runs.clear()
  out = value_and_gradient(
    _random(0, 2, *MAP), _random(1, OPS, BRANCHES), op, source, BRANCHES
  )
  jax.block_until_ready(out)
  jax.effects_barrier()
  # Once forwards, and once to be differentiated.
  assert sorted(runs) == sorted([*op, *op])


@pytest.mark.parametrize("seed", range(4))
def test_a_tape_is_the_sum_over_all_paths(seed, value_and_gradient):
  op, source = _architecture(seed)
  inputs, weights = _random(0, 2, *MAP), _random(1, OPS, BRANCHES)
  (value, _), gradients = value_and_gradient(
    inputs, weights, op, source, BRANCHES
  )

  def plain(inputs, weights):
    states = list(inputs)
    for node in range(NODES):
      states.append(
        sum(
          (op[branch] + 1)
          * weights[op[branch]][branch]
          * states[source[branch]]
          for branch in (2 * node, 2 * node + 1)
        )
      )
    return sum(map(jnp.sum, states))

  expected = jax.value_and_grad(plain, (0, 1))(inputs, weights)
  np.testing.assert_allclose(value, expected[0], rtol=1e-4)
  for ours, theirs in zip(gradients, expected[1], strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [0, 3, BRANCHES])
def test_a_branch_that_runs_changes_its_own_memory(count, value_and_gradient):
  op, source = _architecture(0)
  inputs, weights = _random(0, 2, *MAP), _random(1, OPS, BRANCHES)
  (_, (states, memory)), _ = value_and_gradient(
    inputs, weights, op, source, count
  )
  read = np.mean(states, (1, 2, 3, 4))[source]
  np.testing.assert_allclose(memory[:count], read[:count], rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(memory[count:], 0)


def depthwise(stride, x, kernel, memory):
  """Convolves [C, H, W, B] with [C, 3, 3]; adds the mean to a memory."""
  y = convolutions.depthwise_conv(x, kernel, stride=stride, dilation=1)
  return y, memory + jnp.mean(x)


def square(stride, x, scale, memory):
  """No linear operation, with parameters of another shape."""
  return scale * x[:, ::stride, ::stride] ** 2, 2 * memory


OPERATIONS = {
  stride: tuple(functools.partial(f, stride) for f in (depthwise, square))
  for stride in (1, 2)
}


def plain_cell(inputs, shrunk, weights, memory, masks, rows):
  """A cell as Python says it, which jax differentiates by itself."""
  states, after = [*(inputs if shrunk is None else shrunk)], [*memory]
  for branch, (source, op) in enumerate(rows.reshape(-1, 2)):
    strided = shrunk is not None and source < 2
    f = OPERATIONS[2 if strided else 1][op]
    x = inputs[source] if strided else states[source]
    y, after[branch] = f(x, weights[op][branch], memory[branch])
    y = y if masks is None else y * masks[branch]
    if branch % 2:
      states[-1] += y
    else:
      states.append(y)
  return jnp.stack(states), lax.stop_gradient(jnp.stack(after))


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("drop_path", [False, True])
@settings(max_examples=2)  # Each example is compiled.
@given(
  nodes=st.integers(2, 4),
  shape=st.tuples(*(st.integers(1, 3),) * 4),
  seed=st.integers(0, 99),
)
def test_a_cell_and_its_gradients_are_those_of_the_plain_loop(
  reduction, drop_path, nodes, shape, seed
):
  rng = np.random.default_rng(seed)
  channels, height, width, batch = shape
  branches, size = 2 * nodes, (channels, 2 * height, 2 * width, batch)
  source = rng.integers(0, 2 + np.arange(branches) // 2)
  op = rng.integers(0, len(OPERATIONS[1]), branches)
  rows = np.int32([source, op]).T.reshape(nodes, 4)
  inputs = rng.normal(size=(2, *size))
  shrunk = rng.normal(size=(2, *shape)) if reduction else None
  weights = (
    rng.normal(size=(branches, channels, 3, 3)),
    rng.normal(size=branches),
  )
  memory = rng.normal(size=branches)
  masks = rng.integers(0, 2, (branches, batch)) * 2.0 if drop_path else None
  factors = rng.normal(size=(nodes + 2, *(shape if reduction else size)))

  def ours(inputs, shrunk, weights):
    return tape.run_cell(
      OPERATIONS.get,
      inputs,
      shrunk,
      lambda stride: weights,
      memory,
      masks,
      jnp.asarray(rows),
    )

  def plain(*arguments):
    return plain_cell(*arguments, memory, masks, rows)

  def both(*arguments):
    results = []
    for function in (ours, plain):
      value, pull_back, after = jax.vjp(function, *arguments, has_aux=True)
      results.append((value, after, pull_back(factors)))
    return results

  with jax.enable_x64(True):
    found = jax.jit(both)(inputs, shrunk, weights)
  trees.assert_close(*found, rtol=1e-9, atol=1e-10)


@settings(max_examples=3)  # Each example is compiled.
@given(
  loose=st.sets(st.integers(0, 4), min_size=1),
  width=st.integers(1, 3),
  seed=st.integers(0, 99),
)
def test_combining_is_concatenation_relu_and_a_1x1_convolution(
  loose, width, seed
):
  rng = np.random.default_rng(seed)
  states = rng.normal(size=(5, *MAP))
  kernels = rng.normal(size=(5, MAP[0], width))
  weights = rng.normal(size=(width, *MAP[1:]))

  def plain(states, kernels):
    x = jax.nn.relu(jnp.concatenate([states[i] for i in sorted(loose)]))
    kernel = jnp.concatenate([kernels[i] for i in sorted(loose)])
    return jnp.einsum("chwb,cd->dhwb", x, kernel)

  def ours(states, kernels):
    return tape.combine(states, kernels, np.isin(np.arange(5), [*loose]))

  def both(states, kernels):
    results = []
    for function in (ours, plain):
      value, pull_back = jax.vjp(function, states, kernels)
      results.append((value, *pull_back(weights)))
    return results

  with jax.enable_x64(True):
    found = jax.jit(both)(states, kernels)
  for one, other in zip(*found, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)
