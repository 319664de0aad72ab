"""Convolutions of the networks.

Shapes: maps are [C, H, W, B], the batch minor-most. Cells have few channels
(20 at the official search size), so a CPU vectorises over the batch and a
pointwise convolution is one plain matrix product [D, C] x [C, H W B]; GPU and
TPU compilers choose their own physical layout. Kernels are `k` wide; `stride`
and `dilation` apply to both spatial axes; padding is symmetric,
dilation (k - 1) / 2 on each side, at stride 2 too. A window of even width
reaches one pixel further down and to the right than up and to the left.

Operations that a network repeats are jitted, the forward and the backward pass
separately, so that each is traced only once per shape. Tracing is most of the
start-up time of a process whose programs are in the compilation cache. The same
holds for pooling.py and normalisation.py.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from nao_jax.networks.windows import (
  Pair,
  margins,
  pad,
  shifted_windows,
  space_out,
)

_MAP = ("CHWN", "OIHW", "CHWN")
_LAST = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
@jax.jit
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves [C, H, W, B] with a 1x1 kernel [C, D] to [D, H, W, B]."""
  return _apart(_pointwise, x, kernel)


def _pointwise(x, kernel):
  flat = x.reshape(x.shape[0], -1)
  return (kernel.T @ flat).reshape(-1, *x.shape[1:])


@jax.jit
def _pointwise_forward(x, kernel):
  return pointwise(x, kernel), (x, kernel)


@jax.jit
def _pointwise_backward(residuals, gradient):
  def both(x, kernel, gradient):
    flat = gradient.reshape(gradient.shape[0], -1)
    return (kernel @ flat).reshape(x.shape), x.reshape(x.shape[0], -1) @ flat.T

  return _apart(both, *residuals, gradient)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _apart(product, *inputs):
  """Computes matrix products of maps, without fusion with the code before them.

  A CPU compiler would fuse the code that computes a map with the reshape to a
  matrix, and then compute each pixel's position by divisions instead of
  vectorising: a 5x5 depthwise convolution before a product takes 7 times as
  long. The compiler removes optimisation barriers before it fuses, but keeps a
  branch whose condition it cannot evaluate by then. The other branch never
  runs.
  """

  def zeros(*inputs):
    shapes = jax.eval_shape(product, *inputs)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def branch(*inputs):
    always = lax.optimization_barrier(jnp.bool_(True))
    return lax.cond(always, product, zeros, *inputs)

  return lax.platform_dependent(*inputs, cpu=branch, default=product)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
  x: jax.Array,
  kernel: jax.Array,
  strides: Pair = (1, 1),
  padding: tuple[Pair, Pair] = ((0, 0), (0, 0)),
) -> jax.Array:
  """Convolves [C, H, W, B] with a dense kernel [D, C, k, l].

  A CPU compiler has a fast convolution only for [B, H, W, C]. It transposes
  other layouts to that form only outside of loops, and training steps run in a
  loop; so the transpositions are explicit here, and the gradient of the maps is
  such a convolution too: 10 to 30 times as fast in a loop
  (docs/measurements.md). That of the kernel is a matrix product.
  Other platforms use their own convolution.
  """
  sizes = {"strides": strides, "padding": padding}
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_conv_last, **sizes),
    default=functools.partial(_conv_first, **sizes),
  )


def _conv_first(x, kernel, *, strides, padding):
  """Computes `conv` in the layout of this module."""
  return lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=_MAP
  )


def _conv_last(x, kernel, *, strides=(1, 1), padding):
  """Computes `conv` with the channels minor-most."""
  y = lax.conv_general_dilated(
    jnp.transpose(x, (3, 1, 2, 0)),
    jnp.transpose(kernel, (2, 3, 1, 0)),
    strides,
    padding,
    dimension_numbers=_LAST,
  )
  return jnp.transpose(y, (3, 1, 2, 0))


def _conv_forward(x, kernel, strides, padding):
  return conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides, padding, residuals, gradient):
  x, kernel = residuals
  sizes = {"strides": strides, "padding": padding}

  def last(x, kernel, gradient):
    # The gradient of a convolution of stride 1 whose skipped pixels have
    # gradient 0.
    steps = [(0, 0, 0), *((0, 0, s - 1) for s in strides), (0, 0, 0)]
    spread = lax.pad(gradient, jnp.zeros((), gradient.dtype), steps)
    return (
      _conv_input_gradient(x.shape, kernel, spread, padding),
      _conv_kernel_gradient(x, kernel.shape, spread, padding),
    )

  def first(x, kernel, gradient):
    _, pullback = jax.vjp(functools.partial(_conv_first, **sizes), x, kernel)
    return pullback(gradient)

  return lax.platform_dependent(x, kernel, gradient, cpu=last, default=first)


def _conv_input_gradient(shape, kernel, gradient, padding):
  """Convolves the gradient with the flipped kernel."""
  margins = [
    (size - 1 - low, extent + low - outputs)
    for extent, size, outputs, (low, _) in zip(
      shape[1:3], kernel.shape[2:], gradient.shape[1:3], padding, strict=True
    )
  ]
  turned = jnp.transpose(kernel[:, :, ::-1, ::-1], (1, 0, 2, 3))
  return _conv_last(gradient, turned, padding=margins)


