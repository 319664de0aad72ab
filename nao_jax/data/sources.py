"""Where images come from before they are a data set: an npz or a folder.

Shapes: N images, each of H x W pixels and C channels.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib

import numpy as np

from nao_jax.data import pixels
from nao_jax.data.archives import Archive, reading
from nao_jax.errors import UserError

_KINDS = {"u": "unsigned", "i": "integer", "U": "string"}
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Part:
  """The training or the test part of a source, read one image at a time.

  Attributes:
    labels: int64 [N].
    place: index to what messages call the image.
    image: index to uint8 [H, W, C]; raises UserError if it is damaged.
    encoded: index to the contents of the image file; None where there are
      pixels only.
  """

  labels: np.ndarray
  place: Callable[[int], str]
  image: Callable[[int], np.ndarray]
  encoded: Callable[[int], bytes] | None = None


@dataclasses.dataclass(frozen=True)
class Source:
  """Labelled images to make a data set of.

  Attributes:
    origin: the file or folder.
    class_names: what the labels 0, 1, ... stand for.
    train: the part to train with.
    test: the part to report on.
  """

  origin: str
  class_names: tuple[str, ...]
  train: Part
  test: Part


def from_npz(path: str | os.PathLike) -> Source:
  """A source from a NumPy archive, in one of two forms.

  Pixels: `train_images`, uint8 [N, H, W] or [N, H, W, 1 or 3], and
  `train_labels`, integers [N]. Or files: `train_bytes`, uint8, all encoded
  images (JPEG, PNG) in a row, `train_offsets`, integers [N + 1], image i being
  `bytes[offsets[i]:offsets[i + 1]]`, and `train_labels`. The same for `test`.
  `class_names`, strings, is optional. Pickled objects are not read.

  Raises:
    UserError: no such archive, an array is missing or not of this form, or a
      label is out of range.
  """
  with reading(path, "--npz") as file:
    return _read_archive(_Arrays(path, "--npz", file))


class _Arrays(Archive):
  """An archive that complains about the form of its arrays."""

  def get(self, name: str, kinds: str, *ranks: int) -> np.ndarray:
    """The array `name`, whose dtype kind and rank have to be among these."""
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
  if "class_names" in arrays.names:
    class_names = tuple(map(str, arrays.get("class_names", "U", 1)))
  else:
    # More classes than images is a mistake, and could not be counted up to.
    place = f"{path}: train_labels"
    pixels.check_labels(train.labels, len(train.labels), place)
    class_names = tuple(map(str, range(int(train.labels.max()) + 1)))
  _check_names(class_names, f"{path}: class_names")
  for split, part in (("train", train), ("test", test)):
    place = f"{path}: {split}_labels"
    pixels.check_labels(part.labels, len(class_names), place)
  return Source(str(path), class_names, train, test)


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

  def image(index: int) -> np.ndarray:
    return pixels.decode(encoded(index), place(index))

  labels = _labels(arrays, split, len(offsets) - 1)
  return Part(labels, place, image, encoded)


def _labels(arrays: _Arrays, split: str, images: int) -> np.ndarray:
  name = f"{split}_labels"
  labels = arrays.get(name, "ui", 1).astype(np.int64)
  if len(labels) != images or not images > 0:
    raise UserError(
      f"{arrays.path}: {name} has {len(labels)} labels for {images} images;"
      " allowed: one for each, at least one"
    )
  return labels


def from_folder(path: str | os.PathLike, *, size: int | None = None) -> Source:
  """A source from image files: DIR/train/CLASS/*.png (or .jpg), DIR/test/....

  Classes are numbered in the order of their names.

  Args:
    path: the folder DIR.
    size: height and width to resize every image to, in pixels.

  Raises:
    UserError: a folder is missing or empty, or holds something else; the two
      parts have different classes.
  """
  root = pathlib.Path(path)
  if size is not None and size < 1:
    raise UserError(f"--size={size}: allowed: 1 or more pixels")
  class_names = _class_folders(root / "train")
  _check_names(class_names, f"{root / 'train'}: class folders")
  if odd := set(class_names) ^ set(_class_folders(root / "test")):
    raise UserError(
      f"{root}: train and test have to hold the same class folders; only one"
      f" of them has {', '.join(sorted(odd))}"
    )
  train, test = (
    _folder_part(root / split, class_names, size) for split in ("train", "test")
  )
  return Source(str(path), class_names, train, test)


def _class_folders(folder: pathlib.Path) -> tuple[str, ...]:
  try:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
  except OSError as error:
    raise UserError(
      f"{folder}: {error.strerror}; expected folder/train/CLASS/*.png and"
      " folder/test/CLASS/*.png"
    ) from error
  if not names:
    raise UserError(f"{folder}: no class folders")
  return tuple(names)


def _folder_part(
  folder: pathlib.Path, class_names: Sequence[str], size: int | None
) -> Part:
  files = [_image_files(folder / name) for name in class_names]
  flat = [file for of_class in files for file in of_class]

  def image(index: int) -> np.ndarray:
    return pixels.decode(_contents(flat[index]), str(flat[index]), size=size)

  return Part(
    labels=np.repeat(np.arange(len(files)), [len(f) for f in files]),
    place=lambda index: str(flat[index]),
    image=image,
    encoded=(lambda index: _contents(flat[index])) if size is None else None,
  )


def _image_files(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    entries = [e for e in folder.iterdir() if not e.name.startswith(".")]
  except OSError as error:
    raise UserError(f"{folder}: {error.strerror}") from error
  for entry in entries:
    if entry.suffix.lower() not in SUFFIXES:
      raise UserError(f"{entry}: not an image; allowed: {', '.join(SUFFIXES)}")
  if not entries:
    raise UserError(f"{folder}: no images in this class folder")
  return sorted(entries)


def _contents(file: pathlib.Path) -> bytes:
  try:
    return file.read_bytes()
  except OSError as error:
    raise UserError(f"{file}: {error.strerror}") from error


def _check_names(names: Sequence[str], place: str) -> None:
  # TFDS stores class names one a line and drops what surrounds them.
  for name in names:
    if not name or name != " ".join(name.split()):
      raise UserError(
        f"{place}: {name!r}: a class name is not empty and has no spaces"
        " around it or line breaks in it"
      )
  for name, count in collections.Counter(names).items():
    if count > 1:
      raise UserError(f"{place}: {name!r} occurs {count} times")
