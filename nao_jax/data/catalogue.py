"""The directory of prepared data sets: DIR/NAME/[CONFIG/]VERSION, as in TFDS.

TFDS writes next to VERSION, under a name that is no version, and renames at
the end: an interrupted preparation is never found here.
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

# The keys of features.json whose values are classes.
_CLASSES = ("pythonClassName", "python_class_name", "type")

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(name: str, data_dir: str | os.PathLike) -> pathlib.Path | None:
  """The newest version of data set `name` in `data_dir`, if there is one."""
  try:
    entries = [*(root(data_dir) / name).iterdir()]
  except (OSError, ValueError):  # Such as for names that no file can have.
    return None
  versions = [
    path
    for path in entries
    if _VERSION.fullmatch(path.name) and _is_complete(path)
  ]
  return max(versions, key=_version, default=None)


def names(data_dir: str | os.PathLike) -> list[str]:
  """The data sets of `data_dir`, sorted."""
  directory, infos = root(data_dir), []
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


def root(data_dir: str | os.PathLike) -> pathlib.Path:
  """`data_dir` as a path, `~` expanded; UserError for `~` of nobody."""
  return paths.expanded(data_dir)


def check_features(directory: pathlib.Path) -> None:
  """Looks at what TFDS would import, and so execute, to read a data set.

  Raises:
    UserError: features.json is damaged, or names a class that is not TFDS's.
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
  """All names of classes, also in the forms that TFDS no longer writes."""
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
  """Runs `builder`, without TFDS's own bars and prints."""
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()


def _is_complete(path: pathlib.Path) -> bool:
  return (path / "dataset_info.json").is_file()


def _version(path: pathlib.Path) -> tuple[int, ...]:
  return tuple(map(int, path.name.split(".")))
