"""scikit-learn's handwritten digits as a TFDS data set.

The 1,797 images of 8x8 pixels are those of UCI's "Optical Recognition of
Handwritten Digits", which scikit-learn includes: real data without a download.
"""

from collections.abc import Iterator

import numpy as np
from sklearn import datasets
import tensorflow_datasets as tfds

from nao_jax.data import pixels

CLASSES = 10
TEST_IMAGES_PER_CLASS = 36


class Digits(tfds.core.GeneratorBasedBuilder):
  """Digits with images uint8 [8, 8, 1] and labels 0 to 9.

  The source has no official split. `test` consists of 36 random images of each
  class (360), drawn with seed 0; `train` is the other 1,437 images, in the
  source's order. Intensities 0 to 16 become 0 to 255.
  """

  VERSION = tfds.core.Version("1.0.0")
  # There are no downloads, and so no checksums to look up next to this file;
  # the lookup would need importlib_resources, which TFDS 4.9.10 does not
  # declare.
  code_path = None

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(8, 8, 1)),
      "label": tfds.features.ClassLabel(num_classes=CLASSES),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # Nothing to download.
    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    is_test = _draw_test(digits.target)
    return {
      "train": self._generate_examples(
        images[~is_test], digits.target[~is_test]
      ),
      "test": self._generate_examples(images[is_test], digits.target[is_test]),
    }

  def _generate_examples(self, images, labels) -> Iterator:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
      yield index, {"image": pixels.encode(image), "label": int(label)}


def _draw_test(labels: np.ndarray) -> np.ndarray:
  # NumPy's policy freezes RandomState's stream, but not Generator's.
  order = np.random.RandomState(0).permutation(len(labels))
  is_test = np.zeros(len(labels), bool)
  for label in range(CLASSES):
    of_class = order[labels[order] == label]
    is_test[of_class[:TEST_IMAGES_PER_CLASS]] = True
  return is_test
