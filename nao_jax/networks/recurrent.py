"""The recurrent cell and the language model that it makes.

The cell (spec of the official code) is a chain of highway steps. With state h,
input x and masks m,

  [c; u] = [x m_x; h m_h] W_0           s_0     = h   + sigmoid(c) (tanh(u) - h)
  [c; u] = (s_p m_h) W_i                s_{i+1} = s_p + sigmoid(c) (a(u) - s_p)

where node i has predecessor p and activation a; its output, the next h, is the
mean of s_1 .. s_N. The official search also averages s_0, the official final
training does not; here both do as the latter.

The cell is data: one compile serves all. In a shared model each node has a
matrix for every predecessor and activation, of which an architecture chooses
one, once for a whole batch of text.

Plain functions of plain arrays: what is chosen is differentiated, not what it
is chosen from, and that needs the weights in hand.

Shapes: T steps of text, B streams, H width, N nodes, V words; a cell is int32
[N, 2], see spaces/rnn.py.
"""

import dataclasses
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nao_jax.spaces.rnn import ACTIVATIONS

# Weights begin uniform within this (official).
INIT_RANGE = 0.04


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
  """Sizes and dropouts; the defaults are the official ones for PTB.

  Attributes:
    nodes: N, computed nodes in the cell.
    width: H, of embeddings and states.
    vocabulary: V, words.
    output_dropout: of the cell's outputs; the same features at all steps.
    hidden_dropout: of what every node reads; the same features at all steps.
    input_dropout: of what the cell reads as input; likewise.
    embedding_dropout: of the embedded words; likewise, drawn apart.
    word_dropout: of whole words.
  """

  nodes: int = 11
  width: int = 850
  vocabulary: int = 10_000
  output_dropout: float = 0.75
  hidden_dropout: float = 0.25
  input_dropout: float = 0.75
  embedding_dropout: float = 0.2
  word_dropout: float = 0.0

  @property
  def parameters(self) -> int:
    """Weights of the language model of one cell."""
    return (self.width + 1) * self.vocabulary + (
      (4 + 2 * self.nodes) * self.width**2
    )


class Weights(NamedTuple):
  """What the model of one cell computes with.

  Attributes:
    embedding: [V, H]; of words that come in, and of those that come out.
    bias: [V], of the softmax.
    first: [2 H, 2 H], W_0; rows: input then state, columns: gate then
      candidate.
    nodes: [N, H, 2 H], W_1 ..; in a shared model [2 N (N + 1), H, 2 H], the
      bank that `choose` takes them from.
  """

  embedding: jax.Array
  bias: jax.Array
  first: jax.Array
  nodes: jax.Array


class Masks(NamedTuple):
  """Dropout's masks, 0 or 1 / (1 - rate); None where nothing is dropped.

  Attributes:
    words: [V].
    embedding: [B, H].
    input: [B, H], m_x.
    hidden: [B, H], m_h.
    output: [B, H].
  """

  words: jax.Array | None = None
  embedding: jax.Array | None = None
  input: jax.Array | None = None
  hidden: jax.Array | None = None
  output: jax.Array | None = None


class Outputs(NamedTuple):
  """What a model gives for a stretch of text.

  Attributes:
    raw: [T, B, H], the cell's outputs.
    dropped: [T, B, H], the same with dropout: the softmax reads them.
    hidden: [B, H], the state at the end.
  """

  raw: jax.Array
  dropped: jax.Array
  hidden: jax.Array


def init(
  key: jax.Array, config: LanguageModelConfig, *, shared: bool = False
) -> Weights:
  """First weights; consumes the key.

  Args:
    key: a random key.
    config: the sizes.
    shared: make the bank of all cells, not the weights of one.
  """
  width, nodes = config.width, config.nodes
  matrices = 2 * nodes * (nodes + 1) if shared else nodes
  keys = jax.random.split(key, 3)
  shapes = (
    (config.vocabulary, width),
    (2 * width, 2 * width),
    (matrices, width, 2 * width),
  )
  embedding, first, rest = (
    jax.random.uniform(key, shape, jnp.float32, -INIT_RANGE, INIT_RANGE)
    for key, shape in zip(keys, shapes, strict=True)
  )
  return Weights(embedding, jnp.zeros(config.vocabulary), first, rest)


