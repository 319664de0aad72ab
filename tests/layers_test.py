"""Every layer equals its plain form, in value and in gradient."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.networks import convolutions, normalisation, pooling
from tests import trees

# Sums are taken in other orders.
pytestmark = pytest.mark.usefixtures("double_precision")

# Each example is compiled.
few = settings(max_examples=2)

STRIDES = (1, 2)
POOLS = [(size, stride) for size in (2, 3, 5) for stride in STRIDES]


@st.composite
def maps(draw, smallest=1):
  """Random maps [C, H, W, B], as wide and high as that at least."""
  ranges = ((1, 3), (smallest, 9), (smallest, 9), (1, 2))
  shape = [draw(st.integers(*ends)) for ends in ranges]
  seed = draw(st.integers(0, 99))
  return np.random.default_rng(seed).standard_normal(shape)


def numbers(*shape):
  return np.random.default_rng(len(shape)).standard_normal(shape)


def assert_equal_with_gradients(ours, plain, *arguments):
  """Compares values, and the gradients of a randomly weighted sum."""
  weights = numbers(*jax.eval_shape(plain, *arguments).shape)
  trees.assert_same_gradients(
    ours, plain, weights, *arguments, rtol=1e-9, atol=1e-10
  )


def margins(size, dilation=1):
  reach = dilation * (size - 1)
  return reach // 2, reach - reach // 2


def plain_depthwise(x, kernel, stride, dilation):
  """Computes it by XLA in another layout: [B, H, W, C] and [k, k, 1, C]."""
  margin = margins(kernel.shape[-1], dilation)
  y = lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    kernel.transpose(1, 2, 0)[:, :, None],
    (stride, stride),
    (margin, margin),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[0],
  )
  return y.transpose(3, 1, 2, 0)


def plain_pool(x, start, reduce, size, stride):
  margin = ((0, 0), margins(size), margins(size), (0, 0))
  window, strides = (1, size, size, 1), (1, stride, stride, 1)
  return lax.reduce_window(x, start, reduce, window, strides, margin)


def plain_batch_norm(x, scale, offset):
  mean = x.mean((1, 2, 3), keepdims=True)
  variance = ((x - mean) ** 2).mean((1, 2, 3), keepdims=True)
  unit = (x - mean) / jnp.sqrt(variance + 1e-5)
  return unit * scale[:, None, None, None] + offset[:, None, None, None]


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("dilation", [1, 2])
@few
@given(x=maps())
def test_a_depthwise_convolution_is_the_grouped_one(size, stride, dilation, x):
  assert_equal_with_gradients(
    lambda x, kernel: convolutions.depthwise(x, kernel, stride, dilation),
    lambda x, kernel: plain_depthwise(x, kernel, stride, dilation),
    x,
    numbers(len(x), size, size),
  )


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("dilation", [1, 2])
def test_both_forms_of_a_depthwise_convolution_agree(stride, dilation):
  def form(function):
    return lambda x, kernel: function(
      x, kernel, stride=stride, dilation=dilation
    )

  assert_equal_with_gradients(
    form(convolutions.depthwise_shifts),
    form(convolutions.depthwise_conv),
    numbers(2, 6, 7, 2),
    numbers(2, 5, 5),
  )


@pytest.mark.parametrize(
  ("shape", "strides", "padding"),
  [
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((1, 7), (1, 2), ((0, 0), (3, 3))),
    ((2, 2), (1, 1), ((0, 0), (0, 0))),
    ((3, 3), (2, 2), ((0, 0), (0, 0))),
  ],
)
@few
@given(x=maps(smallest=3))
def test_a_convolution_is_the_plain_one(shape, strides, padding, x):
  def plain(x, kernel):
    return lax.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=("CHWN", "OIHW", "CHWN")
    )

  assert_equal_with_gradients(
    lambda x, kernel: convolutions.conv(x, kernel, strides, padding),
    plain,
    x,
    numbers(4, len(x), *shape),
  )


def test_batch_norm_of_bfloat16_computes_in_float32():
  x = (100 + numbers(2, 6, 7, 2)).astype(jnp.bfloat16)
  scale, offset = jnp.ones(2), jnp.zeros(2)
  y = normalisation.batch_norm(x, scale, offset)
  assert y.dtype == jnp.bfloat16
  wide = normalisation.batch_norm(x.astype(jnp.float32), scale, offset)
  np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))
  assert normalisation.moments(x)[1].dtype == jnp.float32


@pytest.mark.parametrize(("size", "stride"), POOLS)
@few
@given(x=maps())
def test_an_average_pool_is_a_window_sum_over_a_window_count(size, stride, x):
  def plain(x):
    total = plain_pool(x, 0.0, lax.add, size, stride)
    return total / plain_pool(jnp.ones_like(x), 0.0, lax.add, size, stride)

  assert_equal_with_gradients(
    lambda x: pooling.avg_pool(x, size, stride), plain, x
  )


@pytest.mark.parametrize(("size", "stride"), POOLS)
def test_an_average_pool_does_not_count_padding(size, stride):
  pool = jax.jit(lambda x: pooling.avg_pool(x, size, stride))
  pooled = pool(np.full((2, 7, 6, 1), 3.0))
  np.testing.assert_allclose(pooled, np.full(pooled.shape, 3.0))
  x = numbers(2, 7, 6, 1)
  near = 1 + size // 2  # Pixels that the first window sees along an axis.
  expected = x[:, :near, :near].mean((1, 2))
  np.testing.assert_allclose(pool(x)[:, 0, 0], expected)


def test_a_valid_average_pool_has_no_padding():
  def plain(x):
    window, strides = (1, 5, 5, 1), (1, 3, 3, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / 25

  assert_equal_with_gradients(
    lambda x: pooling.valid_avg_pool(x, 5, 3), plain, numbers(2, 8, 9, 2)
  )


@pytest.mark.parametrize(("size", "stride"), POOLS)
@few
@given(x=maps())
def test_a_max_pool_is_a_window_maximum(size, stride, x):
  assert_equal_with_gradients(
    lambda x: pooling.max_pool(x, size, stride),
    lambda x: plain_pool(x, -jnp.inf, lax.max, size, stride),
    x,
  )


def naive_max_pool(x, gradient, size, stride):
  """The pool and its input gradient; max() returns the first of equals."""
  low, _ = margins(size)
  pooled, pulled = np.empty_like(gradient), np.zeros_like(x)
  for c, i, j, b in np.ndindex(gradient.shape):
    window = [
      (c, row, column, b)
      for row in range(stride * i - low, stride * i - low + size)
      for column in range(stride * j - low, stride * j - low + size)
      if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]
    ]
    winner = max(window, key=x.__getitem__)
    pooled[c, i, j, b] = x[winner]
    pulled[winner] += gradient[c, i, j, b]
  return pooled, pulled


@pytest.mark.parametrize(("size", "stride"), POOLS)
def test_of_equal_pixels_the_first_gets_the_gradient(size, stride):
  x = np.random.default_rng(0).integers(-2, 0, (2, 7, 6, 2)).astype(float)
  gradient = numbers(2, -(-7 // stride), -(-6 // stride), 2)

  def both(x):
    pool = functools.partial(pooling.max_pool, size=size, stride=stride)
    value, pull_back = jax.vjp(pool, x)
    return value, *pull_back(gradient)

  value, pulled = jax.jit(both)(x)
  expected_value, expected = naive_max_pool(x, gradient, size, stride)
  np.testing.assert_array_equal(value, expected_value)
  np.testing.assert_allclose(pulled, expected)


@few
@given(x=maps())
def test_batch_norm_is_the_textbook_one(x):
  vector = numbers(2, len(x))
  assert_equal_with_gradients(
    normalisation.batch_norm, plain_batch_norm, 2 * x + 1, vector[0], vector[1]
  )


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
  x, weights = numbers(2, 3, 4, 5, 2), numbers(3, 4, 5, 4)
  scale, offset = numbers(2, 3)

  def pull_back(function, x, weights):
    value, pull_back = jax.vjp(function, x, scale, offset)
    return value, *pull_back(weights)

  def device(x, weights):
    return pull_back(
      lambda *arguments: normalisation.batch_norm(*arguments, "devices"),
      x,
      weights,
    )

  def whole(parts):
    return jnp.concatenate(list(parts), axis=-1)

  parts = jnp.stack(jnp.split(weights, 2, axis=-1))
  across = jax.jit(jax.vmap(device, axis_name="devices"))
  y, dx, *rest = across(x, parts)
  found = whole(y), whole(dx), *(gradient.sum(0) for gradient in rest)
  plain = jax.jit(functools.partial(pull_back, plain_batch_norm))
  expected = plain(whole(x), weights)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def test_normalising_by_the_batch_moments_is_batch_norm():
  x, scale, offset = numbers(3, 4, 5, 2), numbers(3), numbers(3) + 1
  mean, variance = normalisation.moments(x)
  np.testing.assert_allclose(variance, x.var((1, 2, 3)))
  np.testing.assert_allclose(
    normalisation.normalise(x, scale, offset, mean, variance),
    plain_batch_norm(x, scale, offset),
  )


@few
@given(x=maps(), width=st.integers(1, 4))
def test_a_pointwise_convolution_mixes_the_channels_of_each_pixel(x, width):
  assert_equal_with_gradients(
    convolutions.pointwise,
    lambda x, kernel: jnp.einsum("chwb,cd->dhwb", x, kernel),
    x,
    numbers(len(x), width),
  )
