import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.data import augment
from nao_jax.errors import UserError

BATCH, HEIGHT, WIDTH, CHANNELS = 64, 7, 6, 3
MEAN, STD = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def images():
  shape = (BATCH, HEIGHT, WIDTH, CHANNELS)
  return np.random.RandomState(0).randint(1, 256, shape, np.uint8)


@pytest.fixture
def key():
  return jax.random.key(0)


def _offset_of_crop(crop, padded):
  """Finds the crop in the padded image, independently."""
  for top in range(padded.shape[0] - HEIGHT + 1):
    for left in range(padded.shape[1] - WIDTH + 1):
      window = padded[top : top + HEIGHT, left : left + WIDTH]
      if np.array_equal(window, crop):
        return top, left
  return None


def test_normalising_gives_what_numpy_does(images):
  np.testing.assert_allclose(
    augment.normalise(images, MEAN, STD),
    (images / 255.0 - MEAN) / STD,
    rtol=1e-4,
    atol=1e-5,
  )


def test_without_moments_each_image_is_standardised_by_itself(images):
  # The second image is constant, the third changes less than the least std.
  images = images.copy()
  images[1:3] = 7
  images[2, 0, 0, 0] = 8
  expected = []
  for image in np.float64(images):
    std = max(image.std(), 1 / np.sqrt(image.size))
    expected.append((image - image.mean()) / std)
  assert images[2].std() < 1 / np.sqrt(images[2].size)
  np.testing.assert_allclose(
    augment.normalise(images, None, None), expected, rtol=1e-4, atol=1e-5
  )


def test_a_cutout_of_a_standardised_image_has_its_mean_colour(images, key):
  config = augment.AugmentConfig(padding=0, flip=False, cutout=3)
  out = augment.augment(key, images, mean=None, std=None, config=config)
  whole = np.asarray(augment.normalise(images, None, None))
  same = np.isclose(out, whole, rtol=1e-5, atol=1e-6)
  assert (np.asarray(out)[~same] == 0).all()
  assert (~same).any((1, 2, 3)).all()


def test_a_crop_is_a_window_of_the_padded_image(images, key):
  crops = np.asarray(augment.random_crop(key, images, 2))
  assert crops.dtype == np.uint8
  padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
  offsets = list(map(_offset_of_crop, crops, padded))
  assert None not in offsets
  assert {top for top, _ in offsets} == set(range(5))
  assert {left for _, left in offsets} == set(range(5))


def test_each_image_is_flipped_or_not(images, key):
  flipped = np.asarray(augment.random_flip(key, images))
  mirrored = images[:, :, ::-1]
  is_flipped = (flipped == mirrored).all((1, 2, 3))
  is_kept = (flipped == images).all((1, 2, 3))
  assert (is_flipped ^ is_kept).all()
  assert 16 < is_flipped.sum() < 48


def test_flipping_twice_with_one_key_changes_nothing(images, key):
  twice = augment.random_flip(key, augment.random_flip(key, images))
  np.testing.assert_array_equal(twice, images)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_cutout_is_a_clipped_square_and_nothing_else_changes(
  images, key, size
):
  cut = np.asarray(augment.cutout(key, np.float32(images), size))
  blank = (cut == 0).all(-1)
  np.testing.assert_array_equal(cut[~blank], images[~blank])
  for image in blank:
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert 0 < len(rows) <= size
    assert 0 < len(columns) <= size
    # One full rectangle: its area is that of its bounding box.
    assert image.sum() == len(rows) * len(columns)
    assert np.ptp(rows) + 1 == len(rows)
    assert np.ptp(columns) + 1 == len(columns)
  assert blank.sum((1, 2)).max() == size**2


