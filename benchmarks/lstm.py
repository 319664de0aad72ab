"""A language model of one LSTM layer, to compare recurrent cells with.

With state h, memory c, input x and masks m, as in networks/recurrent.py,

  [i; f; o; g] = (x m_x) W_x + (h m_h) W_h + b              (gates, candidate)
  c' = sigmoid(f) c + sigmoid(i) tanh(g)                            (memory)
  h' = sigmoid(o) tanh(c')                                          (output)

(Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000). The
softmax is tied to the embedding. Losses, dropout, clipping and stretches are
those of the cells.

Shapes: T steps of text, B streams, H width, V words.
"""

import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig, Masks, Outputs
from nao_jax.training import language
from nao_jax.training.recurrent import Trainer

# Of the state, how many times H numbers it has: h and c, side by side.
STATES = 2

# Gates that begin open let errors through to earlier steps (Jozefowicz et al.
# 2015).
_FORGET_BIAS = 1.0


class Weights(NamedTuple):
  """What the model computes with.

  Attributes:
    embedding: [V, H]; of words that come in, and of those that come out.
    bias: [V], of the softmax.
    input: [H, 4 H], W_x; columns as above.
    state: [H, 4 H], W_h.
    gates: [4 H], b.
  """

  embedding: jax.Array
  bias: jax.Array
  input: jax.Array
  state: jax.Array
  gates: jax.Array


def parameters(width: int, vocabulary: int) -> int:
  """How many weights the model has."""
  return vocabulary * (width + 1) + 8 * width**2 + 4 * width


def width_for(count: int, vocabulary: int) -> int:
  """The width whose model has as nearly as possible so many weights.

  Args:
    count: at least V.
    vocabulary: V.
  """
  # parameters(H) = 8 H^2 + (V + 4) H + V grows with H.
  half = vocabulary + 4
  root = (math.sqrt(half**2 + 32 * (count - vocabulary)) - half) / 16
  below = max(int(root), 1)
  return min(
    (below, below + 1), key=lambda w: abs(parameters(w, vocabulary) - count)
  )


def init(key: jax.Array, config: LanguageModelConfig) -> Weights:
  """First weights; consumes the key.

  Embeddings begin as those of the cells. The matrices begin as is usual for an
  LSTM, within 1 / sqrt(H), which is more.

  Args:
    key: a random key.
    config: the sizes.
  """
  width = config.width
  uniform = jax.random.uniform
  keys = jax.random.split(key, 3)
  small, usual = recurrent.INIT_RANGE, 1 / math.sqrt(width)
  shape = (width, 4 * width)
  return Weights(
    embedding=uniform(
      keys[0], (config.vocabulary, width), minval=-small, maxval=small
    ),
    bias=jnp.zeros(config.vocabulary),
    input=uniform(keys[1], shape, minval=-usual, maxval=usual),
    state=uniform(keys[2], shape, minval=-usual, maxval=usual),
    gates=jnp.zeros(4 * width).at[width : 2 * width].set(_FORGET_BIAS),
  )


def apply(
  weights: Weights,
  cell: None,
  tokens: jax.Array,
  hidden: jax.Array,
  masks: Masks | None = None,
  length=None,
) -> Outputs:
  """Runs the model over a stretch of text, as `recurrent.apply` does.

  Args:
    weights: of the model.
    cell: nothing; there is only one.
    tokens: int32 [T, B].
    hidden: [B, 2 H], h and c before it.
    masks: dropout; none by default.
    length: steps that count, T by default.
  """
  del cell
  masks = masks or Masks()
  x = weights.embedding[tokens]
  if masks.words is not None:
    x = x * masks.words[tokens][..., None]
  x = _times(_times(x, masks.embedding), masks.input)
  counts = jnp.arange(len(tokens)) < (len(tokens) if length is None else length)

  def step(state, at):
    inputs, counts = at
    h, c = _step(weights, inputs, *jnp.split(state, 2, axis=-1), masks.hidden)
    return jnp.where(counts, jnp.concatenate([h, c], -1), state), h

  inputs = x @ weights.input + weights.gates
  hidden, raw = lax.scan(step, hidden, (inputs, counts))
  return Outputs(raw, _times(raw, masks.output), hidden)


def _step(weights, inputs, h, c, mask):
  """The next h and c, each [B, H]; inputs are x's part of the gates."""
  pre = inputs + _times(h, mask) @ weights.state
  i, f, o, g = jnp.split(pre, 4, axis=-1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _times(x, mask):
  return x if mask is None else x * mask


def update(
  weights: Weights,
  hidden: jax.Array,
  key: jax.Array,
  number: jax.Array,
  tokens: jax.Array,
  length: jax.Array,
  *,
  trainer: Trainer,
) -> tuple[Weights, jax.Array, jax.Array]:
  """One step: clip, decay, descend, as `training.recurrent.update` does.

  Args:
    weights: of the model.
    hidden: [B, 2 H], h and c before it.
    key: of the whole run.
    number: of this step; the key folds it in.
    tokens: int32 [T + 1, B].
    length: steps that count; the learning rate is in proportion.
    trainer: the settings; its nodes do not matter.

  Returns:
    The new weights, the new state, and the loss.
  """
  train, streams = trainer.train, tokens.shape[1]
  key = jax.random.fold_in(key, number)
  masks = language.masks(key, trainer.model, streams, None)
  step = language.gradients(
    weights,
    None,
    tokens,
    length,
    hidden,
    masks,
    slowness=train.slowness,
    apply=apply,
  )
  rate = train.learning_rate * length / train.bptt
  weights = jax.tree.map(
    lambda x, gradient: x * (1 - rate * train.weight_decay) - rate * gradient,
    weights,
    language.clipped(step.gradients, train.clip),
  )
  return weights, step.hidden, step.loss


def measure(weights: Weights, text: jax.Array) -> jax.Array:
  """Mean nats a word of what `language.windows` gives; no dropout."""
  return language.measure(weights, None, text, apply=apply, states=STATES)
