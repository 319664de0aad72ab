"""Augmentation of training images, and the order of examples.

Shapes: B images of H x W pixels and C channels. Each image of a batch draws its
own random numbers.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.errors import UserError
from nao_jax.settings import field


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """Settings of the augmentation; the defaults are usual for CIFAR.

  Attributes:
    padding: pixels of zeros around an image before the random crop of the
      original size; 0 for no crop.
    flip: whether half of the images are mirrored left to right.
    cutout: side of the square that is blanked, in pixels; 0 for none.
  """

  padding: int = field(4, least=0)
  flip: bool = True
  cutout: int = field(0, least=0)


@functools.partial(jax.jit, static_argnames="config")
def augment(
  key: jax.Array,
  images: jax.Array,
  *,
  mean: jax.Array | None,
  std: jax.Array | None,
  config: AugmentConfig,
) -> jax.Array:
  """Crops, flips, normalises and cuts out: the order usual for CIFAR.

  Padding is zero before normalisation, which is black; a cutout is zero after
  it, which is the mean colour.

  Args:
    key: a random key; it is consumed.
    images: uint8 [B, H, W, C].
    mean: see `normalise`.
    std: see `normalise`.
    config: the augmentation settings; static.

  Returns:
    float32 [B, H, W, C].
  """
  crop_key, flip_key, cutout_key = jax.random.split(key, 3)
  if config.padding:
    images = random_crop(crop_key, images, padding=config.padding)
  if config.flip:
    images = random_flip(flip_key, images)
  images = normalise(images, mean, std)
  if config.cutout:
    images = cutout(cutout_key, images, size=config.cutout)
  return images


@jax.jit
def normalise(
  images: jax.Array, mean: jax.Array | None, std: jax.Array | None
) -> jax.Array:
  """Normalises images: subtracts the mean and divides by the std.

  Args:
    images: uint8 [B, H, W, C].
    mean: float32 [C], full intensity being 1; if None, each image is
      standardised by its own statistics, over all its channels.
    std: float32 [C]; None if and only if the mean is.
  """
  if mean is None and std is None:
    return _standardise(jnp.float32(images))
  return (jnp.float32(images) / 255 - mean) / std


def _standardise(images):
  """Standardises each image by its own mean and standard deviation.

  It equals TensorFlow's `per_image_standardization`, which takes intensities of
  0 to 255: the divisor is at least 1 / sqrt(H W C), for nearly constant images.
  """
  axes = (1, 2, 3)
  floor = math.prod(images.shape[1:]) ** -0.5
  std = jnp.maximum(images.std(axes, keepdims=True), floor)
  return (images - images.mean(axes, keepdims=True)) / std


@functools.partial(jax.jit, static_argnames="padding")
def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
  """Pads images [B, H, W, C] with zeros and crops H x W at random.

  Args:
    key: a random key; it is consumed.
    images: [B, H, W, C], any dtype.
    padding: pixels on each side; all offsets from 0 to 2 * padding are equally
      likely.
  """
  margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  padded = jnp.pad(images, margins)
  offsets = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)

  def crop(image, offset):
    start = (offset[0], offset[1], 0)
    return jax.lax.dynamic_slice(image, start, images.shape[1:])

  return jax.vmap(crop)(padded, offsets)


@jax.jit
def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Mirrors each of the images [B, H, W, C] left to right with probability 1/2.

  Args:
    key: a random key; it is consumed.
    images: [B, H, W, C], any dtype.
  """
  flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
  return jnp.where(flipped, images[:, :, ::-1], images)


@functools.partial(jax.jit, static_argnames="size")
def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
  """Zeroes a square in each of the images [B, H, W, C].

  The centre is any pixel, so the square may be clipped at the border (DeVries
  and Taylor 2017).

  Args:
    key: a random key; it is consumed.
    images: [B, H, W, C], normalised.
    size: side of the square in pixels.
  """
  batch, height, width, _ = images.shape
  limits = jnp.array([height, width])
  starts = jax.random.randint(key, (batch, 2), 0, limits) - size // 2
  rows = _covers(starts[:, 0], size, height)[:, :, None, None]
  columns = _covers(starts[:, 1], size, width)[:, None, :, None]
  return jnp.where(rows & columns, 0, images)


def _covers(starts, size: int, length: int):
  """Returns whether [start, start + size) holds each position: [B, length]."""
  distance = jnp.arange(length) - starts[:, None]
  return (distance >= 0) & (distance < size)


@functools.partial(jax.jit, static_argnames=("n", "batch"))
def epoch_indices(key: jax.Array, n: int, batch: int) -> jax.Array:
  """Returns a random order of `n` examples in full batches.

  Args:
    key: a random key; it is consumed.
    n: number of examples.
    batch: examples per batch.

  Returns:
    int32 [steps, batch]; no index occurs twice, and the examples that do not
    fill a batch are left out.

  Raises:
    UserError: there are fewer examples than one batch needs.
  """
  check_batch(batch, n)
  steps = n // batch
  order = jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))
  return order[: steps * batch].reshape(steps, batch)


def check_batch(batch: int, n: int) -> None:
  """Raises UserError if `n` examples do not fill one batch."""
  if not 1 <= batch <= n:
    raise UserError(
      f"`train.batch={batch}`: allowed: 1 to {n}, the training images"
    )


def eval_batches(n: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
  """Splits `n` examples in order into batches of one size, the last padded.

  Args:
    n: number of examples.
    batch: examples per batch.

  Returns:
    Indices, int32 [steps, batch], padded with the first examples again (a batch
    with many copies of one image would have odd BatchNorm statistics); and a
    mask, bool [steps, batch], in which each example counts once.
  """
  steps = -(-n // batch)
  indices = np.arange(steps * batch, dtype=np.int32).reshape(steps, batch)
  mask = indices < n
  return indices % n, mask
