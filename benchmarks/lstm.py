"""A language model of one LSTM layer, for comparison with recurrent cells.

With state h, memory c, input x and masks m, as in networks/recurrent.py,

  [i; f; o; g] = (x m_x) W_x + (h m_h) W_h + b              (gates, candidate)
  c' = sigmoid(f) c + sigmoid(i) tanh(g)                            (memory)
  h' = sigmoid(o) tanh(c')                                          (output)

(Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000). The
softmax is tied to the embedding. Losses, dropout, clipping and bptt windows are
the same as for the cells.

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
from nao_jax.training.language import Batch
from nao_jax.training.recurrent import State, Trainer

# Columns of the state in units of H: h and c, side by side.
STATES = 2

# Forget gates that are open at first pass gradients to earlier steps
# (Jozefowicz et al. 2015).
_FORGET_BIAS = 1.0


class Weights(NamedTuple):
  """Weights of the model.

  Attributes:
    embedding: [V, H], of the input words and of the output words.
    bias: [V], of the softmax.
    input: [H, 4 H], W_x; columns in the order of the equation above.
    state: [H, 4 H], W_h.
    gates: [4 H], b.
  """

  embedding: jax.Array
  bias: jax.Array
  input: jax.Array
  state: jax.Array
  gates: jax.Array


def parameters(width: int, vocabulary: int) -> int:
  """Returns the number of weights of the model."""
  return vocabulary * (width + 1) + 8 * width**2 + 4 * width


def width_for(count: int, vocabulary: int) -> int:
  """Returns the width whose number of weights is nearest to `count`.

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
  """Returns initial weights; consumes the key.

  Embeddings are initialised like those of the cells. The matrices are uniform
  within 1 / sqrt(H), as is usual for an LSTM, which is a wider range.

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
  """Runs the model over a bptt window, as `recurrent.apply` does.

  Args:
    weights: weights of the model.
    cell: not used, as there is only one cell.
    tokens: int32 [T, B].
    hidden: [B, 2 H], h and c before the window.
    masks: dropout masks; no dropout by default.
    length: number of steps that count, T by default.
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
  """Returns the next h and c, each [B, H]; inputs are x's part of the gates."""
  pre = inputs + _times(h, mask) @ weights.state
  i, f, o, g = jnp.split(pre, 4, axis=-1)
  c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _times(x, mask):
  return x if mask is None else x * mask


def update(
  state: State,
  key: jax.Array,
  number: jax.Array,
  batch: Batch,
  *,
  trainer: Trainer,
) -> tuple[State, jax.Array]:
  """Takes one step: clip, decay, descend, as `training.recurrent.update` does.

  Args:
    state: weights of the model, and [B, 2 H], h and c before the window.
    key: key of the whole run.
    number: number of this step; it is folded into the key.
    batch: the window; the learning rate is proportional to its length.
    trainer: the settings; its nodes are not used.

  Returns:
    The new state, and the loss.
  """
  train, streams = trainer.train, batch.tokens.shape[1]
  key = jax.random.fold_in(key, number)
  masks = language.masks(key, trainer.model, streams, None)
  step = language.gradients(
    state.weights,
    None,
    batch._replace(masks=masks),
    state.hidden,
    slowness=train.slowness,
    apply=apply,
  )
  rate = train.learning_rate * batch.length / train.bptt
  weights = jax.tree.map(
    lambda x, gradient: x * (1 - rate * train.weight_decay) - rate * gradient,
    state.weights,
    language.clipped(step.gradients, train.clip),
  )
  return State(weights, step.hidden), step.loss


def measure(weights: Weights, text: jax.Array) -> jax.Array:
  """Returns mean nats a word on `language.windows`, without dropout."""
  return language.measure(weights, None, text, apply=apply, states=STATES)
