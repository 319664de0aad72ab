"""Sources of images that a table lists: a CSV file, or a Hugging Face data set.

The latter is what `datasets` writes by `save_to_disk`: Arrow files with image
files in them. Neither needs a network.
"""

from collections.abc import Iterator
import contextlib
import csv
import os
import pathlib
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from nao_jax.data import labels as label_checks
from nao_jax.data import parts
from nao_jax.data.parts import Part, Source
from nao_jax.data.split import Split
from nao_jax.errors import UserError, in_a_line, some
from nao_jax.runs import json_file, paths

_PARTS = ("train", "test")
# Names of columns, of which a table has one each; the last may be missing.
_PATH = ("path", "file", "filename", "image")
_LABEL = ("label", "class")
_SPLIT = ("split", "part")


def from_csv(
  path: str | os.PathLike,
  split: Split | None = None,
  *,
  size: int | None = None,
) -> Source:
  """Reads a source from a CSV file of image files and their classes.

  Its first line names the columns: `path` and `label`, and perhaps `split`,
  which is `train` or `test`. Paths are relative to the file's folder.

  Args:
    path: the file.
    split: how images are divided into parts, if no column says so.
    size: height and width to resize every image to, in pixels.

  Raises:
    UserError: the file cannot be read, lacks a column or has no rows; an image
      file is missing; a class has no name; or parts are given twice, or not.
  """
  parts.check_size(size)
  file = paths.expanded(path)
  rows = _read_csv(file)
  first = rows[0]
  columns = _column(file, first, _PATH), _column(file, first, _LABEL)
  part = _column(file, first, _SPLIT, missing=True)
  _check_parts(str(path), part is not None, split)
  files = [file.parent / paths.expanded(row[columns[0]]) for row in rows]
  missing = [n for n, found in enumerate(files) if not found.is_file()]
  if missing:
    names = some(rows[n][columns[0]] for n in missing)
    raise UserError(
      f"{file}: line {missing[0] + 2}: no such image file (in all "
      f"{len(missing)}: {names}); paths are relative to {file.parent}"
    )
  class_names, numbers = _numbered([row[columns[1]] for row in rows])
  whole = parts.files_part(files, numbers, size)
  if split is not None:
    return parts.divided(str(path), class_names, whole, split)
  divided = _rows_of_parts(file, [row[part] for row in rows])
  return parts.checked(
    Source(str(path), class_names, *(whole.select(x) for x in divided))
  )


def _read_csv(file: pathlib.Path) -> list[dict[str, str]]:
  try:
    with file.open(newline="", encoding="utf-8-sig") as content:
      rows = [*csv.DictReader(content, restkey="", restval="")]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise UserError(f"{file}: cannot be read as CSV ({reason})") from error
  if not rows:
    raise UserError(f"{file}: no rows below a line that names the columns")
  return rows


def _column(
  file: pathlib.Path,
  row: dict[str, Any],
  names: tuple[str, ...],
  missing: bool = False,
) -> str | None:
  """Returns the name of a column; None if it may be missing, and is."""
  known = {str(name).strip().lower(): name for name in row}
  for name in names:
    if name in known:
      return known[name]
  if missing:
    return None
  raise UserError(
    f"{file}: no column {' or '.join(names)}; its first line names "
    f"{some(filter(None, row))}"
  )


def _check_parts(place: str, divided: bool, split: Split | None) -> None:
  if divided and split is not None:
    raise UserError(
      f"{place}: says itself which image is in which part; leave out "
      f"`test_fraction={split.fraction}`"
    )
  if not divided and split is None:
    raise UserError(
      f"{place}: has no test part; give `test_fraction`, such as 0.2"
    )


