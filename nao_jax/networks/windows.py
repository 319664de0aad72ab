"""Windows of maps [C, H, W, B] that depthwise convolutions and pools read.

A window of even width reaches one pixel further down and to the right than up
and to the left.
"""

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

Pair = tuple[int, int]


def shifted_windows(
  padded: jax.Array, size: int, *, stride: int, dilation: int = 1
) -> dict[Pair, jax.Array]:
  """Returns the input of each kernel position: {(i, j): [C, H', W', B]}."""
  channels, *extents, batch = padded.shape
  reach = dilation * (size - 1)
  height, width = (
    stride * ((extent - reach - 1) // stride) + 1 for extent in extents
  )
  at = [dilation * i for i in range(size)]
  return {
    (i, j): lax.slice(
      padded,
      (0, at[i], at[j], 0),
      (channels, at[i] + height, at[j] + width, batch),
      (1, stride, stride, 1),
    )
    for i in range(size)
    for j in range(size)
  }


def margins(reach: int) -> Pair:
  """Returns how far a window of width reach + 1 extends back and forward."""
  return reach // 2, reach - reach // 2


def pad(x: jax.Array, reach: int, value: float = 0.0) -> jax.Array:
  """Pads maps for windows of width reach + 1."""
  both = margins(reach)
  return jnp.pad(x, ((0, 0), both, both, (0, 0)), constant_values=value)


def space_out(
  gradient: jax.Array,
  shape: tuple[int, ...],
  size: int,
  stride: int,
  dilation: int = 1,
  value: Any = 0.0,
) -> jax.Array:
  """Lays an output gradient out so that a flipped window reads it.

  Args:
    gradient: [C, H', W', B], with respect to the output of windows.
    shape: of the input, (C, H, W, B).
    size: width of the windows.
    stride: distance of output pixels; they are laid out that far apart.
    dilation: distance of a window's pixels.
    value: value of the gaps and the border.

  Returns:
    [C, H + r, W + r, B] with r = dilation (size - 1): it has as many windows of
    stride 1 as the input has pixels.
  """
  reach = dilation * (size - 1)
  low = margins(reach)[1]
  config = [(0, 0, 0)]
  for extent, outputs in zip(shape[1:3], gradient.shape[1:3], strict=True):
    spread = stride * (outputs - 1) + 1
    config.append((low, extent + reach - spread - low, stride - 1))
  config.append((0, 0, 0))
  return lax.pad(gradient, jnp.asarray(value, gradient.dtype), config)
