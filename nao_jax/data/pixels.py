"""Encoded images to pixels, by Pillow alone.

H, W, C: height, width and channels of an image.
"""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from nao_jax.errors import UserError

# What is read. Pillow knows forty more; some run other programs, and of some it
# does not say how many bits they had before it cut them to 8.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# How each of Pillow's 8-bit modes is read: grey or RGB.
MODES = {
  "1": "L", "L": "L", "LA": "L",
  "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
}  # fmt: skip

GREY, COLOUR = 1, 3

# TIFF's number for the bits of each sample.
_BITS_PER_SAMPLE = 258


class Looks(NamedTuple):
  """What the head of an image file says.

  Attributes:
    channels: C, GREY or COLOUR.
    transparent: whether it has transparency, which reading drops.
  """

  channels: int
  transparent: bool


def look(encoded: bytes, place: str) -> Looks:
  """Looks at the head of an image file, without decoding its pixels.

  Raises:
    UserError: as `read`; but that the pixels are damaged is not seen.
  """
  image = _open(encoded, place)
  transparent = "A" in image.mode or "transparency" in image.info
  return Looks(GREY if MODES[image.mode] == "L" else COLOUR, transparent)


def decode(
  encoded: bytes, place: str, *, size: int | None = None
) -> np.ndarray:
  """The pixels of a PNG, JPEG or other file of `FORMATS`.

  Args:
    encoded: the file's contents.
    place: what messages call the image.
    size: height and width to resize to, in pixels; the aspect is not kept.

  Returns:
    uint8 [H, W, C], upright; C is 1 for grey images and 3 for others;
    transparency is dropped.

  Raises:
    UserError: as `read`.
  """
  image = read(encoded, place)
  if size is not None:
    image = image.resize((size, size), Image.Resampling.LANCZOS)
  return np.atleast_3d(np.asarray(image))


def read(encoded: bytes, place: str) -> Image.Image:
  """An image file's contents as Pillow's image, upright, mode L (grey) or RGB.

  Raises:
    UserError: not an image, a damaged one, one of more than 8 bits, or an
      animation.
  """
  image = _open(encoded, place)
  try:
    image.load()
  except Exception as error:  # As in `_open`.
    raise _unreadable(place, error) from error
  image, mode = _upright(image), MODES[image.mode]
  if image.mode == "P" and "transparency" in image.info:
    # Straight to RGB, Pillow would warn that transparency is lost.
    image = image.convert("RGBA")
  return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
  """An image as its camera was held, which EXIF says; damaged, it says none."""
  with contextlib.suppress(Exception):
    return ImageOps.exif_transpose(image)
  return image


def _open(encoded: bytes, place: str) -> Image.Image:
  """An image of a mode and a depth that are read; its pixels are not yet."""
  # A damaged file makes Pillow raise nearly anything (OSError, SyntaxError,
  # ValueError, struct.error, ...), and all of it means the same.
  try:
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    bits, frames = _bits(image, encoded), getattr(image, "n_frames", 1)
  except Exception as error:
    raise _unreadable(place, error) from error
  if bits > 8:
    raise UserError(
      f"{place}: {bits} bits a channel (pixel mode {image.mode}); allowed: 8,"
      " so convert it, which takes a choice: which values become black and"
      " white"
    )
  if image.mode not in MODES:
    raise UserError(
      f"{place}: pixel mode {image.mode}; allowed: {', '.join(MODES)}"
    )
  # Some cameras put a second picture behind the first: a preview, the depth.
  if frames > 1 and image.format != "MPO":
    raise UserError(
      f"{place}: {frames} pictures in one file; allowed: one, so take them"
      " apart"
    )
  return image


def _bits(image: Image.Image, encoded: bytes) -> int:
  """How many bits each channel has in the file; Pillow may cut them to 8."""
  if image.format == "PNG":
    return encoded[24]
  if image.format == "TIFF":
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
  return 8


def _unreadable(place: str, error: Exception) -> UserError:
  # Pillow names the object in memory, whose address means nothing.
  reason = str(error).partition(" <_io.BytesIO")[0]
  return UserError(f"{place}: not a readable image ({reason})")


def encode(image: np.ndarray) -> Image.Image:
  """An image, uint8 [H, W, C] with 1 or 3 channels, as Pillow's."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
  """Images [.., C] with `channels` of them: grey ones may become colour."""
  if images.shape[-1] == channels or images.shape[-1] != GREY:
    return images
  return np.repeat(images, channels, axis=-1)


def check_shape(image: np.ndarray, shape: tuple[int, ...], place: str) -> None:
  """Requires that an image [H, W, C] is of the data set's one shape.

  Raises:
    UserError: it is not.
  """
  if image.shape != shape:
    found, wanted = ("x".join(map(str, s)) for s in (image.shape, shape))
    raise UserError(
      f"{place}: {found} (height x width x channels) where the first training"
      f" image is {wanted}; images have one shape: resize them"
      " (prepare_images --size=N), or, for final trainings alone, keep their"
      " sizes (--keep_sizes) and stream them (--input=stream)"
    )
