"""BatchNorm of maps [C, H, W, B], with a hand-written backward pass."""

import functools

import jax
from jax import lax
import jax.numpy as jnp

EPSILON = 1e-5


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
@functools.partial(jax.jit, static_argnums=(3, 4))
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  axis_name: str | None = None,
  epsilon: float = EPSILON,
) -> jax.Array:
  """Applies BatchNorm to [C, H, W, B] with the batch's (biased) statistics.

  Args:
    x: the maps.
    scale: [C].
    offset: [C].
    axis_name: the mapped axis over which the statistics are also taken, so that
      a batch gives the same numbers on one device and on many.
    epsilon: addition to the variances.
  """
  return _batch_norm_forward(x, scale, offset, axis_name, epsilon)[0]


def _across(values, axis_name):
  return values if axis_name is None else lax.pmean(values, axis_name)


def _channel(values):
  return values[:, None, None, None]


def wide(x: jax.Array) -> jax.Array:
  """Casts to float32, unless the type is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def moments(
  x: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns the mean and biased variance of each channel of [C, H, W, B].

  Both are [C], computed in float32 or wider, like all of BatchNorm, for maps of
  any type.
  """
  x = wide(x)
  mean = _across(jnp.mean(x, (1, 2, 3)), axis_name)
  variance = _across(jnp.mean((x - _channel(mean)) ** 2, (1, 2, 3)), axis_name)
  return mean, variance


def normalise(
  x: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  mean: jax.Array,
  variance: jax.Array,
  epsilon: float = EPSILON,
) -> jax.Array:
  """Applies BatchNorm to [C, H, W, B] with given statistics; others are [C]."""
  factor = scale * lax.rsqrt(variance + epsilon)
  y = x * _channel(factor) + _channel(offset - mean * factor)
  return y.astype(x.dtype)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _batch_norm_forward(x, scale, offset, axis_name, epsilon):
  mean, variance = moments(x, axis_name)
  y = normalise(x, scale, offset, mean, variance, epsilon)
  return y, (x, mean, lax.rsqrt(variance + epsilon), scale)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _batch_norm_backward(axis_name, epsilon, residuals, gradient):
  del epsilon  # In the residuals.
  x, mean, inverse, scale = residuals
  dtype = x.dtype
  x, gradient = wide(x), wide(gradient)
  pixels = x.size // x.shape[0]
  offset_gradient = jnp.sum(gradient, (1, 2, 3))
  scale_gradient = inverse * jnp.sum(gradient * (x - _channel(mean)), (1, 2, 3))
  mean_gradient, mean_product = _across(
    (offset_gradient / pixels, scale_gradient / pixels), axis_name
  )
  # dx = scale / sigma * (g - mean(g) - x_hat mean(g x_hat)), as one affine map.
  slope = inverse * mean_product
  shift = mean * slope - mean_gradient
  x_gradient = _channel(scale * inverse) * (
    gradient - x * _channel(slope) + _channel(shift)
  )
  return x_gradient.astype(dtype), scale_gradient, offset_gradient


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)
