"""Makes a TFDS data set, stored as array_record, of a source of images."""

from collections.abc import Iterable, Iterator
import os
import pathlib
import re
import time

from absl import logging
from PIL import Image
import rich.progress
import tensorflow_datasets as tfds

from nao_jax.data import catalogue, pixels
from nao_jax.data.images import DIGITS
from nao_jax.data.sources import Part, Source
from nao_jax.errors import UserError
from nao_jax.runs import streams

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

  Images are stored as PNG, without loss, in the order of the source. An
  interrupted preparation leaves nothing that can be loaded.

  Args:
    source: the images.
    name: of the data set: small letters, digits and `_`.
    data_dir: the directory of data sets; is made if need be.
    keep_sizes: store image files as they are, of any size and colour mode, for
      a data set to stream.

  Returns:
    The directory of the new data set.

  Raises:
    UserError: the data set is there already, the name is not allowed, an image
      is damaged, or images differ in shape; or there are no files to keep.
  """
  _check_name(name)
  if keep_sizes and source.train.encoded is None:
    raise UserError(
      "--keep_sizes: allowed only with image files, and without --size"
    )
  existing = catalogue.find(name, data_dir)
  if existing:
    raise UserError(
      f"--name={name}: {existing} exists and is never overwritten; choose"
      " another name or remove it"
    )
  try:
    builder = _ImagesBuilder(source, name, data_dir, keep_sizes)
    catalogue.write(builder)
  except OSError as error:
    raise UserError(f"--data_dir={data_dir}: {error}") from error
  return pathlib.Path(builder.data_dir)


def _check_name(name: str) -> None:
  if not re.fullmatch("[a-z][a-z0-9_]*", name):
    raise UserError(
      f"--name={name}: allowed: small letters, digits and _, the first a letter"
    )
  if name == DIGITS:
    raise UserError(f"--name={name}: this data set prepares itself")


class _ImagesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The builder of any source; TFDS's own ad-hoc one imports TensorFlow."""

  VERSION = tfds.core.Version(VERSION)
  # No downloads, so no checksums to look for next to this file; to look, TFDS
  # 4.9.10 would need importlib_resources, which it does not declare.
  code_path = None

  def __init__(
    self,
    source: Source,
    name: str,
    data_dir: str | os.PathLike,
    keep_sizes: bool,
  ):
    self.name = name
    self._source = source
    self._shape = None if keep_sizes else source.train.image(0).shape
    super().__init__(
      data_dir=catalogue.root(data_dir), file_format="array_record"
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
    for index in _with_progress(indices, f"{self.name}: {split}"):
      image, label = self._image(part, index), int(part.labels[index])
      yield index, {"image": image, "label": label}

  def _image(self, part: Part, index: int) -> Image.Image | bytes:
    """What TFDS stores: Pillow's images as PNG, bytes as they are."""
    if self._shape is None:
      encoded = part.encoded(index)
      pixels.read(encoded, part.place(index))  # Complains if it is damaged.
      return encoded
    image = part.image(index)
    pixels.check_shape(image, self._shape, part.place(index))
    return pixels.encode(image)


def _with_progress(items: range, title: str) -> Iterable[int]:
  """`items`, with a bar on a terminal and a log line now and then elsewhere."""
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
