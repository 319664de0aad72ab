"""Digests of image data: short names of a data set's contents.

A name such as `mine` does not identify the contents, which may have been
corrected since; results, checkpoints and trials belong to contents. There are
two kinds of digests, and each data set always has the same kind: data in memory
are identified by their pixels and labels, streamed data by their files.
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

# Names of the two parts of a data set in messages.
TRAIN_PART, TEST_PART = "training part", "test part"

# File beside those of a data set with the digests of files that do not change.
CACHE = ".digests.json"
# A file may change twice within one tick of the file system's clock, so a file
# that was changed this shortly before it was read may still change unnoticed.
_SECONDS_TO_SETTLE = 2.0
# Size in bytes from which reading takes long enough to be announced.
_LARGE = 2**30


@dataclasses.dataclass(frozen=True)
class Digest:
  """Digests of the parts of a data set; equal contents have equal digests.

  Attributes:
    train: digest of all examples for training and validation, in stored order,
      independent of the split; 16 hexadecimal digits. Empty if unknown.
    test: the same for the test part.
  """

  train: str = ""
  test: str = ""

  def changes(self, other: "Digest") -> list[str]:
    """Returns the names of the parts in which another digest differs."""
    parts = {TRAIN_PART: "train", TEST_PART: "test"}
    return [
      words
      for words, part in parts.items()
      if getattr(self, part) != getattr(other, part)
    ]


def of_arrays(classes: int, *arrays: np.ndarray) -> str:
  """Returns the digest of a part that is in memory.

  Args:
    classes: the number of classes.
    *arrays: for example images and labels, in their stored order.
  """
  found = hashlib.sha256(f"{classes}".encode())
  for array in arrays:
    found.update(f" {array.dtype.str} {array.shape} ".encode())
    found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()[:16]


def of_files(classes: int, files: Sequence[str | os.PathLike]) -> str:
  """Returns the digest of a part in files, each of which is read to its end.

  A file's digest is cached beside it, and valid as long as the file's size,
  times and place on the disk stay the same.

  Args:
    classes: the number of classes.
    files: their paths, all in one directory.

  Raises:
    UserError: if a file cannot be read.
  """
  paths = sorted(map(pathlib.Path, files))
  found = hashlib.sha256(f"{classes}".encode())
  for path, digest in zip(paths, _file_digests(paths), strict=True):
    found.update(f" {path.name} {digest}".encode())
  return found.hexdigest()[:16]


def _file_digests(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns the digest of each file, cached or computed."""
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
  """Returns values that change with a file: size, times and place on the disk.

  The time of the last change of the entry (ctime) cannot be set back, unlike
  that of the contents (by `cp -p`).
  """
  found = os.stat(file)
  return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _settled(found: list[int], read_at: float) -> bool:
  return max(found[1:3]) / 1e9 < read_at - _SECONDS_TO_SETTLE


def _read(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """Computes the digests of files, several of them at the same time."""
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
  """Returns {file name: [stamp, digest]}; empty if the cache is not valid."""
  try:
    held = json.loads(cache.read_bytes())
    return {
      name: [list(stamp), str(digest)] for name, (stamp, digest) in held.items()
    }
  except (OSError, ValueError, TypeError, AttributeError, RecursionError):
    return {}


def _remember(cache: pathlib.Path, known: dict[str, list]) -> None:
  """Replaces the cache; if that fails, the files are read again next time."""
  temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
  with contextlib.suppress(OSError):
    temporary.write_text(json.dumps(known))
    os.replace(temporary, cache)
