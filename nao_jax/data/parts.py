"""Labelled images from which to make a data set, and checks of them.

Shapes: N images, each of H x W pixels and C channels.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from nao_jax.data import labels, pixels
from nao_jax.data.pixels import Looks
from nao_jax.data.split import Split
from nao_jax.errors import UserError, some


@dataclasses.dataclass(frozen=True)
class Part:
  """The training or the test part of a source, read one image at a time.

  Attributes:
    labels: int64 [N].
    place: a function from an index to the name of the image in messages.
    look: a function from an index to the header's information, without decoding
      pixels; raises UserError if the image cannot be read.
    image: a function from an index to uint8 [H, W, C]; raises UserError if the
      image is damaged.
    encoded: a function from an index to the content of the image file; None if
      there are only pixels.
  """

  labels: np.ndarray
  place: Callable[[int], str]
  look: Callable[[int], Looks]
  image: Callable[[int], np.ndarray]
  encoded: Callable[[int], bytes] | None = None

  def select(self, rows: np.ndarray) -> "Part":
    """Returns the images with these indices, int [M], in their order."""

    def of(
      function: Callable[[int], Any] | None,
    ) -> Callable[[int], Any] | None:
      return function and (lambda index: function(int(rows[index])))

    return Part(
      self.labels[rows],
      *(of(x) for x in (self.place, self.look, self.image, self.encoded)),
    )


@dataclasses.dataclass(frozen=True)
class Source:
  """Labelled images from which to make a data set.

  Attributes:
    origin: the path of the file or folder.
    class_names: the names of the labels 0, 1, ...
    train: the training part.
    test: the test part.
  """

  origin: str
  class_names: tuple[str, ...]
  train: Part
  test: Part


def files_part(
  files: Sequence[pathlib.Path], labels: np.ndarray, size: int | None = None
) -> Part:
  """Returns a part of image files, with labels int64 [N].

  Args:
    files: the files.
    labels: their labels.
    size: height and width to resize every image to, in pixels.
  """
  return encoded_part(
    lambda index: _contents(files[index]),
    lambda index: str(files[index]),
    labels,
    size,
  )


def encoded_part(
  encoded: Callable[[int], bytes],
  place: Callable[[int], str],
  labels: np.ndarray,
  size: int | None = None,
) -> Part:
  """Returns a part of the contents of image files; see `Part`, `files_part`."""

  def look(index: int) -> Looks:
    return pixels.look(encoded(index), place(index))

  def image(index: int) -> np.ndarray:
    return pixels.decode(encoded(index), place(index), size=size)

  return Part(labels, place, look, image, encoded if size is None else None)


def divided(
  origin: str, class_names: Sequence[str], whole: Part, split: Split
) -> Source:
  """Divides images without parts into a source.

  Raises:
    UserError: see `Split.divide`; or there is one class only.
  """
  labels.check_classes(whole.labels, class_names, origin)
  rows = split.divide(whole.labels, class_names, origin)
  return checked(
    Source(origin, tuple(class_names), *(whole.select(x) for x in rows))
  )


def checked(source: Source) -> Source:
  """Returns a source with named classes, after it is checked.

  Raises:
    UserError: a name is not allowed, or there is one class only.
  """
  check_names(source.class_names, f"{source.origin}: classes")
  check_classes(source, f"{source.origin}: labels", named=True)
  return source


def check_classes(source: Source, place: str, named: bool) -> None:
  """Requires that each class has an image or a name; warns of empty classes.

  Args:
    source: the source, with labels in range.
    place: the name of the training part's labels in messages.
    named: whether the user named the classes.

  Raises:
    UserError: there is only one class, or a class without a name has no image.
  """
  names, found = source.class_names, source.train.labels
  empty = labels.check_classes(found, names, place)
  if empty and not named:
    raise UserError(
      f"{place}: no image of class {some(empty)}, though labels go from"
      f" {found.min()} to {found.max()}; number the classes from 0 without"
      " gaps, or give class_names if some are to stay without images"
    )
  labels.warn_of_empty(source.origin, "training", empty, names)
  tested = {*source.test.labels.tolist()}
  untested = (n for number, n in enumerate(names) if number not in tested)
  labels.warn_of_empty(source.origin, "test", untested, names)


def _contents(file: pathlib.Path) -> bytes:
  try:
    return file.read_bytes()
  except OSError as error:
    raise UserError(f"{file}: {error.strerror}") from error


def check_names(names: Sequence[str], place: str) -> None:
  """Raises UserError if a class has no name, or one that TFDS does not keep."""
  # TFDS stores class names one per line and strips white space around them.
  for name in names:
    if not name or name != " ".join(name.split()):
      raise UserError(
        f"{place}: {name!r}: a class name is not empty and has no spaces"
        " around it or line breaks in it"
      )
  for name, count in collections.Counter(names).items():
    if count > 1:
      raise UserError(f"{place}: {name!r} occurs {count} times")


def check_size(size: int | None) -> None:
  """Raises UserError for a height and width that no image can have."""
  if size is not None and size < 1:
    raise UserError(f"`size={size}`: allowed: 1 or more pixels")
