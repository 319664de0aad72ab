"""The recurrent cell and its language model.

The cell (as specified by the official code) is a chain of highway steps. With
state h, input x and masks m,

  [c; u] = [x m_x; h m_h] W_0           s_0     = h   + sigmoid(c) (tanh(u) - h)
  [c; u] = (s_p m_h) W_i                s_{i+1} = s_p + sigmoid(c) (a(u) - s_p)

where node i has predecessor p and activation a; the output of the cell, which
is the next h, is the mean of s_1 .. s_N. The official search also averages s_0,
the official final training does not; here both leave s_0 out.

The cell is data: one compiled program serves all cells. In a shared model each
node has a matrix for every predecessor and activation; the architecture's
matrices are gathered once for a whole batch of text.

These are plain functions of plain arrays: gradients are taken for the gathered
matrices and not for the bank, which requires explicit weights.

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

# Bound of the uniform initial weights (official).
INIT_RANGE = 0.04


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
  """Sizes and dropout rates; the defaults are the official ones for PTB.

  Attributes:
    nodes: N, number of computed nodes in the cell.
    width: H, width of embeddings and states.
    vocabulary: V, number of words.
    output_dropout: dropout rate of the cell's outputs; the same features at all
      steps.
    hidden_dropout: dropout rate of the inputs of every node; the same features
      at all steps.
    input_dropout: dropout rate of the cell's input; the same features at all
      steps.
    embedding_dropout: dropout rate of the embedded words; the same features at
      all steps, drawn independently of those of `input_dropout`.
    word_dropout: dropout rate of whole words.
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
    """Number of weights of the language model of one cell."""
    return (self.width + 1) * self.vocabulary + (
      (4 + 2 * self.nodes) * self.width**2
    )


class Weights(NamedTuple):
  """Weights of the language model of one cell, or of the shared model.

  Attributes:
    embedding: [V, H], of input words and, tied, of the softmax.
    bias: [V], the bias of the softmax.
    first: [2 H, 2 H], W_0; rows: input then state, columns: gate then
      candidate.
    nodes: [N, H, 2 H], W_1 ..; in a shared model [2 N (N + 1), H, 2 H], the
      bank that `choose` selects from.
  """

  embedding: jax.Array
  bias: jax.Array
  first: jax.Array
  nodes: jax.Array


class Masks(NamedTuple):
  """Dropout masks, 0 or 1 / (1 - rate); None where nothing is dropped.

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
  """Results of the model on a bptt window of text.

  Attributes:
    raw: [T, B, H], the outputs of the cell.
    dropped: [T, B, H], the same with dropout; the softmax reads these.
    hidden: [B, H], the state at the end of the window.
  """

  raw: jax.Array
  dropped: jax.Array
  hidden: jax.Array


def init(
  key: jax.Array, config: LanguageModelConfig, *, shared: bool = False
) -> Weights:
  """Returns initial weights; consumes the key.

  Args:
    key: a random key.
    config: the sizes.
    shared: whether to create the bank of all cells instead of the weights of
      one.
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
  """Returns the indices of a cell's matrices in the bank, int32 [N]."""
  node = np.arange(cell.shape[-2])
  first = 2 * node * (node + 1)
  return first + len(ACTIVATIONS) * cell[..., 0] + cell[..., 1]


def choose(shared: Weights, cell: jax.Array) -> Weights:
  """Returns the weights of one cell from a shared model."""
  return shared._replace(nodes=shared.nodes[bank_rows(cell)])


def draw_masks(
  key: jax.Array, config: LanguageModelConfig, streams: int
) -> Masks:
  """Draws dropout masks for one bptt window; consumes the key."""
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
  """Runs the model over a bptt window of text.

  Args:
    weights: the weights of this cell.
    cell: int32 [N, 2], legal.
    tokens: int32 [T, B].
    hidden: [B, H], the state before the window.
    masks: the dropout masks; no dropout by default.
    length: number of steps that count, T by default; later steps leave the
      state as it is, and their outputs are meaningless.
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
  """Returns [..., V] from outputs [..., H], with the embedding as softmax."""
  return outputs @ weights.embedding.T + weights.bias
