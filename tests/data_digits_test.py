import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from nao_jax.data import images

NO_TENSORFLOW = """
import sys
from nao_jax.data import images
images.load("digits", data_dir=sys.argv[1], validation_fraction=0.1, seed=0)
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def digits(data_dir):
  return images.load("digits", data_dir=data_dir, validation_fraction=0, seed=0)


def _multiset(pixels, labels):
  rows = np.column_stack([pixels.reshape(len(pixels), -1), labels])
  return rows[np.lexsort(rows.T)]


def test_every_digit_is_in_one_part_with_its_label(digits):
  source = datasets.load_digits()
  parts = (digits.train, digits.test)
  pixels = np.concatenate([part.images for part in parts])
  labels = np.concatenate([part.labels for part in parts])
  np.testing.assert_array_equal(
    _multiset(pixels, labels),
    _multiset(np.rint(source.data * 255 / 16), source.target),
  )


def test_the_test_part_has_36_of_each_class(digits):
  assert digits.test.images.shape == (360, 8, 8, 1)
  assert np.bincount(digits.test.labels).tolist() == [36] * 10


def test_intensities_use_the_whole_range(digits):
  assert digits.train.images.dtype == np.uint8
  assert digits.train.images.min() == 0
  assert digits.train.images.max() == 255


def test_the_split_is_the_documented_one(digits):
  order = np.random.RandomState(0).permutation(1797)
  source = datasets.load_digits()
  of_class_7 = order[source.target[order] == 7]
  np.testing.assert_array_equal(
    digits.test.images[digits.test.labels == 7][..., 0],
    np.rint(source.images[np.sort(of_class_7[:36])] * 255 / 16),
  )


def test_a_second_load_reads_what_the_first_prepared(data_dir, digits):
  (record,) = data_dir.glob("digits/*/*train*")
  written = record.stat().st_mtime_ns
  images.load("digits", data_dir=data_dir, validation_fraction=0, seed=0)
  assert record.stat().st_mtime_ns == written


def test_preparing_and_reading_never_imports_tensorflow(tmp_path):
  subprocess.run(
    [sys.executable, "-W", "error", "-c", NO_TENSORFLOW, tmp_path], check=True
  )
