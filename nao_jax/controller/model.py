"""The controller: encoder, predictor and decoder.

The encoder is an LSTM over the folded token embeddings. Its outputs, each
normalised to length 1, are the memory that the decoder attends to and the
point that the search moves. Their mean, normalised too, is the embedding of
the architecture, from which the predictor computes the score and the decoder
starts (paper section 3; attention and widths as in the official weight-sharing
code in PyTorch).

Shapes: B sequences, L tokens a sequence, V tokens in the vocabulary, T encoder
steps (L / tokens_per_step), H hidden units.
"""

import dataclasses

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from nao_jax.controller import lstm
from nao_jax.controller.layers import dense, dropout, normalise, residual
from nao_jax.controller.lstm import Lstm, uniform
from nao_jax.controller.residual import ResidualEncoder
from nao_jax.errors import UserError
from nao_jax.settings import Only, field
from nao_jax.spaces.space import SOS, Space

Params = dict[str, chex.ArrayTree]

# The most tokens for which decoding is unrolled, as the loop would cost more
# than its body. Unrolling more tokens costs more to compile than it saves.
_SHORT = 8


@dataclasses.dataclass(frozen=True)
class ControllerConfig:
  """Sizes of a controller; defaults from the official weight-sharing code.

  Attributes:
    embedding: width of a token's embedding in the encoder.
    hidden: H, number of hidden units; also the width of a token's embedding in
      the decoder.
    mlp_layers: number of hidden layers of the predictor; with 0 it is linear.
    mlp_width: width of the predictor's hidden layers.
    mlp_dropout: share of the predictor's hidden units that is dropped in
      training.
    embedding_dropout: share of the encoder's embeddings that is dropped in
      training.
    output_dropout: share of the encoder's outputs that is dropped in training,
      before they are normalised, as in the official code in TensorFlow.
    residual: SemiNAS's encoder, an LSTM in both directions with a residual
      connection, and a residual connection around the predictor's hidden
      layers; otherwise NAO's.
  """

  ACTS_WITH = (Only(("mlp_width", "mlp_dropout"), "mlp_layers"),)

  embedding: int = field(48, least=1)
  hidden: int = field(96, least=1)
  mlp_layers: int = field(3, least=0)
  mlp_width: int = field(200, least=1)
  mlp_dropout: float = field(0.1, least=0, below=1)
  embedding_dropout: float = field(0.0, least=0, below=1)
  output_dropout: float = field(0.0, least=0, below=1)
  residual: bool = field(False, added=True)

  def check_together(self) -> None:
    """Raises UserError if a direction of the LSTM would have no unit."""
    if self.residual and self.embedding < 2:
      raise UserError(
        f"`embedding={self.embedding}`: allowed with `residual=True`: 2 or "
        "more, as half of the units run backwards"
      )

  @property
  def drops(self) -> bool:
    """True if training uses dropout, and so needs keys."""
    mlp = self.mlp_dropout if self.mlp_layers else 0.0
    return max(self.embedding_dropout, self.output_dropout, mlp) > 0


# Sizes of the follow-up paper, "Balanced NAO".
V2 = ControllerConfig(embedding=32, hidden=64, mlp_layers=0, mlp_dropout=0.0)
# Sizes of SemiNAS on spaces with one token per step: the LSTM has 16 units in
# each direction.
SEMI = ControllerConfig(
  embedding=32,
  hidden=16,
  mlp_layers=1,
  mlp_width=64,
  embedding_dropout=0.1,
  residual=True,
)


