"""Morphological operators on maps [C, H, W, B], as operations of a cell.

For a structuring function b over a k x k window, dilation is max over w of
f(x - w) + b(w) and erosion min over w of f(x + w) - b(w). Flat ones have b = 0.
The gradient is dilation minus erosion; opening is erosion, then dilation;
closing the reverse; the top-hat is f minus its opening. Pixels beyond the
border do not count. The derivative of a maximum goes to its first winner in
reading order. Hu et al. 2021 (arXiv 2106.07714) search such cells with NAO.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nao_jax.networks import pooling
from nao_jax.networks.windows import pad, shifted_windows


def dilation(x: jax.Array, size: int) -> jax.Array:
  """Dilates maps by a flat window of width `size`."""
  return pooling.max_pool(x, size, 1)


def erosion(x: jax.Array, size: int) -> jax.Array:
  """Erodes maps by a flat window of width `size`."""
  return -pooling.max_pool(-x, size, 1)


def opening(x: jax.Array, size: int) -> jax.Array:
  """Erodes maps, then dilates them."""
  return dilation(erosion(x, size), size)


# {name: operator of maps and the width of the window}.
FLAT: dict[str, Callable[[jax.Array, int], jax.Array]] = {
  "dilation": dilation,
  "erosion": erosion,
  "gradient": lambda x, size: dilation(x, size) - erosion(x, size),
  "opening": opening,
  "closing": lambda x, size: erosion(dilation(x, size), size),
  "top_hat": lambda x, size: x - opening(x, size),
}


def learnt_dilation(x: jax.Array, structuring: jax.Array) -> jax.Array:
  """Dilates maps by a structuring function for each channel, [C, k, k]."""
  size = structuring.shape[-1]
  best = None
  for (i, j), window in shifted_windows(
    pad(x, size - 1, -jnp.inf), size, stride=1
  ).items():
    # The window at (i, j) reads f(x - w).
    at = structuring[:, size - 1 - i, size - 1 - j]
    found = window + at[:, None, None, None]
    best = found if best is None else jnp.where(found > best, found, best)
  return best


def learnt_erosion(x: jax.Array, structuring: jax.Array) -> jax.Array:
  """Erodes maps by a structuring function for each channel, [C, k, k]."""
  return -learnt_dilation(-x, structuring[:, ::-1, ::-1])


LEARNT: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "learnt_dilation": learnt_dilation,
  "learnt_erosion": learnt_erosion,
}
