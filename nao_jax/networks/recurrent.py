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
import jax.numpy as jnp
import numpy as np

from nao_jax.networks.unroll import unroll
from nao_jax.settings import field
from nao_jax.spaces import rnn
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

  nodes: int = field(11, least=rnn.MIN_NODES, most=rnn.MAX_NODES)
  width: int = field(850, least=1)
  vocabulary: int = field(10_000, least=1)
  output_dropout: float = field(0.75, least=0, below=1)
  hidden_dropout: float = field(0.25, least=0, below=1)
  input_dropout: float = field(0.75, least=0, below=1)
  embedding_dropout: float = field(0.2, least=0, below=1)
  word_dropout: float = field(0.0, least=0, below=1)

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


def bank_rows(cell: jax.Array) -> jax.Array:
  """Where a cell's matrices are in the bank, int32 [N]."""
  node = np.arange(cell.shape[-2])
  first = 2 * node * (node + 1)
  return first + len(ACTIVATIONS) * cell[..., 0] + cell[..., 1]


def choose(shared: Weights, cell: jax.Array) -> Weights:
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
  length: int | jax.Array | None = None,
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
  raw, hidden = unroll(
    inputs, hidden, weights.first[width:], weights.nodes, kept, cell, length
  )
  return Outputs(raw, _times(raw, masks.output), hidden)


def _times(x, mask):
  return x if mask is None else x * mask


def logits(weights: Weights, outputs: jax.Array) -> jax.Array:
  """[..., V] from outputs [..., H]; the softmax is tied to the embedding."""
  return outputs @ weights.embedding.T + weights.bias