def _numbered(found: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
  """Returns class names in order, numbers by their value, and labels."""
  names = {*found}
  whole = all(name.isdecimal() for name in names)
  ordered = sorted(names, key=lambda name: (int(name) if whole else 0, name))
  index = {name: number for number, name in enumerate(ordered)}
  return tuple(ordered), np.array([index[name] for name in found], np.int64)


def _rows_of_parts(file: pathlib.Path, found: list[str]) -> list[np.ndarray]:
  cleaned = np.array([name.strip().lower() for name in found])
  (odd,) = np.nonzero(~np.isin(cleaned, _PARTS))
  if odd.size:
    raise UserError(
      f"{file}: line {odd[0] + 2}: part {found[odd[0]]!r}; allowed: train, test"
    )
  rows = [np.flatnonzero(cleaned == name) for name in _PARTS]
  for name, of_part in zip(_PARTS, rows, strict=True):
    if not of_part.size:
      raise UserError(f"{file}: no image of the part {name}")
  return rows


def from_arrow(
  path: str | os.PathLike,
  split: Split | None = None,
  *,
  size: int | None = None,
) -> Source:
  """Reads a source from a Hugging Face data set that was saved to disk.

  Needs the package pyarrow. One feature has to be of type Image, with the
  files' contents, and one of type ClassLabel; the first of each is read.

  Args:
    path: the folder, of a data set or of one with the splits train and test.
    split: how images are divided into parts, if the data set has no `test`.
    size: height and width to resize every image to, in pixels.

  Raises:
    UserError: the folder does not hold such a data set, or see `from_csv`.
  """
  parts.check_size(size)
  folder = paths.expanded(path)
  folders = {"train": folder}
  if (folder / "dataset_dict.json").exists():
    with _damaged(folder):
      splits = [*_json(folder / "dataset_dict.json")["splits"]]
    names = [name for name in _PARTS if name in splits]
    if others := [name for name in splits if name not in names]:
      logging.warning(
        "%s: splits other than train and test are left out: %s",
        folder,
        some(others),
      )
    folders = {name: folder / name for name in names}
  if "train" not in folders:
    raise UserError(f"{folder}: no split train")
  _check_parts(str(path), "test" in folders, split)
  read = {name: _read_arrow(place, size) for name, place in folders.items()}
  whole = read["train"]
  if split is not None:
    return parts.divided(str(path), whole.class_names, whole.part, split)
  if read["test"].class_names != whole.class_names:
    raise UserError(f"{folder}: train and test have other classes")
  return parts.checked(
    Source(str(path), whole.class_names, whole.part, read["test"].part)
  )


class _Table(NamedTuple):
  """Images of one split, and names of their classes."""

  class_names: tuple[str, ...]
  part: Part


def _json(file: pathlib.Path) -> dict:
  return json_file.read(
    file,
    place=str(file),
    wanted="a part of a data set that `save_to_disk` wrote",
    advice="give its folder",
  )


def _read_arrow(folder: pathlib.Path, size: int | None) -> _Table:
  with _damaged(folder):
    image, label, class_names = _features(folder)
    table = _arrow_table(folder)
    files, labels = table.column(image), table.column(label)
  numbers = np.array(labels.to_pylist(), dtype=object)
  if any(type(number) is not int for number in numbers):
    raise UserError(f"{folder}: {label}: an image has no label")
  numbers = numbers.astype(np.int64)
  label_checks.check_labels(numbers, len(class_names), f"{folder}: {label}")

  def place(index: int) -> str:
    return f"{folder}: {image}[{index}]"

  def encoded(index: int) -> bytes:
    found = files[index].as_py()
    content = found.get("bytes") if isinstance(found, dict) else None
    if content is None:
      raise UserError(
        f"{place(index)}: has a path in the place of the image file; save the "
        "data set with its images in it"
      )
    return content

  part = parts.encoded_part(encoded, place, numbers, size)
  return _Table(class_names, part)


@contextlib.contextmanager
def _damaged(folder: pathlib.Path) -> Iterator[None]:
  """Turns errors of values of other types into a UserError."""
  try:
    yield
  except (OSError, LookupError, TypeError, AttributeError) as error:
    raise UserError(
      f"{folder}: damaged ({in_a_line(error)}); save the data set again"
    ) from error


def _features(folder: pathlib.Path) -> tuple[str, str, tuple[str, ...]]:
  """Returns the names of images and labels, and those of the classes."""
  features = _json(folder / "dataset_info.json")["features"]
  kinds = {
    name: feature.get("_type")
    for name, feature in features.items()
    if isinstance(feature, dict)
  }
  found = []
  for kind in ("Image", "ClassLabel"):
    names = [name for name, own in kinds.items() if own == kind]
    if not names:
      listed = some(f"{name} ({own})" for name, own in kinds.items())
      raise UserError(f"{folder}: no feature of type {kind}, only {listed}")
    found.append(names[0])
  image, label = found
  return image, label, tuple(map(str, features[label]["names"]))


def _arrow_table(folder: pathlib.Path) -> Any:
  try:
    import pyarrow as pa
  except ImportError as error:
    raise UserError(
      f"{folder}: needs the package pyarrow; pip install 'nao_jax[arrow]'"
    ) from error
  state = _json(folder / "state.json")
  if state.get("_indices_data_files"):
    raise UserError(
      f"{folder}: a selection of another data set; call flatten_indices before "
      "save_to_disk"
    )
  try:
    tables = [
      _read_table(pa, folder, x["filename"]) for x in state["_data_files"]
    ]
    table = pa.concat_tables(tables)
    table.validate(full=True)
  except pa.ArrowException as error:
    raise UserError(
      f"{folder}: damaged ({in_a_line(error):.200}); save the data set again"
    ) from error
  return table


def _read_table(pa: Any, folder: pathlib.Path, name: str) -> Any:
  file = folder / name
  if file.parent != folder:
    raise UserError(f"{folder}: state.json names a file outside of it")
  with pa.memory_map(str(file)) as content:
    return pa.ipc.open_stream(content).read_all()
