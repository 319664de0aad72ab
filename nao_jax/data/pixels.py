"""Encoded images to pixels, by Pillow alone.

H, W, C: height, width and channels of an image.
"""

import io

import numpy as np
from PIL import Image

from nao_jax.errors import UserError

# How each of Pillow's 8-bit modes is read: grey or RGB. Wider modes would
# lose bits without a word, so they are refused.
MODES = {
  "1": "L", "L": "L", "LA": "L",
  "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
}  # fmt: skip


def decode(
  encoded: bytes, place: str, *, size: int | None = None
) -> np.ndarray:
  """The pixels of a PNG, JPEG or other file that Pillow reads.

  Args:
    encoded: the file's contents.
    place: what messages call the image.
    size: height and width to resize to, in pixels; the aspect is not kept.

  Returns:
    uint8 [H, W, C]; C is 1 for grey images and 3 for others; transparency is
    dropped.

  Raises:
    UserError: as `read`.
  """
  image = read(encoded, place)
  if size is not None:
    image = image.resize((size, size), Image.Resampling.LANCZOS)
  return np.atleast_3d(np.asarray(image))


def read(encoded: bytes, place: str) -> Image.Image:
  """An image file's contents as Pillow's image, mode L (grey) or RGB.

  Raises:
    UserError: not an image, a damaged one, or one of more than 8 bits.
  """
  image = _open(encoded, place)
  if image.mode not in MODES:
    raise UserError(
      f"{place}: pixel mode {image.mode}; allowed: {', '.join(MODES)}"
    )
  if image.mode != MODES[image.mode]:
    image = image.convert(MODES[image.mode])
  return image


def _open(encoded: bytes, place: str) -> Image.Image:
  # A damaged file makes Pillow raise nearly anything (OSError, SyntaxError,
  # ValueError, struct.error, ...), and all of it means the same.
  try:
    image = Image.open(io.BytesIO(encoded))
    image.load()
  except Exception as error:
    raise UserError(f"{place}: not a readable image ({error})") from error
  return image


def encode(image: np.ndarray) -> Image.Image:
  """An image, uint8 [H, W, C] with 1 or 3 channels, as Pillow's."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def check_shape(image: np.ndarray, shape: tuple[int, ...], place: str) -> None:
  """Requires that an image [H, W, C] is of the data set's one shape.

  Raises:
    UserError: it is not.
  """
  if image.shape != shape:
    found, wanted = ("x".join(map(str, s)) for s in (image.shape, shape))
    raise UserError(
      f"{place}: {found} (height x width x channels) where the first training"
      f" image is {wanted}; images have one shape, unless their sizes are kept"
      " (prepare_images --keep_sizes) and they are streamed (--input=stream)"
    )


def check_labels(labels: np.ndarray, classes: int, place: str) -> None:
  """Requires that labels [N] are 0 to `classes` - 1.

  Raises:
    UserError: one is not; the message gives its index.
  """
  (wrong,) = np.nonzero((labels < 0) | (labels >= classes))
  if wrong.size:
    check_label(labels[wrong[0]], classes, f"{place}[{wrong[0]}]")


def check_label(label: int, classes: int, place: str) -> None:
  """Requires that a label is 0 to `classes` - 1.

  Raises:
    UserError: it is not.
  """
  if not 0 <= label < classes:
    raise UserError(f"{place}: label {label}; allowed: 0 to {classes - 1}")
