"""The recurrent cell unrolled in time, with a hand-written backward pass.

The forward pass keeps the states, gates and activated values of every step; the
backward pass collects the gradients of the gates of all steps and computes one
product per matrix. Automatic differentiation would add one product to the
gradient of every matrix at every step.

Inside, states are [H, B], the streams minor-most: a matrix times states is
faster on a CPU than states times a matrix (docs/measurements.md), as the right
factor is the one that is repacked, and here it is the small one.

The equations are in networks/recurrent.py.

Shapes: T steps of text, B streams, H width, N nodes.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp


class _Tape(NamedTuple):
  """Values of each step that the backward pass needs; [T, ...].

  Attributes:
    hidden: [H, B], the state before the step.
    states: [N + 1, H, B], s_0 .. s_N.
    gates: [N + 1, H, B], the sigmoid.
    activated: [N + 1, H, B], the values after the activation.
  """

  hidden: jax.Array
  states: jax.Array
  gates: jax.Array
  activated: jax.Array


@jax.custom_vjp
def unroll(
  inputs: jax.Array,
  hidden: jax.Array,
  first: jax.Array,
  nodes: jax.Array,
  kept: jax.Array,
  cell: jax.Array,
  length: int | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Runs a cell over all steps of a text.

  Args:
    inputs: [T, B, 2 H], the input's part of [c; u] of s_0.
    hidden: [B, H].
    first: [H, 2 H], the state's part of W_0.
    nodes: [N, H, 2 H].
    kept: [B, H], m_h; it has no gradient.
    cell: int32 [N, 2].
    length: number of steps that count; later ones leave the state as it is.

  Returns:
    Outputs [T, B, H] and the last state [B, H].
  """
  return _forward(inputs, hidden, first, nodes, kept, cell, length)[0]


def _forward(inputs, hidden, first, nodes, kept, cell, length):
  # If sliced or transposed in the loop, every matrix would be copied at every
  # step.
  matrices = first.T, tuple(_turned(nodes))

  def step(hidden, at):
    x, counts = at
    states, gates, activated = _step(x, hidden, *matrices, kept.T, cell)
    output = states[1:].mean(0)
    tape = _Tape(hidden, states, gates, activated)
    return jnp.where(counts, output, hidden), (output, tape)

  counts = jnp.arange(len(inputs)) < length
  hidden, (outputs, tape) = lax.scan(step, hidden.T, (_turned(inputs), counts))
  saved = tape, first, nodes, kept, cell, counts
  return (_turned(outputs), hidden.T), saved


def _turned(matrices):
  """Returns the transposes of a stack of matrices."""
  return jnp.swapaxes(matrices, 1, 2)


def _step(x, hidden, first, nodes, kept, cell):
  """Computes one step of text: states, gates, activated, each [N + 1, H, B]."""
  gate, candidate = jnp.split(x + first @ (hidden * kept), 2)
  gates, activated = [jax.nn.sigmoid(gate)], [jnp.tanh(candidate)]
  states = jnp.zeros((len(nodes) + 1, *hidden.shape), hidden.dtype)
  states = states.at[0].set(hidden + gates[0] * (activated[0] - hidden))
  for node in range(len(nodes)):
    state = states[cell[node, 0]]
    gate, candidate = jnp.split(nodes[node] @ (state * kept), 2)
    gates.append(jax.nn.sigmoid(gate))
    activated.append(_choose(cell[node, 1], _ACTIVATE, candidate))
    new = state + gates[-1] * (activated[-1] - state)
    states = states.at[node + 1].set(new)
  return states, jnp.stack(gates), jnp.stack(activated)


def _choose(index, functions, x):
  """Returns `functions[index](x)` of element-wise functions.

  On a GPU the host would read the index of a switch, and wait for the device,
  at every node of every step; all four values should cost less, which was not
  measured. On a CPU a branch is cheaper than the values of the others.
  """

  def select(index, x):
    return lax.select_n(index, *(function(x) for function in functions))

  def switch(index, x):
    return lax.switch(index, functions, x)

  return lax.platform_dependent(index, x, cpu=switch, default=select)


def _backward(saved, cotangents):
  tape, first, nodes, kept, cell, counts = saved
  outputs, hidden = cotangents
  matrices = first, tuple(nodes)

  def step(hidden, at):
    output, counts, tape = at
    output = output + jnp.where(counts, hidden, 0)
    before, errors = _step_back(output, tape, *matrices, kept.T, cell)
    return jnp.where(counts, before, hidden), errors

  hidden, errors = lax.scan(
    step, hidden.T, (_turned(outputs), counts, tape), reverse=True
  )
  read = [tape.hidden] + [
    tape.states[:, cell[node, 0]] for node in range(len(nodes))
  ]
  gradients = [
    jnp.einsum("thb,tkb->hk", x * kept.T, errors[:, row])
    for row, x in enumerate(read)
  ]
  return (
    _turned(errors[:, 0]),
    hidden.T,
    gradients[0],
    jnp.stack(gradients[1:]),
    None,
    None,
    None,
  )


def _step_back(output, tape, first, nodes, kept, cell):
  """Returns the gradients of one step: of the state before, and of all [c; u].

  They are [H, B] and [N + 1, 2 H, B]; `output` is the gradient of the step's
  output and `tape` has the step's values, the others are those of `unroll`.
  """
  count = len(nodes)
  states = jnp.concatenate(
    [jnp.zeros_like(output)[None], jnp.repeat(output[None] / count, count, 0)]
  )
  errors = [None] * (count + 1)
  for node in reversed(range(count)):
    source, activation = cell[node]
    through, errors[node + 1] = _highway_back(
      states[node + 1],
      tape.states[source],
      tape.gates[node + 1],
      tape.activated[node + 1],
      _choose(activation, _SLOPE, tape.activated[node + 1]),
    )
    back = through + (nodes[node] @ errors[node + 1]) * kept
    states = states.at[source].add(back)
  gate, activated = tape.gates[0], tape.activated[0]
  through, errors[0] = _highway_back(
    states[0], tape.hidden, gate, activated, 1 - activated**2
  )
  return through + (first @ errors[0]) * kept, jnp.stack(errors)


def _highway_back(gradient, state, gate, activated, slope):
  """Differentiates state + gate (activated - state) to the state and [c; u]."""
  of_gate = gradient * (activated - state) * gate * (1 - gate)
  of_candidate = gradient * gate * slope
  errors = jnp.concatenate([of_gate, of_candidate])
  return gradient * (1 - gate), errors


unroll.defvjp(_forward, _backward)

# Activations in the order of ACTIVATIONS, and their derivatives as functions of
# the activated values.
_ACTIVATE = (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, lambda u: u)
_SLOPE = (
  lambda a: 1 - a**2,
  lambda a: jnp.float32(a > 0).astype(a.dtype),
  lambda a: a * (1 - a),
  jnp.ones_like,
)
