"""Average and max pooling of maps [C, H, W, B]; see convolutions.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks.convolutions import depthwise
from nao_jax.networks.windows import margins, pad, shifted_windows, space_out


def avg_pool(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
  """Average-pools [C, H, W, B]; padding is not counted in the mean."""
  box = jnp.ones((x.shape[0], size, size), x.dtype)
  rows, columns = (
    _counted(extent, size, stride).astype(x.dtype) for extent in x.shape[1:3]
  )
  counts = np.multiply.outer(rows, columns)[None, :, :, None]
  return depthwise(x, box, stride, 1) / counts


def _counted(extent: int, size: int, stride: int) -> np.ndarray:
  """Returns the number of unpadded pixels in each window along an axis."""
  pixels = np.pad(np.ones(extent, np.float32), margins(size - 1))
  windows = np.lib.stride_tricks.sliding_window_view(pixels, size)
  return windows[::stride].sum(-1)


def valid_avg_pool(x: jax.Array, size: int, stride: int) -> jax.Array:
  """Average-pools [C, H, W, B] without padding."""
  windows = shifted_windows(x, size, stride=stride)
  return sum(windows.values()) / size**2


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
@functools.partial(jax.jit, static_argnums=(1, 2))
def max_pool(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
  """Max-pools [C, H, W, B]; padding is never the maximum.

  Of equal values the first in reading order gets the gradient (PyTorch's
  rule). Ties are common: in a pool of a pool, one maximum occurs several times.
  """
  windows = _max_windows(x, size, stride)
  return functools.reduce(jnp.maximum, windows.values())


def _max_windows(x, size, stride):
  padded = pad(x, size - 1, -jnp.inf)
  return shifted_windows(padded, size, stride=stride)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _max_pool_forward(x, size, stride):
  return max_pool(x, size, stride), x


@functools.partial(jax.jit, static_argnums=(0, 1))
def _max_pool_backward(size, stride, x, gradient):
  best, winner = None, None
  for index, window in enumerate(_max_windows(x, size, stride).values()):
    if best is None:
      best, winner = window, jnp.zeros(window.shape, jnp.int8)
    else:
      winner = jnp.where(window > best, jnp.int8(index), winner)
      best = jnp.maximum(window, best)
  spread = functools.partial(space_out, shape=x.shape, size=size, stride=stride)
  gradients = shifted_windows(spread(gradient), size, stride=1)
  winners = shifted_windows(spread(winner, value=-1), size, stride=1)
  last = size * size - 1
  return (
    sum(
      jnp.where(winners[at] == last - (at[0] * size + at[1]), gradients[at], 0)
      for at in gradients
    ),
  )


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
