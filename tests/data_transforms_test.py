import collections
import colorsys

import numpy as np
from PIL import Image, ImageEnhance
import pytest

from nao_jax.data import transforms

WIDTH, HEIGHT = 200, 150
OFF = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def noise(rng):
  # Neither dark nor bright, so that no change is cut off at 0 or 255.
  return Image.fromarray(rng.integers(90, 160, (8, 9, 3), np.uint8))


def _coordinates():
  """An image whose red is the column and whose green is the row."""
  rows, columns = np.indices((HEIGHT, WIDTH), np.uint8)
  return Image.fromarray(np.dstack([columns, rows, rows]))


def _pixels(image):
  return np.asarray(image, np.float64)


def test_a_random_crop_is_a_stretched_window_of_the_image(rng):
  size, image = 16, _coordinates()
  # Far enough from the edges of the window, where there is less to average.
  inner = np.arange(4, 12)
  for _ in range(50):
    crop = transforms.random_resized_crop(image, rng, size)
    assert crop.size == (size, size)
    columns, rows, _ = np.moveaxis(_pixels(crop), -1, 0)
    for positions, length in ((columns, WIDTH), (rows.T, HEIGHT)):
      assert np.ptp(positions, axis=0).max() <= 1
      slope, start = np.polyfit(inner + 0.5, positions.mean(0)[inner] + 0.5, 1)
      assert start > -1.5
      assert start + slope * size < length + 1.5


def test_boxes_have_the_allowed_areas_and_ratios_and_reach_everywhere(rng):
  boxes = [transforms._random_box(WIDTH, HEIGHT, rng) for _ in range(3000)]
  left, top, width, height = np.array(boxes).T
  assert (width > 0).all()
  assert (height > 0).all()
  assert left.min() == top.min() == 0
  assert (left + width).max() == WIDTH
  assert (top + height).max() == HEIGHT
  share = width * height / (WIDTH * HEIGHT)
  assert 0.075 < share.min() < 0.1
  assert 0.97 < share.max() <= 1
  assert 0.74 < (width / height).min() < 0.77
  assert 1.30 < (width / height).max() < 1.36


def test_boxes_are_drawn_uniformly_in_area_and_in_the_logarithm_of_the_ratio(
  rng,
):
  boxes = [transforms._random_box(WIDTH, HEIGHT, rng) for _ in range(5000)]
  _, _, width, height = np.array(boxes).T
  # The definition: what does not fit is drawn again.
  area = rng.uniform(0.08, 1, 200_000)
  log_ratio = rng.uniform(np.log(3 / 4), np.log(4 / 3), 200_000)
  wide = np.sqrt(area * WIDTH * HEIGHT * np.exp(log_ratio)).round()
  high = np.sqrt(area * WIDTH * HEIGHT / np.exp(log_ratio)).round()
  fits = (wide <= WIDTH) & (high <= HEIGHT)
  quantiles = np.linspace(0.1, 0.9, 9)
  np.testing.assert_allclose(
    np.quantile(width * height / (WIDTH * HEIGHT), quantiles),
    np.quantile(area[fits], quantiles),
    atol=0.03,
  )
  np.testing.assert_allclose(
    np.quantile(np.log(width / height), quantiles),
    np.quantile(log_ratio[fits], quantiles),
    atol=0.03,
  )


@pytest.mark.parametrize(
  ("size", "box"),
  [((1000, 10), (493, 0, 13, 10)), ((10, 1000), (0, 493, 10, 13))],
)
def test_of_too_long_an_image_the_middle_is_taken(rng, size, box):
  assert transforms._random_box(*size, rng) == box


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 1)])
def test_the_smallest_images_can_be_cropped(rng, size):
  for _ in range(20):
    crop = transforms.random_resized_crop(Image.new("RGB", size), rng, 4)
    assert crop.size == (4, 4)


def test_half_of_the_images_are_mirrored(rng, noise):
  flips = [_pixels(transforms.random_flip(noise, rng)) for _ in range(400)]
  mirrored = [np.array_equal(f, _pixels(noise)[:, ::-1]) for f in flips]
  kept = [np.array_equal(f, _pixels(noise)) for f in flips]
  assert sum(mirrored) + sum(kept) == 400
  assert 160 < sum(mirrored) < 240


def test_without_strengths_colours_do_not_change(rng, noise):
  jittered = transforms.colour_jitter(noise, rng, **OFF)
  np.testing.assert_array_equal(_pixels(jittered), _pixels(noise))


