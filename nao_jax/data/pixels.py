"""Decodes image files to pixels, using only Pillow.

H, W, C: height, width and channels of an image.
"""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from nao_jax.errors import UserError

# Supported formats. Pillow reads forty more; for some it runs other programs,
# and for some it does not report how many bits it cuts off.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# The mode to which each of Pillow's 8-bit modes is converted: grey or RGB.
MODES = {
  "1": "L", "L": "L", "LA": "L",
  "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
}  # fmt: skip

GREY, COLOUR = 1, 3

# TIFF's tag number for the bits of each sample.
_BITS_PER_SAMPLE = 258


class Looks(NamedTuple):
  """Information from the header of an image file.

  Attributes:
    channels: C, GREY or COLOUR.
    transparent: whether the image has transparency, which is dropped.
  """

  channels: int
  transparent: bool


def look(encoded: bytes, place: str) -> Looks:
  """Reads the header of an image file, without decoding its pixels.

  Raises:
    UserError: see `read`; but damaged pixels are not noticed.
  """
  image = _open(encoded, place)
  transparent = "A" in image.mode or "transparency" in image.info
  return Looks(GREY if MODES[image.mode] == "L" else COLOUR, transparent)


def decode(
  encoded: bytes, place: str, *, size: int | None = None
) -> np.ndarray:
  """Returns the pixels of a PNG, JPEG or other file of `FORMATS`.

  Args:
    encoded: content of the file.
    place: the name of the image in messages.
    size: height and width to resize to, in pixels; the aspect ratio may change.

  Returns:
    uint8 [H, W, C], upright; C is 1 for grey images and 3 for others;
    transparency is dropped.

  Raises:
    UserError: see `read`.
  """
  image = read(encoded, place)
  if size is not None:
    image = image.resize((size, size), Image.Resampling.LANCZOS)
  return np.atleast_3d(np.asarray(image))


def read(encoded: bytes, place: str) -> Image.Image:
  """Reads an image file with Pillow: upright, and in mode L (grey) or RGB.

  Raises:
    UserError: the content is not an image, is damaged, has more than 8 bits per
      channel, or is an animation.
  """
  image = _open(encoded, place)
  try:
    image.load()
  except Exception as error:  # As in `_open`.
    raise _unreadable(place, error) from error
  image, mode = _upright(image), MODES[image.mode]
  if image.mode == "P" and "transparency" in image.info:
    # If converted directly to RGB, Pillow would warn that transparency is lost.
    image = image.convert("RGBA")
  return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
  """Rotates an image as its EXIF data say; damaged EXIF data are ignored."""
  with contextlib.suppress(Exception):
    return ImageOps.exif_transpose(image)
  return image


def _open(encoded: bytes, place: str) -> Image.Image:
  """Opens an image of a supported mode and depth; pixels are not read yet."""
  # A damaged file can make Pillow raise nearly any exception (OSError,
  # SyntaxError, ValueError, struct.error, ...); they all mean the same.
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
  # Some cameras store a second picture behind the first: a preview, or the
  # depth.
  if frames > 1 and image.format != "MPO":
    raise UserError(
      f"{place}: {frames} pictures in one file; allowed: one, so take them"
      " apart"
    )
  return image


def _bits(image: Image.Image, encoded: bytes) -> int:
  """Returns the bits per channel in the file; Pillow may cut them to 8."""
  if image.format == "PNG":
    return encoded[24]
  if image.format == "TIFF":
    return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
  return 8


def _unreadable(place: str, error: Exception) -> UserError:
  # Pillow's message names the object in memory, whose address is meaningless.
  reason = str(error).partition(" <_io.BytesIO")[0]
  return UserError(f"{place}: not a readable image ({reason})")


def encode(image: np.ndarray) -> Image.Image:
  """Converts an image, uint8 [H, W, C] with 1 or 3 channels, to Pillow's."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
  """Returns images with `channels` channels; grey ones may become colour."""
  if images.shape[-1] == channels or images.shape[-1] != GREY:
    return images
  return np.repeat(images, channels, axis=-1)


def check_shape(image: np.ndarray, shape: tuple[int, ...], place: str) -> None:
  """Requires that an image [H, W, C] has the shape of its data set.

  Raises:
    UserError: the shape differs.
  """
  if image.shape != shape:
    found, wanted = ("x".join(map(str, s)) for s in (image.shape, shape))
    raise UserError(
      f"{place}: {found} (height x width x channels) where the first training"
      f" image is {wanted}; images have one shape: resize them"
      " (prepare_images and a `size`), or, for final trainings alone, keep "
      "their sizes (`keep_sizes`) and stream them (`input=stream`)"
    )
