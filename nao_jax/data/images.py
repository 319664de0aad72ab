"""Image classification data: a prepared TFDS data set in, arrays out.

Shapes: N images, each of H x W pixels and C channels.
"""

import dataclasses
import os
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from nao_jax.data import catalogue, digest, labels, pixels
from nao_jax.data.digest import Digest
from nao_jax.errors import UserError
from nao_jax.settings import LAST_SEED

DIGITS = "digits"


class Examples(NamedTuple):
  """Images and what they show.

  Attributes:
    images: uint8 [N, H, W, C].
    labels: int32 [N].
  """

  images: np.ndarray
  labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class ImageData:
  """An image classification data set in memory.

  Attributes:
    name: what messages call it.
    classes: number of classes; labels are 0 to classes - 1.
    train: the examples to train with.
    validation: examples held out of the training part, to choose by.
    test: the examples to report on, used for nothing else.
    mean: float32 [C], of the training images; full intensity is 1. None where
      each image is standardised by itself.
    std: float32 [C], the same for the standard deviation; 1 where a channel
      is constant. None if and only if the mean is.
    digest: of the contents, by which `load` tells data sets apart; empty for
      data that a program made up.
  """

  name: str
  classes: int
  train: Examples
  validation: Examples
  test: Examples
  mean: np.ndarray | None
  std: np.ndarray | None
  digest: Digest = Digest()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.train.images.shape[1:]

  @property
  def train_examples(self) -> int:
    """How many images there are to train with."""
    return len(self.train.labels)


def load(
  name: str,
  *,
  data_dir: str | os.PathLike,
  validation_fraction: float,
  seed: int,
  test_split: str = "test",
) -> ImageData:
  """Reads a data set into memory and splits off the validation part.

  Args:
    name: `digits`, which prepares itself on first use, or a TFDS image
      classification data set that is already in `data_dir`, in a file format
      with random access (array_record), with a split `train`.
    data_dir: the directory of data sets.
    validation_fraction: share of the training part to hold out, from 0 to
      below 1.
    seed: of the random split; the same seed gives the same split everywhere.
    test_split: the split that is the test part; ImageNet, say, has labels for
      its `validation` only.

  Raises:
    UserError: the data set is not there, or is not one of equal-sized images
      with one label each; an argument is out of range.
  """
  _check_arguments(validation_fraction, seed)
  builder = open_builder(name, data_dir, test_split)
  everything, test = _of_one_kind(
    name, _read(builder, "train"), _read(builder, test_split)
  )
  train, validation = _split(everything, validation_fraction, seed)
  names = builder.info.features["label"].names
  place = f"{builder.data_dir}: training images"
  empty = labels.check_classes(train.labels, names, place)
  labels.warn_of_empty(name, "training", empty, names)
  mean, std = _moments(train.images)
  logging.info(
    "%s: %d training, %d validation and %d test images of %s, %d classes",
    name,
    *(len(part.labels) for part in (train, validation, test)),
    "x".join(map(str, train.images.shape[1:])),
    classes(builder),
  )
  return ImageData(
    name=name,
    classes=classes(builder),
    train=train,
    validation=validation,
    test=test,
    mean=mean,
    std=std,
    digest=Digest(
      *(
        digest.of_arrays(classes(builder), *part) for part in (everything, test)
      )
    ),
  )


def _check_arguments(validation_fraction: float, seed: int) -> None:
  if not 0 <= validation_fraction < 1:
    raise UserError(
      f"`validation_fraction={validation_fraction}`: allowed: from 0 to below 1"
    )
  check_seed(seed)


def check_seed(seed: int) -> None:
  """Raises UserError if the seed is out of range."""
  if not 0 <= seed <= LAST_SEED:
    raise UserError(f"`seed={seed}`: allowed: 0 to {LAST_SEED}")


