"""Sources of images for a new data set: an npz file or a folder.

Shapes: N images, each of H x W pixels and C channels.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib

from absl import logging
import numpy as np

from nao_jax.data import labels
from nao_jax.data.archives import Archive, reading
from nao_jax.data.parts import (
  Part,
  Source,
  check_classes,
  check_names,
  check_size,
  divided,
  encoded_part,
  files_part,
)
from nao_jax.data.pixels import Looks
from nao_jax.data.split import Split
from nao_jax.errors import UserError, some
from nao_jax.runs import paths

_KINDS = {"u": "unsigned", "i": "integer", "U": "string"}
SUFFIXES = (".png", ".jpg", ".jpeg")

# Files that systems create in any folder, beside those that begin with a dot.
_OF_SYSTEMS = (
  *("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini"),
  *("$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir"),
)


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
  check_names(class_names, f"{path}: class_names")
  for split, part in (("train", train), ("test", test)):
    place = f"{path}: {split}_labels"
    labels.check_labels(part.labels, len(class_names), place)
  source = Source(str(path), class_names, _signed(train), _signed(test))
  check_classes(source, f"{path}: train_labels", named)
  return source


def _signed(part: Part) -> Part:
  """Returns the part with labels as int64, after they were checked."""
  return dataclasses.replace(part, labels=part.labels.astype(np.int64))


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

  return encoded_part(encoded, place, _labels(arrays, split, len(offsets) - 1))


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
  check_size(size)
  parts = {split: _class_folders(root / split) for split in ("train", "test")}
  beside = [e.name for e in _entries(root) if e.name not in parts]
  _warn_of_beside(root, beside, "is not train or test")
  class_names = parts["train"]
  check_names(class_names, f"{root / 'train'}: class folders")
  if {*class_names} != {*parts["test"]}:
    raise UserError(f"{root}: {_odd_classes(class_names, parts['test'])}")
  source = Source(
    str(path),
    class_names,
    *(_folder_part(root / split, class_names, size) for split in parts),
  )
  check_classes(source, str(root / "train"), named=True)
  return source


def from_classes(
  path: str | os.PathLike, split: Split, *, size: int | None = None
) -> Source:
  """Reads a source from image files without parts: DIR/CLASS/*.png (or .jpg).

  Args:
    path: the folder DIR.
    split: how images are divided into parts.
    size: see `from_folder`.

  Raises:
    UserError: see `from_folder` and `Split.divide`.
  """
  root = paths.expanded(path)
  check_size(size)
  class_names = _class_folders(root)
  check_names(class_names, f"{root}: class folders")
  if {*class_names} <= {"train", "test"}:
    raise UserError(
      f"{root}: has folders train and test, so it is divided already; leave "
      f"out `test_fraction={split.fraction}`"
    )
  whole = _folder_part(root, class_names, size)
  return divided(str(path), class_names, whole, split)


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
  labels = np.repeat(np.arange(len(files)), [len(f) for f in files])
  return files_part(flat, labels, size)


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
