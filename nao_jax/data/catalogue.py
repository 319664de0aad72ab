"""The directory of prepared data sets: DIR/NAME/[CONFIG/]VERSION, as in TFDS.

TFDS writes to a directory beside VERSION, whose name is no version, and renames
it at the end: an interrupted preparation is never found here.
"""

from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import re

import tensorflow_datasets as tfds

from nao_jax.errors import UserError
from nao_jax.runs import json_file, paths

# The keys in features.json whose values are names of classes.
_CLASSES = ("pythonClassName", "python_class_name", "type")

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(name: str, data_dir: str | os.PathLike) -> pathlib.Path | None:
  """Returns the newest version of data set `name`, or None."""
  try:
    entries = [*(paths.expanded(data_dir) / name).iterdir()]
  except (OSError, ValueError):  # Such as for names that no file can have.
    return None
  versions = [
    path
    for path in entries
    if _VERSION.fullmatch(path.name) and (path / "dataset_info.json").is_file()
  ]
  return max(versions, key=_version, default=None)


def names(data_dir: str | os.PathLike) -> list[str]:
  """Returns the names of the data sets in `data_dir`, sorted."""
  directory, infos = paths.expanded(data_dir), []
  with contextlib.suppress(OSError):
    for depth in ("*/*", "*/*/*"):
      infos += directory.glob(f"{depth}/dataset_info.json")
  return sorted(
    {
      info.parent.parent.relative_to(directory).as_posix()
      for info in infos
      if _VERSION.fullmatch(info.parent.name)
    }
  )


def check_features(directory: pathlib.Path) -> None:
  """Checks the classes that TFDS would import, and so execute.

  Raises:
    UserError: features.json is damaged, or names a class that is not one of
      TFDS.
  """
  place, advice = f"{directory}: damaged", "remove it and prepare it again"
  found = json_file.read(
    directory / "features.json",
    place=f"{place}: features.json",
    wanted="the features of a data set",
    advice=advice,
  )
  for name in _class_names(found):
    if not name.startswith("tensorflow_datasets."):
      raise UserError(
        f"{place}: features.json names the class {name!r}; allowed: classes of "
        f"tensorflow_datasets; {advice}"
      )


def _class_names(document: dict) -> Iterator[str]:
  """Yields all names of classes, also in forms that TFDS no longer writes."""
  rest = [document]
  while rest:
    value = rest.pop()
    if isinstance(value, dict):
      rest += value.values()
      names = (value.get(key) for key in _CLASSES)
      yield from (name for name in names if isinstance(name, str))
    elif isinstance(value, list):
      rest += value


def write(builder: tfds.core.DatasetBuilder) -> None:
  """Runs `builder`, without TFDS's own progress bars and prints."""
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()


def _version(path: pathlib.Path) -> tuple[int, ...]:
  return tuple(map(int, path.name.split(".")))
