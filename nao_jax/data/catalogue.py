"""The directory of prepared data sets: DIR/NAME/[CONFIG/]VERSION, as in TFDS.

TFDS writes next to VERSION, under a name that is no version, and renames at
the end: an interrupted preparation is never found here.
"""

import contextlib
import io
import os
import pathlib
import re

import tensorflow_datasets as tfds

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(name: str, data_dir: str | os.PathLike) -> pathlib.Path | None:
  """The newest version of data set `name` in `data_dir`, if there is one."""
  versions = [
    path
    for path in (root(data_dir) / name).glob("*")
    if _VERSION.fullmatch(path.name) and _is_complete(path)
  ]
  return max(versions, key=_version, default=None)


def names(data_dir: str | os.PathLike) -> list[str]:
  """The data sets of `data_dir`, sorted."""
  directory = root(data_dir)
  infos = (
    *directory.glob("*/*/dataset_info.json"),
    *directory.glob("*/*/*/dataset_info.json"),
  )
  return sorted(
    {
      info.parent.parent.relative_to(directory).as_posix()
      for info in infos
      if _VERSION.fullmatch(info.parent.name)
    }
  )


def root(data_dir: str | os.PathLike) -> pathlib.Path:
  """`data_dir` as a path, `~` expanded."""
  return pathlib.Path(data_dir).expanduser()


def write(builder: tfds.core.DatasetBuilder) -> None:
  """Runs `builder`, without TFDS's own bars and prints."""
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()


def _is_complete(path: pathlib.Path) -> bool:
  return (path / "dataset_info.json").is_file()


def _version(path: pathlib.Path) -> tuple[int, ...]:
  return tuple(map(int, path.name.split(".")))