@pytest.mark.parametrize("size", [1, 3])
def test_a_cutout_is_centred_on_any_pixel_equally_often(key, size):
  draws = 2000
  ones = jnp.ones((draws, HEIGHT, WIDTH, 1))
  blank = np.asarray(augment.cutout(key, ones, size) == 0)[..., 0]
  rows, columns = np.indices((HEIGHT, WIDTH))
  expected = np.mean(
    [
      (abs(rows - row) <= size // 2) & (abs(columns - column) <= size // 2)
      for row, column in np.ndindex(HEIGHT, WIDTH)
    ],
    axis=0,
  )
  deviation = np.sqrt(expected * (1 - expected) / draws)
  assert (abs(blank.mean(0) - expected) < 4 * deviation).all()


def test_images_of_a_batch_differ_in_their_randomness(key):
  same = jnp.broadcast_to(
    jnp.arange(HEIGHT * WIDTH, dtype=jnp.uint8).reshape(1, HEIGHT, WIDTH, 1),
    (BATCH, HEIGHT, WIDTH, 1),
  )
  for changed in (
    augment.random_crop(key, same, 2),
    augment.random_flip(key, same),
    augment.cutout(key, same + 1, 2),
  ):
    assert len(np.unique(np.asarray(changed), axis=0)) > 1


@pytest.mark.parametrize(
  "config",
  [
    augment.AugmentConfig(),
    augment.AugmentConfig(padding=1, flip=False, cutout=2),
  ],
)
def test_augmentation_keeps_the_shape_and_gives_floats(images, key, config):
  out = augment.augment(key, images, mean=MEAN, std=STD, config=config)
  assert out.shape == images.shape
  assert out.dtype == jnp.float32


def test_without_changes_augmentation_is_normalisation(images, key):
  config = augment.AugmentConfig(padding=0, flip=False, cutout=0)
  np.testing.assert_allclose(
    augment.augment(key, images, mean=MEAN, std=STD, config=config),
    augment.normalise(images, MEAN, STD),
    rtol=1e-6,
  )


def test_padding_is_black_and_a_cutout_has_the_mean_colour(key):
  white = np.full((BATCH, HEIGHT, WIDTH, CHANNELS), 255, np.uint8)
  config = augment.AugmentConfig(padding=3, flip=True, cutout=3)
  out = augment.augment(key, white, mean=MEAN, std=STD, config=config)
  colours = np.unique(np.asarray(out).reshape(-1, CHANNELS).round(3), axis=0)
  expected = [-MEAN / STD, np.zeros(CHANNELS), (1 - MEAN) / STD]
  np.testing.assert_allclose(colours, expected, atol=2e-3)


def test_the_same_key_gives_the_same_images_and_another_key_others(images):
  def run(seed):
    return augment.augment(
      jax.random.key(seed),
      images,
      mean=MEAN,
      std=STD,
      config=augment.AugmentConfig(),
    )

  np.testing.assert_array_equal(run(1), run(1))
  assert (run(1) != run(2)).any()


def test_an_epoch_sees_no_example_twice_and_leaves_out_the_rest(key):
  indices = np.asarray(augment.epoch_indices(key, 23, 5))
  assert indices.shape == (4, 5)
  assert indices.dtype == np.int32
  assert len(np.unique(indices)) == 20
  assert indices.min() >= 0
  assert indices.max() < 23


def test_epochs_differ_in_their_order_and_in_what_they_leave_out():
  epochs = [
    np.asarray(augment.epoch_indices(jax.random.key(seed), 23, 5)).ravel()
    for seed in range(20)
  ]
  assert len({tuple(epoch) for epoch in epochs}) == 20
  assert set(np.concatenate(epochs)) == set(range(23))
  assert len({frozenset(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("batch", [0, 24])
def test_a_batch_that_cannot_be_filled_is_refused(key, batch):
  with pytest.raises(UserError, match=f"batch={batch}`: allowed: 1 to 23"):
    augment.epoch_indices(key, 23, batch)


@hypothesis.given(st.integers(0, 200), st.integers(1, 50))
def test_evaluation_counts_every_example_once(n, batch):
  indices, mask = augment.eval_batches(n, batch)
  assert indices.shape == mask.shape == (-(-n // batch), batch)
  assert indices.dtype == np.int32
  assert mask.dtype == bool
  assert indices[mask].tolist() == list(range(n))
  assert ((indices >= 0) & (indices < max(n, 1))).all()
