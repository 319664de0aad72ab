"""LSTM with a hand-written backward pass.

With output h, memory c and the inputs' part x of the gates (bias included),

  [i; f; g; o] = x + h W           (in the code: enter, keep, new, leave)
  c' = sigmoid(f) c + sigmoid(i) tanh(g)         h' = sigmoid(o) tanh(c')

The forward pass keeps the activated gates and the memory of every step. The
backward pass collects the gradients of the gates of all steps and computes the
gradient of W with one product, where automatic differentiation would add up one
product per step.

`run` is a function of arrays; `Lstm` is the module that holds the parameters.

Shapes: T steps, B sequences, H hidden units.
"""

import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

# Output and memory, [B, H] each.
State = tuple[jax.Array, jax.Array]


def step(kernel: jax.Array, state: State, gates: jax.Array) -> State:
  """Takes one step.

  Args:
    kernel: [H, 4 H], W.
    state: output and memory before the step, [B, H] each.
    gates: [B, 4 H], x.

  Returns:
    Output and memory after the step.
  """
  return _step(kernel, state, gates)[0]


def _step(kernel, state, gates):
  """Returns the new state, activated gates [B, 4 H] and memory [B, H]."""
  output, memory = state
  enter, keep, new, leave = jnp.split(gates + output @ kernel, 4, axis=-1)
  enter, keep, leave = map(jax.nn.sigmoid, (enter, keep, leave))
  new = jnp.tanh(new)
  memory = keep * memory + enter * new
  squashed = jnp.tanh(memory)
  active = jnp.concatenate([enter, keep, new, leave], axis=-1)
  return (leave * squashed, memory), (active, squashed)


@jax.custom_vjp
def run(
  kernel: jax.Array, gates: jax.Array, output: jax.Array, memory: jax.Array
) -> jax.Array:
  """Runs over all steps.

  Args:
    kernel: [H, 4 H], W.
    gates: [T, B, 4 H], x.
    output: [B, H], output before the first step.
    memory: [B, H], memory before the first step.

  Returns:
    The outputs [T, B, H].
  """

  def one(state, gates):
    state = step(kernel, state, gates)
    return state, state[0]

  return lax.scan(one, (output, memory), gates)[1]


def _forward(kernel, gates, output, memory):
  def one(state, gates):
    after, active = _step(kernel, state, gates)
    return after, (*after, *active)

  _, (outputs, memories, *active) = lax.scan(one, (output, memory), gates)
  return outputs, (kernel, output, memory, outputs, memories, active)


def _backward(saved, gradients):
  kernel, output, memory, outputs, memories, active = saved

  def one(state, at):
    return _step_back(kernel, *state, *at)

  before = jnp.concatenate([memory[None], memories[:-1]])
  zeros = jnp.zeros_like(output), jnp.zeros_like(memory)
  (output_gradient, memory_gradient), errors = lax.scan(
    one, zeros, (gradients, before, *active), reverse=True
  )
  read = jnp.concatenate([output[None], outputs[:-1]])
  kernel_gradient = jnp.einsum("tbh,tbk->hk", read, errors)
  return kernel_gradient, errors, output_gradient, memory_gradient


def _step_back(kernel, later, onward, gradient, before, active, squashed):
  """Backpropagates through one step.

  Args:
    kernel: [H, 4 H].
    later: [B, H], gradient of the step's output that comes from later steps.
    onward: [B, H], gradient of the step's memory.
    gradient: [B, H], gradient of the step's output as a result of `run`.
    before: [B, H], memory before the step.
    active: [B, 4 H], activated gates of the step.
    squashed: [B, H], activated memory after the step.

  Returns:
    Gradients of the output and memory before the step, [B, H] each, and of the
    step's gates, [B, 4 H].
  """
  enter, keep, new, leave = jnp.split(active, 4, axis=-1)
  gradient = gradient + later
  onward = onward + gradient * leave * (1 - squashed**2)
  errors = jnp.concatenate(
    [
      onward * new * enter * (1 - enter),
      onward * before * keep * (1 - keep),
      onward * enter * (1 - new**2),
      gradient * squashed * leave * (1 - leave),
    ],
    axis=-1,
  )
  return (errors @ kernel.T, onward * keep), errors


run.defvjp(_forward, _backward)


class Lstm(nn.Module):
  """LSTM in two parts: `project` for all inputs at once, then the recurrence.

  The order of the gates is input, forget, cell, output. There are two biases as
  in PyTorch, although only their sum acts: Adam moves the sum twice as far.
  """

  inputs: int
  hidden: int

  def setup(self) -> None:
    """Declares the parameters."""
    init = uniform(self.hidden)
    gates = 4 * self.hidden
    self.input_kernel = self.param("input_kernel", init, (self.inputs, gates))
    self.recurrent_kernel = self.param(
      "recurrent_kernel", init, (self.hidden, gates)
    )
    self.input_bias = self.param("input_bias", init, (gates,))
    self.recurrent_bias = self.param("recurrent_bias", init, (gates,))

  def project(self, inputs: jax.Array) -> jax.Array:
    """Returns the inputs' part of the gates: [..., inputs] to [..., 4 H]."""
    return inputs @ self.input_kernel + self._bias

  def project_tokens(
    self, embedding: jax.Array, tokens: jax.Array
  ) -> jax.Array:
    """Returns the inputs' part of the gates for embedded tokens.

    An input is the concatenation of n embedded tokens. The vocabulary is
    projected, not every token: V products instead of T B.

    Args:
      embedding: [V, inputs / n].
      tokens: int32 [T, n, B].

    Returns:
      [T, B, 4 H].
    """
    kernels = jnp.split(self.input_kernel, tokens.shape[1])
    parts = [
      (embedding @ kernel)[tokens[:, place]]
      for place, kernel in enumerate(kernels)
    ]
    return sum(parts) + self._bias

  @property
  def _bias(self):
    return self.input_bias + self.recurrent_bias

  def __call__(
    self, gates: jax.Array, state: tuple[jax.Array, jax.Array]
  ) -> jax.Array:
    """Runs over time; see `run`."""
    return run(self.recurrent_kernel, gates, *state)


def uniform(inputs: int) -> nn.initializers.Initializer:
  """Returns PyTorch's default initialiser: uniform in +-1 / sqrt(inputs)."""
  return functools.partial(_draw_uniform, bound=inputs**-0.5)


def _draw_uniform(key, shape, dtype=jnp.float32, *, bound):
  return jax.random.uniform(key, shape, dtype, -bound, bound)