def _conv_kernel_gradient(x, shape, gradient, padding):
  """Computes the gradient of a kernel [D, C, k, l] as one matrix product.

  The product of gradients, shifted by each row of the kernel, with maps,
  shifted by each of its columns, is large enough to be fast with few channels,
  where the compiler's convolution of both is not (docs/speed.md).
  """
  outputs, channels, height, width = shape
  rows = gradient.shape[1] + height - 1
  columns = gradient.shape[2]
  needed = rows, columns + width - 1
  margins = [
    (low, extent - low - inputs, 0)
    for inputs, extent, (low, _) in zip(
      x.shape[1:3], needed, padding, strict=True
    )
  ]
  zero = jnp.zeros((), x.dtype)
  padded = lax.pad(x, zero, [(0, 0, 0), *margins, (0, 0, 0)])
  maps = jnp.stack([padded[:, :, j : j + columns] for j in range(width)])
  gradients = jnp.stack(
    [
      jnp.pad(gradient, ((0, 0), (i, height - 1 - i), (0, 0), (0, 0)))
      for i in range(height)
    ]
  )

  def product(gradients, maps):
    left = gradients.reshape(height * outputs, -1)
    return left @ maps.reshape(width * channels, -1).T

  products = _apart(product, gradients, maps)
  products = products.reshape(height, outputs, width, channels)
  return jnp.transpose(products, (1, 3, 0, 2))


conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@functools.partial(jax.jit, static_argnums=(2, 3))
def depthwise(
  x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1
) -> jax.Array:
  """Convolves [C, H, W, B] depthwise with [C, k, k].

  On a CPU this is k * k shifted multiply-adds, which the compiler fuses into
  one loop: 20 times as fast as its grouped convolution, forward and backward
  (docs/measurements.md). Other platforms use their own convolution.
  """
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(depthwise_shifts, stride=stride, dilation=dilation),
    default=functools.partial(depthwise_conv, stride=stride, dilation=dilation),
  )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _depthwise_forward(x, kernel, stride, dilation):
  return depthwise(x, kernel, stride, dilation), (x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _depthwise_backward(stride, dilation, residuals, gradient):
  x, kernel = residuals
  sizes = {"stride": stride, "dilation": dilation}

  def shifts(x, kernel, gradient):
    return (
      _depthwise_input_gradient(kernel, gradient, x.shape, **sizes),
      _depthwise_kernel_gradient(x, gradient, kernel.shape[-1], **sizes),
    )

  def convolution(x, kernel, gradient):
    _, pullback = jax.vjp(functools.partial(depthwise_conv, **sizes), x, kernel)
    return pullback(gradient)

  return lax.platform_dependent(
    x, kernel, gradient, cpu=shifts, default=convolution
  )


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def depthwise_conv(
  x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int
) -> jax.Array:
  """Computes `depthwise` by the compiler's grouped convolution."""
  padding = margins(dilation * (kernel.shape[-1] - 1))
  return lax.conv_general_dilated(
    x,
    kernel[:, None],
    (stride, stride),
    (padding, padding),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_MAP,
    feature_group_count=x.shape[0],
  )


def depthwise_shifts(
  x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int
) -> jax.Array:
  """Computes `depthwise` by shifted multiply-adds."""
  size = kernel.shape[-1]
  windows = shifted_windows(
    pad(x, dilation * (size - 1)), size, stride=stride, dilation=dilation
  )
  return _weighted(windows, kernel)


def _weighted(windows, kernel):
  """Sums windows times weights, row by row for shorter chains of additions."""
  channels, size, _ = kernel.shape

  def term(i, j):
    weight = lax.slice(kernel, (0, i, j), (channels, i + 1, j + 1))
    weight = lax.reshape(weight, (channels,))
    return lax.mul(windows[i, j], weight[:, None, None, None])

  rows = (
    functools.reduce(lax.add, (term(i, j) for j in range(size)))
    for i in range(size)
  )
  return functools.reduce(lax.add, rows)


def _depthwise_input_gradient(kernel, gradient, shape, *, stride, dilation):
  size = kernel.shape[-1]
  windows = shifted_windows(
    space_out(gradient, shape, size, stride, dilation),
    size,
    stride=1,
    dilation=dilation,
  )
  return _weighted(windows, kernel[:, ::-1, ::-1])


def _depthwise_kernel_gradient(x, gradient, size, *, stride, dilation):
  """Computes one matrix product per channel instead of k * k reductions.

  The product of [k (H + 2p), W B] columns with [H', W B] gradients correlates
  every padded row with every output row; its diagonals are the rows of the
  kernel gradient. It takes (H + 2p) / k times the necessary operations and is
  still several times as fast as reductions, which a CPU compiler does not fuse
  well.
  """
  channels, rows, columns, batch = gradient.shape
  padded = pad(x, dilation * (size - 1))
  span = stride * (columns - 1) + 1
  shifted = jnp.stack(
    [
      padded[:, :, dilation * j : dilation * j + span : stride]
      for j in range(size)
    ],
    axis=1,
  )

  def product(shifted, gradient):
    return jnp.einsum(
      "cmn,chn->cmh",
      shifted.reshape(channels, -1, columns * batch),
      gradient.reshape(channels, rows, columns * batch),
    )

  products = _apart(product, shifted, gradient)
  products = products.reshape(channels, size, padded.shape[1], rows)
  row = jnp.arange(rows)
  diagonals = [
    products[:, :, dilation * i + stride * row, row].sum(-1)
    for i in range(size)
  ]
  return jnp.stack(diagonals, axis=1)