def _prepare_digits(data_dir: str | os.PathLike) -> None:
  if catalogue.find(DIGITS, data_dir):
    return
  # Only this data set needs scikit-learn, which takes a second to import.
  from nao_jax.data import digits

  logging.info("preparing %s in %s", DIGITS, data_dir)
  try:
    builder = digits.Digits(
      data_dir=catalogue.root(data_dir), file_format="array_record"
    )
    catalogue.write(builder)
  except OSError as error:
    # Several searches may start at once: all prepare, one renames first.
    if not catalogue.find(DIGITS, data_dir):
      raise UserError(f"--data_dir={data_dir}: {error}") from error


def open_builder(
  name: str, data_dir: str | os.PathLike, test_split: str
) -> tfds.core.DatasetBuilder:
  """A data set that is on disk; `digits` prepares itself.

  Args:
    name: of the data set.
    data_dir: the directory of data sets.
    test_split: the split that is the test part, besides `train`.

  Raises:
    UserError: the data set is not there, or not one of images with a label.
  """
  if name == DIGITS:
    _prepare_digits(data_dir)
  directory = catalogue.find(name, data_dir)
  if directory is None:
    there = ", ".join(sorted({DIGITS, *catalogue.names(data_dir)}))
    raise UserError(
      f"--dataset={name}: not in --data_dir={data_dir} (available: {there});"
      " prepare it with `python -m nao_jax.experiments.prepare_images"
      f" --npz=FILE --name={name} --data_dir={data_dir}` or, where TensorFlow"
      f" is installed, `tfds build {name} --data_dir={data_dir}"
      " --file_format=array_record`"
    )
  catalogue.check_features(directory)
  try:
    builder = tfds.builder_from_directory(directory)
  except Exception as error:  # Damaged metadata raise nearly anything.
    raise _damaged(directory, error) from error
  _check_kind(builder, directory, test_split)
  return builder


def _damaged(directory, error: Exception) -> UserError:
  return UserError(
    f"{directory}: damaged ({error}); remove it and prepare it again"
  )


def _check_kind(
  builder: tfds.core.DatasetBuilder, directory, test_split: str
) -> None:
  features = dict(builder.info.features or {})
  if not isinstance(features.get("image"), tfds.features.Image) or not (
    isinstance(features.get("label"), tfds.features.ClassLabel)
  ):
    raise UserError(
      f"{directory}: features are {', '.join(features)}; an image"
      " classification data set has an `image` and a class `label`"
    )
  if (kind := features["image"].np_dtype) != np.uint8:
    raise UserError(
      f"{directory}: its images are {kind}; allowed: uint8, so convert them,"
      " which takes a choice: which values become black and white"
    )
  if features["image"].shape[-1] == 4:
    logging.warning(
      "%s: its images have 4 channels; transparency is left out", directory
    )
  if (found := features["label"].num_classes) < 2:
    raise UserError(
      f"{directory}: {found} class only; a classification needs 2 or more"
      " classes"
    )
  for split in ("train", test_split):
    if split not in builder.info.splits:
      raise UserError(
        f"{directory}: has no split `{split}`, only"
        f" {', '.join(builder.info.splits)}; choose by --test_split, or by"
        " --split to evaluate"
      )
    if not builder.info.splits[split].num_examples:
      raise UserError(f"{directory}: split `{split}` is empty")
  if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f"{directory}: stored as {builder.info.file_format.value}; allowed:"
      " array_record"
    )


def classes(builder: tfds.core.DatasetBuilder) -> int:
  """The number of classes of a data set."""
  return builder.info.features["label"].num_classes


class Record(NamedTuple):
  """An example as it is stored.

  Attributes:
    encoded: the image file's contents.
    label: from 0 to the number of classes - 1.
    place: what messages call the example.
  """

  encoded: bytes
  label: int
  place: str


