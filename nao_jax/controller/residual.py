"""SemiNAS's encoder (Luo et al. 2020, arXiv 2002.10389).

Shapes: B sequences, L tokens a sequence, T encoder steps, H hidden units, F
numbers of a step's inputs.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from nao_jax.controller.layers import dense, dropout, normalise, residual
from nao_jax.controller.lstm import Lstm


class ResidualEncoder(nn.Module):
  """Maps tokens [B, L] to normalised outputs [B, T, H].

  The inputs x of a step are its embedded tokens. An LSTM of F units, half of
  which run forwards and half backwards, reads them; the output is
  (x + LSTM) sqrt(.5), projected to H.
  """

  embedding: int
  hidden: int
  embedding_dropout: float
  output_dropout: float
  vocabulary: int
  tokens_per_step: int

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Encodes tokens, with dropout if there is a dropout key."""
    embedding = self.param(
      "embedding",
      nn.initializers.normal(1.0),
      (self.vocabulary, self.embedding),
    )
    width = self.tokens_per_step * self.embedding
    inputs = embedding[tokens].reshape(len(tokens), -1, width).swapaxes(0, 1)
    inputs = dropout(self, self.embedding_dropout)(inputs)
    onwards = self._run(inputs, width // 2, "forwards")
    back = self._run(inputs[::-1], width - width // 2, "backwards")[::-1]
    outputs = residual(inputs, jnp.concatenate([onwards, back], axis=-1))
    outputs = dense(width, self.hidden)(outputs).swapaxes(0, 1)
    return normalise(dropout(self, self.output_dropout)(outputs))

  def _run(self, inputs: jax.Array, units: int, name: str) -> jax.Array:
    """Runs one direction over inputs [T, B, F]; returns [T, B, units]."""
    cell = Lstm(inputs.shape[-1], units, name=name)
    zeros = jnp.zeros((inputs.shape[1], units))
    return cell(cell.project(inputs), (zeros, zeros))
