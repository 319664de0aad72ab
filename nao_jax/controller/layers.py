"""Layers that the parts of a controller share."""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from nao_jax.controller.lstm import uniform


def normalise(vectors: jax.Array) -> jax.Array:
  """Scales vectors [..., H] to length 1; zero vectors and gradients stay 0."""
  squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  return vectors * lax.rsqrt(jnp.maximum(squares, 1e-24))


def dropout(module: nn.Module, rate: float) -> nn.Dropout:
  """Returns dropout that is active if there is a dropout key."""
  return nn.Dropout(rate, deterministic=not module.has_rng("dropout"))


def dense(inputs: int, outputs: int) -> nn.Dense:
  """Returns a layer with PyTorch's default initialisers."""
  init = uniform(inputs)
  return nn.Dense(outputs, kernel_init=init, bias_init=init)


def residual(inputs: jax.Array, outputs: jax.Array) -> jax.Array:
  """Adds the outputs of a layer to its inputs, keeping their variance."""
  return (inputs + outputs) * 0.5**0.5