def bank_rows(cell) -> jax.Array:
  """Where a cell's matrices are in the bank, int32 [N]."""
  node = np.arange(cell.shape[-2])
  first = 2 * node * (node + 1)
  return first + len(ACTIVATIONS) * cell[..., 0] + cell[..., 1]


def choose(shared: Weights, cell) -> Weights:
  """The weights of one cell in a shared model."""
  return shared._replace(nodes=shared.nodes[bank_rows(cell)])


def draw_masks(
  key: jax.Array, config: LanguageModelConfig, streams: int
) -> Masks:
  """Masks for one stretch of text; consumes the key."""
  shapes = {
    "words": (config.word_dropout, (config.vocabulary,)),
    "embedding": (config.embedding_dropout, (streams, config.width)),
    "input": (config.input_dropout, (streams, config.width)),
    "hidden": (config.hidden_dropout, (streams, config.width)),
    "output": (config.output_dropout, (streams, config.width)),
  }
  return Masks(
    **{
      name: _mask(jax.random.fold_in(key, number), rate, shape)
      for number, (name, (rate, shape)) in enumerate(shapes.items())
    }
  )


def _mask(key, rate: float, shape):
  if not rate:
    return None
  return jax.random.bernoulli(key, 1 - rate, shape) / (1 - rate)


def apply(
  weights: Weights,
  cell: jax.Array,
  tokens: jax.Array,
  hidden: jax.Array,
  masks: Masks | None = None,
  length=None,
) -> Outputs:
  """Runs the model over a stretch of text.

  Args:
    weights: of this cell.
    cell: int32 [N, 2], legal.
    tokens: int32 [T, B].
    hidden: [B, H], the state before it.
    masks: dropout; none by default.
    length: steps that count, T by default: the others leave the state as it
      is, and their outputs mean nothing.
  """
  masks = masks or Masks()
  steps, streams = tokens.shape
  width = weights.embedding.shape[1]
  length = steps if length is None else length
  x = weights.embedding[tokens]
  if masks.words is not None:
    x = x * masks.words[tokens][..., None]
  x = _times(_times(x, masks.embedding), masks.input)
  inputs = (x.reshape(-1, width) @ weights.first[:width]).reshape(
    steps, streams, 2 * width
  )
  kept = jnp.ones_like(hidden) if masks.hidden is None else masks.hidden
  raw, hidden = _unroll(
    inputs, hidden, weights.first[width:], weights.nodes, kept, cell, length
  )
  return Outputs(raw, _times(raw, masks.output), hidden)


def _times(x, mask):
  return x if mask is None else x * mask


def logits(weights: Weights, outputs: jax.Array) -> jax.Array:
  """[..., V] from outputs [..., H]; the softmax is tied to the embedding."""
  return outputs @ weights.embedding.T + weights.bias


# The unrolled cell is its own tape: automatic differentiation would add up the
# gradient of every matrix at every step, where one product over all steps does.


class _Tape(NamedTuple):
  """Of each step what the way back needs; [T, ...].

  Attributes:
    hidden: [B, H], the state before.
    states: [N + 1, B, H], s_0 .. s_N.
    gates: [N + 1, B, H], the sigmoid.
    activated: [N + 1, B, H], what stands after the activation.
  """

  hidden: jax.Array
  states: jax.Array
  gates: jax.Array
  activated: jax.Array


@jax.custom_vjp
def _unroll(inputs, hidden, first, nodes, kept, cell, length):
  """Outputs [T, B, H] and the last state [B, H].

  Args:
    inputs: [T, B, 2 H], the input's part of [c; u] of s_0.
    hidden: [B, H].
    first: [H, 2 H], the state's part of W_0.
    nodes: [N, H, 2 H].
    kept: [B, H], m_h; it has no gradient.
    cell: int32 [N, 2].
    length: steps that count.
  """
  return _forward(inputs, hidden, first, nodes, kept, cell, length)[0]


