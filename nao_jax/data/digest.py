"""The identity of image data: short names of what a data set contains.

A name such as `mine` says nothing about the contents, which may have been
mended since; results, checkpoints and trials belong to contents. There are two
ways to a digest, and each data set always goes the same one: what is in memory
by its pixels and labels, what is streamed by its files.
"""

from collections.abc import Sequence
from concurrent import futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time

from absl import logging
import numpy as np

from nao_jax.errors import UserError

# How messages call the two parts of a data set.
TRAIN_PART, TEST_PART = "training part", "test part"

# Beside the files of a data set: the digests of files that stay as they are.
CACHE = ".digests.json"
# A file may change twice within one tick of the file system's clock. So who
# changed a file so shortly before it was read may yet change it unnoticed.
_SECONDS_TO_SETTLE = 2.0
# From here on reading takes long enough to be announced, in bytes.
_LARGE = 2**30


@dataclasses.dataclass(frozen=True)
class Digest:
  """What tells two data sets apart; equal contents have equal digests.

  Attributes:
    train: of all that is trained with and chosen by, in stored order, whatever
      the split; 16 hexadecimal digits. Empty: not known.
    test: the same of the test part.
  """

  train: str = ""
  test: str = ""

  def changes(self, other: "Digest") -> list[str]:
    """The parts in which another digest differs, in words."""
    parts = {TRAIN_PART: "train", TEST_PART: "test"}
    return [
      words
      for words, part in parts.items()
      if getattr(self, part) != getattr(other, part)
    ]


def of_arrays(classes: int, *arrays: np.ndarray) -> str:
  """The digest of a part that is in memory.

  Args:
    classes: the number of classes.
    *arrays: images and labels, say, in the order that they have.
  """
  found = hashlib.sha256(f"{classes}".encode())
  for array in arrays:
    found.update(f" {array.dtype.str} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()[:16]


def of_files(classes: int, files: Sequence[str | os.PathLike]) -> str:
  """The digest of a part that is in files, each of which is read to its end.

  That of a file is remembered beside it, as long as nothing has touched the
  file since: neither its size, nor its times, nor its place on the disk.

  Args:
    classes: the number of classes.
    files: their paths, all in one directory.

  Raises:
    UserError: a file cannot be read.
  """
  paths = sorted(map(pathlib.Path, files))
  found = hashlib.sha256(f"{classes}".encode())
  for path, digest in zip(paths, _file_digests(paths), strict=True):
    found.update(f" {path.name} {digest}".encode())
  return found.hexdigest()[:16]


def _file_digests(paths: Sequence[pathlib.Path]) -> list[str]:
  """The digest of each file, remembered or read."""
  if not paths:
    return []
  cache = paths[0].parent / CACHE
  known = _remembered(cache)
  try:
    stamps = {path: stamp(path) for path in paths}
    digests = {
      path: known[path.name][1]
      for path, found in stamps.items()
      if known.get(path.name, [None])[0] == found
    }
    new = [path for path in paths if path not in digests]
    read_at = time.time()
    digests |= _read(new)
  except OSError as error:
    raise UserError(
      f"{error.filename or cache.parent}: {error.strerror}"
    ) from error
  settled = [path for path in new if _settled(stamps[path], read_at)]
  if settled:
    known |= {path.name: [stamps[path], digests[path]] for path in settled}
    _remember(cache, known)
  return [digests[path] for path in paths]


def stamp(file: str | os.PathLike) -> list[int]:
  """What changes whenever a file does: size, times and place on the disk.

  The time of the last change of the entry (ctime) cannot be set back, as `cp
  -p` does that of the contents.
  """
  found = os.stat(file)
  return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _settled(found: list[int], read_at: float) -> bool:
  return max(found[1:3]) / 1e9 < read_at - _SECONDS_TO_SETTLE


def _read(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The digests of files, several of which are read at the same time."""
  size = sum(path.stat().st_size for path in paths)
  if size > _LARGE:
    logging.info(
      "reading %.1f GB of %s once, to know them again",
      size / 1e9,
      paths[0].parent,
    )
  with futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
    return dict(zip(paths, threads.map(_of_file, paths), strict=True))


def _of_file(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _remembered(cache: pathlib.Path) -> dict[str, list]:
  """{file name: [stamp, digest]}; nothing where the cache is no such thing."""
  try:
    held = json.loads(cache.read_bytes())
    return {
      name: [list(stamp), str(digest)] for name, (stamp, digest) in held.items()
    }
  except (OSError, ValueError, TypeError, AttributeError, RecursionError):
    return {}


def _remember(cache: pathlib.Path, known: dict[str, list]) -> None:
  """Replaces the cache; where nothing can be written, all is read again."""
  temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
  with contextlib.suppress(OSError):
    temporary.write_text(json.dumps(known))
    os.replace(temporary, cache)
