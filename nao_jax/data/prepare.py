"""Converts a source of images to a TFDS data set, stored as array_record."""

from collections.abc import Iterable, Iterator
import contextlib
import os
import pathlib
import re
import time

from absl import logging
import numpy as np
import rich.progress
import tensorflow_datasets as tfds

from nao_jax.data import catalogue, pixels
from nao_jax.data.images import DIGITS
from nao_jax.data.sources import Part, Source
from nao_jax.errors import UserError, some
from nao_jax.runs import paths, streams

VERSION = "1.0.0"
SECONDS_BETWEEN_LINES = 10


def prepare(
  source: Source,
  *,
  name: str,
  data_dir: str | os.PathLike,
  keep_sizes: bool = False,
) -> pathlib.Path:
  """Stores `source` as the data set `name` in `data_dir`.

  Images are stored as PNG, without loss, upright and in the order of the
  source; grey images become colour if any image is in colour. An interrupted
  preparation leaves nothing that can be loaded.

  Args:
    source: the images.
    name: name of the data set: small letters, digits and `_`.
    data_dir: the directory of data sets; created if need be.
    keep_sizes: whether to store image files as they are, of any size and colour
      mode, for a data set to stream.

  Returns:
    The directory of the new data set.

  Raises:
    UserError: the data set exists already, the name is not allowed, an image is
      damaged, or images differ in shape; or there are no files to keep.
  """
  _check_name(name)
  if keep_sizes and source.train.encoded is None:
    raise UserError(
      "`keep_sizes=True`: allowed only with image files, and without `size`"
    )
  existing = catalogue.find(name, data_dir)
  if existing:
    raise UserError(
      f"`name={name}`: {existing} exists and is never overwritten; choose"
      " another name or remove it"
    )
  try:
    builder = _ImagesBuilder(source, name, data_dir, keep_sizes)
    catalogue.write(builder)
  except OSError as error:
    raise UserError(f"`data_dir={data_dir}`: {error}") from error
  return pathlib.Path(builder.data_dir)


def _check_name(name: str) -> None:
  if not re.fullmatch("[a-z][a-z0-9_]*", name):
    raise UserError(
      f"`name={name}`: allowed: small letters, digits and _, the first a letter"
    )
  if name == DIGITS:
    raise UserError(f"`name={name}`: this data set prepares itself")


class _ImagesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder for any source; TFDS's own ad-hoc builder imports TensorFlow."""

  VERSION = tfds.core.Version(VERSION)
  # There are no downloads, and so no checksums to look up next to this file;
  # the lookup would need importlib_resources, which TFDS 4.9.10 does not
  # declare.
  code_path = None

  def __init__(
    self,
    source: Source,
    name: str,
    data_dir: str | os.PathLike,
    keep_sizes: bool,
  ):
    self.name = name
    self._source, self._shape = source, None
    if not keep_sizes:
      self._shape = _shape(source)
    super().__init__(
      data_dir=paths.expanded(data_dir), file_format="array_record"
    )

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=self._shape or (None,) * 3),
      "label": tfds.features.ClassLabel(names=self._source.class_names),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"Images from {self._source.origin}.",
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # Nothing to download.
    return {
      "train": self._generate_examples(self._source.train, "train"),
      "test": self._generate_examples(self._source.test, "test"),
    }

  def _generate_examples(self, part: Part, split: str) -> Iterator:
    indices = range(len(part.labels))
    faults, transparent = _Faults(part), 0
    for index in _with_progress(indices, f"{self.name}: {split}"):
      with faults.collected(index):
        read = self._read(part, index)
        transparent += part.look(index).transparent
      if faults.found:
        continue  # Nothing will be stored; the rest is looked at alone.
      image = self._stored(read, part.place(index))
      yield index, {"image": image, "label": int(part.labels[index])}
    faults.complain()
    if transparent:
      logging.warning(
        "%s: %s: %d of %d images have transparency, which is left out",
        self.name,
        split,
        transparent,
        len(indices),
      )

  def _read(self, part: Part, index: int) -> np.ndarray | bytes:
    """Returns pixels, or a file's content to keep; UserError if damaged."""
    if self._shape is not None:
      return part.image(index)
    encoded = part.encoded(index)
    pixels.read(encoded, part.place(index))
    return encoded

  def _stored(self, read: np.ndarray | bytes, place: str):
    """Returns an image as TFDS stores it: a Pillow image, or a file's bytes."""
    if self._shape is None:
      return read
    image = pixels.with_channels(read, self._shape[-1])
    pixels.check_shape(image, self._shape, place)
    return pixels.encode(image)


def _shape(source: Source) -> tuple[int, int, int]:
  """Returns (H, W, C) of the data set: grey if all images are, else colour."""
  parts = (source.train, source.test)
  grey = sum(
    sum(channels == pixels.GREY for channels in _channels(part))
    for part in parts
  )
  total = sum(len(part.labels) for part in parts)
  size = _first_size(source.train)
  if grey == total:
    return *size, pixels.GREY
  if grey:
    logging.warning(
      "%s: %d of %d images are grey; they become colour, as the others are",
      source.origin,
      grey,
      total,
    )
  return *size, pixels.COLOUR


def _first_size(part: Part) -> tuple[int, int]:
  """Returns height and width of the first image that can be read."""
  faults = _Faults(part)
  for index in range(len(part.labels)):
    with faults.collected(index):
      return part.image(index).shape[:2]
  raise faults.error()


def _channels(part: Part) -> Iterator[int]:
  """Yields each image's channels; then reports all images that fail."""
  faults = _Faults(part)
  for index in range(len(part.labels)):
    with faults.collected(index):
      yield part.look(index).channels
  faults.complain()


class _Faults:
  """Collects the unreadable images of a part, to report them together.

  Attributes:
    found: whether there is an unreadable image.
  """

  def __init__(self, part: Part):
    self._part, self._errors, self._places = part, [], []

  @property
  def found(self) -> bool:
    return bool(self._errors)

  @contextlib.contextmanager
  def collected(self, index: int) -> Iterator[None]:
    """Catches a UserError about an image, to raise it later."""
    try:
      yield
    except UserError as error:
      self._errors.append(error)
      self._places.append(self._part.place(index))

  def complain(self) -> None:
    """Raises UserError if there were errors."""
    if self.found:
      raise self.error()

  def error(self) -> UserError:
    """Returns the first error, with the other images that have one."""
    first, *others = self._errors
    if not others:
      return first
    return UserError(
      f"{first}; {len(self._errors)} of {len(self._part.labels)} images cannot"
      f" be read: {some(self._places)}"
    )


def _with_progress(items: range, title: str) -> Iterable[int]:
  """Iterates with a progress bar on a terminal, and log lines elsewhere."""
  console = streams.console(errors=True)
  if not console.is_terminal:
    return _with_lines(items, title)
  return rich.progress.track(items, title, console=console)


def _with_lines(items: range, title: str) -> Iterator[int]:
  last = time.monotonic()
  for done, item in enumerate(items):
    if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
      logging.info("%s: %d of %d images", title, done, len(items))
      last = time.monotonic()
    yield item
  logging.info("%s: %d images", title, len(items))