def _forward(inputs, hidden, first, nodes, kept, cell, length):
  def step(hidden, at):
    x, counts = at
    states, gates, activated = _step(x, hidden, first, nodes, kept, cell)
    output = states[1:].mean(0)
    tape = _Tape(hidden, states, gates, activated)
    return jnp.where(counts, output, hidden), (output, tape)

  counts = jnp.arange(len(inputs)) < length
  hidden, (outputs, tape) = lax.scan(step, hidden, (inputs, counts))
  return (outputs, hidden), (tape, first, nodes, kept, cell, counts)


def _step(x, hidden, first, nodes, kept, cell):
  """One step of text: states, gates and activated, each [N + 1, B, H]."""
  gate, candidate = jnp.split(x + (hidden * kept) @ first, 2, axis=-1)
  gates, activated = [jax.nn.sigmoid(gate)], [jnp.tanh(candidate)]
  states = jnp.zeros((len(nodes) + 1, *hidden.shape), hidden.dtype)
  states = states.at[0].set(hidden + gates[0] * (activated[0] - hidden))
  for node in range(len(nodes)):
    state = states[cell[node, 0]]
    gate, candidate = jnp.split((state * kept) @ nodes[node], 2, axis=-1)
    gates.append(jax.nn.sigmoid(gate))
    activated.append(lax.switch(cell[node, 1], _ACTIVATE, candidate))
    new = state + gates[-1] * (activated[-1] - state)
    states = states.at[node + 1].set(new)
  return states, jnp.stack(gates), jnp.stack(activated)


def _backward(saved, cotangents):
  tape, first, nodes, kept, cell, counts = saved
  outputs, hidden = cotangents

  def step(hidden, at):
    output, counts, tape = at
    output = output + jnp.where(counts, hidden, 0)
    before, errors = _step_back(output, tape, first, nodes, kept, cell)
    return jnp.where(counts, before, hidden), errors

  hidden, errors = lax.scan(step, hidden, (outputs, counts, tape), reverse=True)
  read = [tape.hidden] + [
    tape.states[:, cell[node, 0]] for node in range(len(nodes))
  ]
  gradients = [
    jnp.einsum("tbh,tbk->hk", x * kept, errors[:, row])
    for row, x in enumerate(read)
  ]
  return (
    errors[:, 0],
    hidden,
    gradients[0],
    jnp.stack(gradients[1:]),
    None,
    None,
    None,
  )


def _step_back(output, tape, first, nodes, kept, cell):
  """Of one step: gradients of the state before, and of all [c; u].

  Args:
    output: [B, H], the gradient of the step's output.
    tape: of this step.
    first, nodes, kept, cell: as of `_unroll`.

  Returns:
    [B, H] and [N + 1, B, 2 H].
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
      lax.switch(activation, _SLOPE, tape.activated[node + 1]),
    )
    back = through + (errors[node + 1] @ nodes[node].T) * kept
    states = states.at[source].add(back)
  gate, activated = tape.gates[0], tape.activated[0]
  through, errors[0] = _highway_back(
    states[0], tape.hidden, gate, activated, 1 - activated**2
  )
  return through + (errors[0] @ first.T) * kept, jnp.stack(errors)


def _highway_back(gradient, state, gate, activated, slope):
  """Of state + gate (activated - state): gradients of the state and [c; u]."""
  of_gate = gradient * (activated - state) * gate * (1 - gate)
  of_candidate = gradient * gate * slope
  errors = jnp.concatenate([of_gate, of_candidate], axis=-1)
  return gradient * (1 - gate), errors


_unroll.defvjp(_forward, _backward)

# In the order of ACTIVATIONS; and their slopes, in terms of their values.
_ACTIVATE = (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, lambda u: u)
_SLOPE = (
  lambda a: 1 - a**2,
  lambda a: jnp.float32(a > 0).astype(a.dtype),
  lambda a: a * (1 - a),
  jnp.ones_like,
)