class Records:
  """The examples of a split by their index; can be pickled."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    # TFDS would decode with OpenCV where there is one, whose JPEGs differ from
    # Pillow's, and warns where there is none.
    try:
      self._source = builder.as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
      )
      self._files = [*map(os.fspath, builder.info.splits[split].filepaths)]
    except Exception as error:  # Damaged metadata raise nearly anything.
      raise _damaged(builder.data_dir, error) from error
    self._directory, self._split = str(builder.data_dir), split
    self._classes = classes(builder)

  def __len__(self) -> int:
    return len(self._source)

  @property
  def digest(self) -> str:
    """Of the files, which are read to their ends; see `digest.of_files`."""
    return digest.of_files(self._classes, self._files)

  def __getitem__(self, index: int) -> Record:
    """Raises UserError if the file is damaged or the label out of range."""
    place = f"{self._directory}: {self._split} image {index}"
    try:
      example = self._source[index]
    except Exception as error:  # As above.
      raise _damaged(self._directory, error) from error
    label = int(example["label"])
    labels.check_label(label, self._classes, place)
    return Record(example["image"], label, place)


class _Read(NamedTuple):
  """A split in memory.

  Attributes:
    examples: in stored order; grey images in colour if any is.
    grey: how many of them are stored as grey.
  """

  examples: Examples
  grey: int


def _read(builder: tfds.core.DatasetBuilder, split: str) -> _Read:
  """All examples of a split."""
  records = Records(builder, split)
  numbers, grey = np.empty(len(records), np.int32), 0
  for index in range(len(records)):
    encoded, label, place = records[index]
    image = pixels.decode(encoded, place)
    grey += image.shape[-1] == pixels.GREY
    if index == 0:
      images = np.empty((len(numbers), *image.shape), np.uint8)
    images = pixels.with_channels(images, image.shape[-1])
    image = pixels.with_channels(image, images.shape[-1])
    pixels.check_shape(image, images.shape[1:], place)
    images[index], numbers[index] = image, label
  return _Read(Examples(images, numbers), grey)


def _of_one_kind(
  name: str, train: _Read, test: _Read
) -> tuple[Examples, Examples]:
  """Training and test part, in colour if an image of either is.

  Raises:
    UserError: their images differ in size.
  """
  grey, total = train.grey + test.grey, len(train.examples.labels)
  total += len(test.examples.labels)
  channels = pixels.GREY if grey == total else pixels.COLOUR
  if 0 < grey < total:
    logging.warning(
      "%s: %d of %d images are grey; they become colour, as the others are",
      name,
      grey,
      total,
    )
  parts = (
    part._replace(images=pixels.with_channels(part.images, channels))
    for part in (train.examples, test.examples)
  )
  train, test = parts
  shape, place = train.images.shape[1:], f"{name}: test image 0"
  pixels.check_shape(test.images[0], shape, place)
  return train, test


def _split(
  examples: Examples, fraction: float, seed: int
) -> tuple[Examples, Examples]:
  """Training and validation part, each in stored order."""
  held_out = round(fraction * len(examples.labels))
  if fraction and not held_out:
    raise UserError(
      f"--validation_fraction={fraction}: holds out none of"
      f" {len(examples.labels)} images; give more, or 0"
    )
  if held_out == len(examples.labels):
    raise UserError(
      f"--validation_fraction={fraction}: leaves none of"
      f" {held_out} images to train with"
    )
  # RandomState's stream is frozen by NumPy's policy; Generator's is not.
  order = np.random.RandomState(seed).permutation(len(examples.labels))
  parts = np.sort(order[held_out:]), np.sort(order[:held_out])
  train, validation = (
    Examples(examples.images[part], examples.labels[part]) for part in parts
  )
  return train, validation


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each channel, from its histogram.

  A histogram is exact, does not depend on the order of summation and needs no
  float copy of the images.
  """
  counts = np.zeros((images.shape[-1], 256), np.int64)
  for chunk in np.array_split(images, 1 + len(images) // 4096):
    for channel, count in enumerate(counts):
      count += np.bincount(chunk[..., channel].ravel(), minlength=256)
  levels = np.arange(256) / 255
  weights = counts / counts.sum(axis=1, keepdims=True)
  mean = weights @ levels
  std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
  return np.float32(mean), np.float32(np.where(std > 0, std, 1))
