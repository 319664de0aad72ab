"""Sources of images for a new data set: an npz file or a folder.

Shapes: N images, each of H x W pixels and C channels.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib

from absl import logging
import numpy as np

from nao_jax.data import labels, pixels
from nao_jax.data.archives import Archive, reading
from nao_jax.data.pixels import Looks
from nao_jax.errors import UserError, some
from nao_jax.runs import paths

_KINDS = {"u": "unsigned", "i": "integer", "U": "string"}
SUFFIXES = (".png", ".jpg", ".jpeg")

# Files that systems create in any folder, beside those that begin with a dot.
_OF_SYSTEMS = (
  *("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini"),
  *("$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir"),
)


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


def from_npz(path: str | os.PathLike) -> Source:
  """Reads a source from a NumPy archive, in one of two forms.

  Pixels: `train_images`, uint8 [N, H, W] or [N, H, W, 1 or 3], and
  `train_labels`, integers [N]. Or files: `train_bytes`, uint8, all encoded
  images (JPEG, PNG) in a row, `train_offsets`, integers [N + 1], image i being
  `bytes[offsets[i]:offsets[i + 1]]`, and `train_labels`. The same for `test`.
  `class_names`, strings, is optional. Pickled objects are not read.

  Raises:
    UserError: the archive or an array is missing, an array does not have this
      form, or a label is out of range.
  """
  with reading(path, "npz") as file:
    return _read_archive(_Arrays(path, "npz", file))


class _Arrays(Archive):
  """An archive that checks the form of its arrays."""

  def get(self, name: str, kinds: str, *ranks: int) -> np.ndarray:
    """Returns an array; requires one of the given dtype kinds and ranks."""
    if name not in self.names:
      raise UserError(
        f"{self.path}: no array {name}, only {', '.join(self.names)};"
        " allowed: {train,test}_{images,labels} or"
        " {train,test}_{bytes,offsets,labels}"
      )
    array = self[name]
    if array.dtype.kind not in kinds or array.ndim not in ranks:
      raise UserError(
        f"{self.path}: {name} is {array.dtype} {list(array.shape)}; allowed:"
        f" {' or '.join(_KINDS[kind] for kind in kinds)},"
        f" {' or '.join(map(str, ranks))} dimensions"
      )
    return array


def _read_archive(arrays: _Arrays) -> Source:
  path = arrays.path
  read = _encoded_part if "train_bytes" in arrays.names else _pixel_part
  train, test = read(arrays, "train"), read(arrays, "test")
  named = "class_names" in arrays.names
  if named:
    class_names = tuple(map(str, arrays.get("class_names", "U", 1)))
  else:
    # More classes than images are a mistake, and counting that far could fail.
    place = f"{path}: train_labels"
    labels.check_labels(train.labels, len(train.labels), place)
    class_names = tuple(map(str, range(int(train.labels.max()) + 1)))
  _check_names(class_names, f"{path}: class_names")
  for split, part in (("train", train), ("test", test)):
    place = f"{path}: {split}_labels"
    labels.check_labels(part.labels, len(class_names), place)
  source = Source(str(path), class_names, _signed(train), _signed(test))
  _check_classes(source, f"{path}: train_labels", named)
  return source


def _signed(part: Part) -> Part:
  """Returns the part with labels as int64, after they were checked."""
  return dataclasses.replace(part, labels=part.labels.astype(np.int64))


def _check_classes(source: Source, place: str, named: bool) -> None:
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


def _pixel_part(arrays: _Arrays, split: str) -> Part:
  name = f"{split}_images"
  images = arrays.get(name, "u", 3, 4)
  if images.dtype != np.uint8:
    raise UserError(f"{arrays.path}: {name} is {images.dtype}; allowed: uint8")
  images = images[..., None] if images.ndim == 3 else images
  if images.shape[-1] not in (1, 3) or 0 in images.shape:
    raise UserError(
      f"{arrays.path}: {name} is {list(images.shape)}; allowed:"
      " [N, H, W] or [N, H, W, 1 or 3], none of them 0"
    )
  return Part(
    labels=_labels(arrays, split, len(images)),
    place=lambda index: f"{arrays.path}: {name}[{index}]",
    look=lambda index: Looks(images.shape[-1], False),
    image=lambda index: images[index],
  )


def _encoded_part(arrays: _Arrays, split: str) -> Part:
  name = f"{split}_bytes"
  files = arrays.get(name, "u", 1)
  if files.dtype != np.uint8:
    raise UserError(f"{arrays.path}: {name} is {files.dtype}; allowed: uint8")
  offsets = arrays.get(f"{split}_offsets", "ui", 1).astype(np.int64)
  bounds = np.concatenate([[0], offsets, [len(files)]])
  (wrong,) = np.nonzero(np.diff(bounds) < 0)
  if wrong.size:
    raise UserError(
      f"{arrays.path}: {split}_offsets[{min(wrong[0], len(offsets) - 1)}]:"
      f" allowed: ascending, from 0 to the {len(files)} of {name}"
    )

  def place(index: int) -> str:
    return f"{arrays.path}: {split} image {index}"

  def encoded(index: int) -> bytes:
    return files[offsets[index] : offsets[index + 1]].tobytes()

  def look(index: int) -> Looks:
    return pixels.look(encoded(index), place(index))

  def image(index: int) -> np.ndarray:
    return pixels.decode(encoded(index), place(index))

  found = _labels(arrays, split, len(offsets) - 1)
  return Part(found, place, look, image, encoded)


def _labels(arrays: _Arrays, split: str, images: int) -> np.ndarray:
  """Returns labels unconverted; as int64, the largest would become negative."""
  name = f"{split}_labels"
  found = arrays.get(name, "ui", 1)
  if len(found) != images or not images > 0:
    raise UserError(
      f"{arrays.path}: {name} has {len(found)} labels for {images} images;"
      " allowed: one for each, at least one"
    )
  return found


def from_folder(path: str | os.PathLike, *, size: int | None = None) -> Source:
  """Reads a source from image files: DIR/{train,test}/CLASS/*.png (or .jpg).

  Classes are numbered in the order of their names. Hidden files and system
  files are ignored; other entries beside the folders are ignored with a
  warning.

  Args:
    path: the folder DIR.
    size: height and width to resize every image to, in pixels.

  Raises:
    UserError: a folder is missing or empty, or holds something else; or the two
      parts have different classes, or only one class.
  """
  root = paths.expanded(path)
  if size is not None and size < 1:
    raise UserError(f"`size={size}`: allowed: 1 or more pixels")
  parts = {split: _class_folders(root / split) for split in ("train", "test")}
  beside = [e.name for e in _entries(root) if e.name not in parts]
  _warn_of_beside(root, beside, "is not train or test")
  class_names = parts["train"]
  _check_names(class_names, f"{root / 'train'}: class folders")
  if {*class_names} != {*parts["test"]}:
    raise UserError(f"{root}: {_odd_classes(class_names, parts['test'])}")
  source = Source(
    str(path),
    class_names,
    *(_folder_part(root / split, class_names, size) for split in parts),
  )
  _check_classes(source, str(root / "train"), named=True)
  return source


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns a folder's entries by name, without hidden and system files."""
  try:
    return sorted(
      entry
      for entry in folder.iterdir()
      if not entry.name.startswith(".") and entry.name not in _OF_SYSTEMS
    )
  except OSError as error:
    raise UserError(
      f"{folder}: {error.strerror}; expected folder/train/CLASS/*.png and"
      " folder/test/CLASS/*.png"
    ) from error


def _class_folders(folder: pathlib.Path) -> tuple[str, ...]:
  entries = _entries(folder)
  names = [entry.name for entry in entries if entry.is_dir()]
  beside = [entry.name for entry in entries if not entry.is_dir()]
  if not names:
    raise UserError(
      f"{folder}: no class folders{f', only {some(beside)}' if beside else ''}"
      "; expected folder/train/CLASS/*.png and folder/test/CLASS/*.png"
    )
  _warn_of_beside(folder, beside, "lies beside the class folders")
  return tuple(names)


def _warn_of_beside(folder, names: Sequence[str], why: str) -> None:
  if names:
    logging.warning(
      "%s: left out what %s (%d): %s", folder, why, len(names), some(names)
    )


def _odd_classes(train: Sequence[str], test: Sequence[str]) -> str:
  """Returns a message about the classes that only one part has."""
  only = {
    "train": sorted({*train} - {*test}),
    "test": sorted({*test} - {*train}),
  }
  found = " and ".join(
    f"{split} alone has {len(names)} ({some(names)})"
    for split, names in only.items()
    if names
  )
  return f"train and test have to hold the same class folders; {found}"


def _folder_part(
  folder: pathlib.Path, class_names: Sequence[str], size: int | None
) -> Part:
  files = [_entries(folder / name) for name in class_names]
  flat = [file for of_class in files for file in of_class]
  _check_files(folder, files, flat, class_names)

  def look(index: int) -> Looks:
    return pixels.look(_contents(flat[index]), str(flat[index]))

  def image(index: int) -> np.ndarray:
    return pixels.decode(_contents(flat[index]), str(flat[index]), size=size)

  return Part(
    labels=np.repeat(np.arange(len(files)), [len(f) for f in files]),
    place=lambda index: str(flat[index]),
    look=look,
    image=image,
    encoded=(lambda index: _contents(flat[index])) if size is None else None,
  )


def _check_files(folder, files, flat, class_names: Sequence[str]) -> None:
  """Requires that class folders hold only image files."""

  def show(entries):
    return some(entry.relative_to(folder) for entry in entries)

  if folders := [entry for entry in flat if entry.is_dir()]:
    raise UserError(
      f"{folders[0]}: a folder in a class folder (in all {len(folders)}:"
      f" {show(folders)}); allowed: image files alone, so move theirs up, or"
      " the folders out"
    )
  if odd := [entry for entry in flat if entry.suffix.lower() not in SUFFIXES]:
    raise UserError(
      f"{odd[0]}: not an image; allowed: {', '.join(SUFFIXES)}, so convert, or"
      f" take out, {len(odd)} of {len(flat)} files: {show(odd)}"
    )
  empty = [n for n, names in zip(class_names, files, strict=True) if not names]
  if empty:
    raise UserError(
      f"{folder / empty[0]}: no images in this class folder (in all"
      f" {len(empty)}: {some(empty)}); add some, or remove it from train and"
      " test"
    )


def _contents(file: pathlib.Path) -> bytes:
  try:
    return file.read_bytes()
  except OSError as error:
    raise UserError(f"{file}: {error.strerror}") from error


def _check_names(names: Sequence[str], place: str) -> None:
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