@dataclasses.dataclass(frozen=True)
class Controller:
  """Space and sizes of a controller; hashable, so jit can take it as static.

  The methods are pure functions of the parameters, which have the keys
  `encoder`, `predictor` and `decoder`, and `cost` if costs are estimated.
  Dropout is active if a key is given.

  Attributes:
    space: the search space.
    config: the sizes.
    estimates_cost: whether a second predictor estimates costs.
  """

  space: Space
  config: ControllerConfig = ControllerConfig()
  estimates_cost: bool = False

  @property
  def _encoder(self) -> "Encoder | ResidualEncoder":
    sizes = self.config, self.space.vocabulary, self.space.tokens_per_step
    if not self.config.residual:
      return Encoder(*sizes)
    return ResidualEncoder(
      self.config.embedding,
      self.config.hidden,
      self.config.embedding_dropout,
      self.config.output_dropout,
      *sizes[1:],
    )

  @property
  def _predictor(self) -> "Predictor":
    return Predictor(self.config)

  @property
  def _cost(self) -> "Predictor":
    return Predictor(self.config, bounded=False)

  @property
  def _decoder(self) -> "Decoder":
    return Decoder(self.config, self.space.vocabulary)

  def init(self, key: jax.Array) -> Params:
    """Draws parameters as PyTorch does by default; consumes the key."""
    encoder_key, predictor_key, decoder_key = jax.random.split(key, 3)
    tokens = jnp.zeros((1, self.space.length), jnp.int32)
    encoder = self._encoder.init(encoder_key, tokens)["params"]
    outputs, embedding = self.encode({"encoder": encoder}, tokens)
    predictor = self._predictor.init(predictor_key, embedding)["params"]
    decoder = self._decoder.init(decoder_key, tokens, outputs, embedding)
    params = {
      "encoder": encoder,
      "predictor": predictor,
      "decoder": decoder["params"],
    }
    if self.estimates_cost:
      cost_key = jax.random.fold_in(predictor_key, 0)
      params["cost"] = self._cost.init(cost_key, embedding)["params"]
    return params

  def encode(
    self, params: Params, tokens: jax.Array, key: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Maps tokens to points of the continuous space.

    Args:
      params: parameters of the controller.
      tokens: int32 [B, L].
      key: key of dropout, consumed; None for no dropout.

    Returns:
      The encoder's outputs [B, T, H] and the embeddings [B, H], of length 1.
    """
    chex.assert_shape(tokens, (None, self.space.length))
    outputs = _apply(self._encoder, params["encoder"], tokens, key=key)
    return outputs, embed(outputs)

  def predict(
    self, params: Params, embedding: jax.Array, key: jax.Array | None = None
  ) -> jax.Array:
    """Predicts scores, in (0, 1), from embeddings [..., H]: [...].

    A key, if given, is consumed for dropout.
    """
    return _apply(self._predictor, params["predictor"], embedding, key=key)

  def estimate(
    self, params: Params, embedding: jax.Array, key: jax.Array | None = None
  ) -> jax.Array:
    """Estimates scaled costs from embeddings [..., H]: [...].

    It works like `predict`, but the numbers have no bounds.
    """
    return _apply(self._cost, params["cost"], embedding, key=key)

  def decode(
    self,
    params: Params,
    tokens: jax.Array,
    outputs: jax.Array,
    embedding: jax.Array,
  ) -> jax.Array:
    """Returns log-probabilities of each token, given the true tokens before it.

    Args:
      params: parameters of the controller.
      tokens: int32 [B, L], the true tokens.
      outputs: outputs of the encoder, [B, T, H].
      embedding: [B, H].

    Returns:
      [B, L, V]; illegal tokens have probabilities, too.
    """
    return _apply(self._decoder, params["decoder"], tokens, outputs, embedding)

  def greedy_decode(
    self, params: Params, outputs: jax.Array, embedding: jax.Array
  ) -> jax.Array:
    """Decodes greedily: the most probable legal token, position by position.

    Args:
      params: parameters of the controller.
      outputs: outputs of the encoder, [B, T, H].
      embedding: [B, H].

    Returns:
      Legal architectures, int32 [B, L].
    """
    return self._decoder.apply(
      {"params": params["decoder"]},
      outputs,
      embedding,
      jnp.asarray(self.space.legal),
      jnp.asarray(self.space.may_follow),
      method="greedy",
    )


def embed(outputs: jax.Array) -> jax.Array:
  """Returns the embedding [..., H] of encoder outputs [..., T, H]."""
  return normalise(jnp.mean(outputs, axis=-2))


def _apply(module: nn.Module, params, *inputs, key=None):
  rngs = None if key is None else {"dropout": key}
  return module.apply({"params": params}, *inputs, rngs=rngs)


class Encoder(nn.Module):
  """Maps tokens [B, L] to normalised LSTM outputs [B, T, H]."""

  config: ControllerConfig
  vocabulary: int
  tokens_per_step: int

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Encodes tokens, with dropout if there is a dropout key."""
    config, batch = self.config, len(tokens)
    embedding = self.param(
      "embedding",
      nn.initializers.normal(1.0),
      (self.vocabulary, config.embedding),
    )
    cell = Lstm(self.tokens_per_step * config.embedding, config.hidden)
    folded = tokens.T.reshape(-1, self.tokens_per_step, batch)
    if config.embedding_dropout and self.has_rng("dropout"):
      inputs = embedding[folded].swapaxes(1, 2)
      inputs = dropout(self, config.embedding_dropout)(inputs)
      gates = cell.project(inputs.reshape(*inputs.shape[:2], -1))
    else:
      gates = cell.project_tokens(embedding, folded)
    zeros = jnp.zeros((batch, config.hidden))
    outputs = cell(gates, (zeros, zeros)).swapaxes(0, 1)
    return normalise(dropout(self, config.output_dropout)(outputs))


class Predictor(nn.Module):
  """Maps embeddings [..., H] to scores [...], in (0, 1) if bounded."""

  config: ControllerConfig
  bounded: bool = True

  @nn.compact
  def __call__(self, embedding: jax.Array) -> jax.Array:
    """Predicts scores, with dropout if there is a dropout key."""
    units = embedding
    for _ in range(self.config.mlp_layers):
      units = nn.relu(dense(units.shape[-1], self.config.mlp_width)(units))
      units = dropout(self, self.config.mlp_dropout)(units)
    if self.config.residual:
      back = dense(units.shape[-1], embedding.shape[-1])(units)
      units = residual(embedding, back)
    output = dense(units.shape[-1], 1)(units)[..., 0]
    return nn.sigmoid(output) if self.bounded else output


class Decoder(nn.Module):
  """LSTM that starts from the embedding and attends to the encoder's outputs.

  Its state does not depend on the attention (no input feeding), so that in
  training the attention of all positions is one matrix product.
  """

  config: ControllerConfig
  vocabulary: int

  def setup(self) -> None:
    """Declares the parameters, which `__call__` and `greedy` share."""
    hidden = self.config.hidden
    self.embedding = self.param(
      "embedding", nn.initializers.normal(1.0), (self.vocabulary, hidden)
    )
    self.lstm = Lstm(hidden, hidden)
    self.query_kernel = self.param(
      "query_kernel", uniform(hidden), (hidden, hidden)
    )
    self.attention_kernel = self.param(
      "attention_kernel", uniform(2 * hidden), (2 * hidden, hidden)
    )
    self.output_kernel = self.param(
      "output_kernel", uniform(hidden), (hidden, self.vocabulary)
    )
    self.output_bias = self.param(
      "output_bias", uniform(hidden), (self.vocabulary,)
    )

  def __call__(
    self, tokens: jax.Array, outputs: jax.Array, embedding: jax.Array
  ) -> jax.Array:
    """Returns teacher-forced log-probabilities, [B, L, V]."""
    previous = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=SOS)
    gates = self.lstm.project_tokens(self.embedding, previous.T[:, None])
    queries = self.lstm(gates, (embedding, embedding)).swapaxes(0, 1)
    return nn.log_softmax(self._attend(queries, self._memory(outputs)))

  def greedy(
    self,
    outputs: jax.Array,
    embedding: jax.Array,
    legal: jax.Array,
    may_follow: jax.Array,
  ) -> jax.Array:
    """Takes the legal token with the largest logit, position by position.

    Args:
      outputs: outputs of the encoder, [B, T, H].
      embedding: [B, H].
      legal: bool [L, V], see `Space.legal`.
      may_follow: bool [V, V], see `Space.may_follow`.

    Returns:
      Legal architectures, int32 [B, L].
    """
    gates, memory = self.lstm.project(self.embedding), self._memory(outputs)
    kernel = self.lstm.recurrent_kernel

    def step(carry, legal):
      state, token = carry
      state = lstm.step(kernel, state, gates[token])
      logits = self._attend(state[0][:, None], memory)[:, 0]
      # Overflowed logits of legal tokens must not tie with illegal tokens.
      logits = jnp.maximum(logits, jnp.finfo(logits.dtype).min)
      allowed = legal & may_follow[token]
      token = jnp.argmax(jnp.where(allowed, logits, -jnp.inf), axis=-1)
      return (state, token), token

    start = jnp.full(len(outputs), SOS)
    _, tokens = jax.lax.scan(
      step, ((embedding, embedding), start), legal, unroll=len(legal) <= _SHORT
    )
    return tokens.T.astype(jnp.int32)

  def _memory(self, outputs):
    """Returns keys and values of the attention, [B, T, H] each.

    The projections of query and context are applied to the T outputs instead:
    T < L, and greedy decoding has nothing left to project at each step.
    """
    context_kernel = self.attention_kernel[: self.config.hidden]
    return outputs @ self.query_kernel.T, outputs @ context_kernel

  def _attend(self, queries, memory):
    """Maps LSTM outputs [B, L, H] to logits [B, L, V]."""
    keys, values = memory
    scores = jnp.einsum("blh,bth->blt", queries, keys)
    context = jnp.einsum("blt,bth->blh", nn.softmax(scores), values)
    own = queries @ self.attention_kernel[self.config.hidden :]
    return jnp.tanh(context + own) @ self.output_kernel + self.output_bias