def _grey(image):
  """Luma, ITU-R 601."""
  return (_pixels(image) @ [0.299, 0.587, 0.114])[..., None]


@pytest.mark.parametrize(
  ("name", "centre"),
  [
    ("brightness", lambda image: 0),
    ("contrast", lambda image: _grey(image).mean()),
    ("saturation", _grey),
  ],
)
def test_a_strength_scales_the_distance_from_a_centre(rng, noise, name, centre):
  distance = _pixels(noise) - centre(noise)
  factors = []
  for _ in range(100):
    jittered = transforms.colour_jitter(noise, rng, **OFF | {name: 0.4})
    changed = _pixels(jittered) - centre(noise)
    factors.append((changed * distance).sum() / (distance**2).sum())
    np.testing.assert_allclose(changed, factors[-1] * distance, atol=1.6)
  assert 0.58 < min(factors) < 0.64
  assert 1.36 < max(factors) < 1.42


def test_a_strength_above_one_does_not_invert(rng, noise):
  for _ in range(50):
    jittered = transforms.colour_jitter(noise, rng, **OFF | {"contrast": 3})
    distances = (
      _pixels(image) - _grey(noise).mean() for image in (jittered, noise)
    )
    changed, before = distances
    assert (changed * before).sum() > -1


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 1 / 3])
def test_a_hue_is_turned_and_saturation_and_value_are_kept(rng, turns):
  image = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
  expected = []
  for pixel in _pixels(image).reshape(-1, 3) / 255:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    expected.append(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value))
  np.testing.assert_allclose(
    _pixels(transforms._turn_hue(image, turns)).reshape(-1, 3),
    np.array(expected) * 255,
    atol=14,  # A hue is one of 256, so one of 43 between two primaries.
  )


def test_hues_are_turned_either_way_and_not_too_far(rng):
  # Cyan: its hue is half way round.
  cyan = Image.new("RGB", (1, 1), (0, 255, 255))
  turns = []
  for _ in range(200):
    jittered = transforms.colour_jitter(cyan, rng, **OFF | {"hue": 0.2})
    pixel = np.divide(jittered.getpixel((0, 0)), 255)
    turns.append(colorsys.rgb_to_hsv(*pixel)[0] - 0.5)
  assert -0.21 < min(turns) < -0.18
  assert 0.18 < max(turns) < 0.21


def test_every_order_of_the_changes_occurs(rng, noise, monkeypatch):
  order = []

  def logged(name, function):
    def call(*args):
      order.append(name)
      return function(*args)

    return call

  for name in ("Brightness", "Contrast", "Color"):
    enhancer = getattr(ImageEnhance, name)
    monkeypatch.setattr(ImageEnhance, name, logged(name, enhancer))
  monkeypatch.setattr(
    transforms, "_turn_hue", logged("hue", transforms._turn_hue)
  )
  for _ in range(500):
    transforms.colour_jitter(noise, rng, **dict.fromkeys(OFF, 0.2))
  orders = collections.Counter(zip(*[iter(order)] * 4, strict=True))
  assert len(orders) == 24


def test_a_centre_crop_is_the_middle_window():
  image = Image.fromarray(
    np.random.RandomState(0).randint(0, 256, (256, 320, 3), np.uint8)
  )
  for picture, window in (
    (image, np.s_[16:240, 48:272]),
    (image.transpose(Image.Transpose.TRANSPOSE), np.s_[48:272, 16:240]),
  ):
    np.testing.assert_array_equal(
      _pixels(transforms.centre_crop(picture, 224)), _pixels(picture)[window]
    )


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_centre_crop_keeps_seven_eighths_of_the_short_side(size):
  columns, rows, _ = np.moveaxis(
    _pixels(transforms.centre_crop(_coordinates(), size)), -1, 0
  )
  assert columns.shape == (size, size)
  assert abs(columns.mean() - (WIDTH - 1) / 2) < HEIGHT / size
  assert abs(rows.mean() - (HEIGHT - 1) / 2) < HEIGHT / size
  if size > 1:
    pitch = HEIGHT / round(size * 8 / 7)
    assert abs(np.ptp(columns) / (size - 1) - pitch) < 0.1 * pitch
    assert abs(np.ptp(rows) / (size - 1) - pitch) < 0.1 * pitch
