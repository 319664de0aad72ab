"""Random changes to one photograph, and the crop for evaluation.

Images are Pillow's, in mode RGB. The semantics are those of torchvision's
transforms of the same names, on which the published accuracies depend.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance

# Bounds of a random crop: its share of the area, and its width over its height.
AREAS = (0.08, 1.0)
RATIOS = (3 / 4, 4 / 3)
_CROP_TRIES = 10

# The short side of an evaluated image, relative to the side of the crop.
_MARGIN = 256 / 224


def random_resized_crop(
  image: Image.Image, rng: np.random.Generator, size: int
) -> Image.Image:
  """Resizes a random part of an image to `size` x `size` pixels."""
  left, top, width, height = _random_box(*image.size, rng)
  part = image.crop((left, top, left + width, top + height))
  return part.resize((size, size), Image.Resampling.BILINEAR)


def _random_box(
  width: int, height: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
  """Draws left, top, width and height of a part of an image."""
  for _ in range(_CROP_TRIES):
    area = width * height * rng.uniform(*AREAS)
    ratio = math.exp(rng.uniform(*map(math.log, RATIOS)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = rng.integers((width - w + 1, height - h + 1)).tolist()
      return left, top, w, h
  # For an image that is too long: the largest central part of an allowed ratio.
  w = min(width, round(height * RATIOS[1]))
  h = min(height, round(width / RATIOS[0]))
  return (width - w) // 2, (height - h) // 2, w, h


def random_flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
  """Mirrors an image left to right with probability 1/2."""
  if rng.random() < 0.5:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return image


def colour_jitter(
  image: Image.Image,
  rng: np.random.Generator,
  *,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
) -> Image.Image:
  """Changes the colours of an image, in a random order.

  Args:
    image: the image.
    rng: a generator; its state advances.
    brightness: intensities are multiplied by a factor from 1 - this to 1 +
      this.
    contrast: the same for the distance from the mean intensity.
    saturation: the same for the distance from grey.
    hue: largest rotation of the colour circle in either direction, in turns, at
      most 0.5. A value of 0 means no change.
  """
  changes = (
    (ImageEnhance.Brightness, brightness),
    (ImageEnhance.Contrast, contrast),
    (ImageEnhance.Color, saturation),
    (None, hue),
  )
  for enhancer, strength in map(changes.__getitem__, rng.permutation(4)):
    if not strength:
      continue
    if enhancer is None:
      image = _turn_hue(image, rng.uniform(-strength, strength))
    else:
      factor = rng.uniform(max(0, 1 - strength), 1 + strength)
      image = enhancer(image).enhance(factor)
  return image


def _turn_hue(image: Image.Image, turns: float) -> Image.Image:
  hue, saturation, value = image.convert("HSV").split()
  # A table of all 256 hues, which wrap around.
  turned = hue.point([(i + int(turns * 255)) % 256 for i in range(256)])
  return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def centre_crop(image: Image.Image, size: int) -> Image.Image:
  """Resizes the short side to `size` * 256 / 224 and crops the centre."""
  short = round(size * _MARGIN)
  width, height = (int(short * side / min(image.size)) for side in image.size)
  image = image.resize((width, height), Image.Resampling.BILINEAR)
  left, top = round((width - size) / 2), round((height - size) / 2)
  return image.crop((left, top, left + size, top + size))
