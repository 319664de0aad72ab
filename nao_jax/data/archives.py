"""NumPy archives from untrusted sources: numbers and strings, no pickles."""

from collections.abc import Iterator
import contextlib
import os
from typing import BinaryIO
import zipfile

import numpy as np

from nao_jax.errors import UserError
from nao_jax.runs import paths


@contextlib.contextmanager
def reading(path: str | os.PathLike, where: str) -> Iterator[BinaryIO]:
  """Opens a file for the context; raises UserError if it cannot be read."""
  try:
    with paths.expanded(path).open("rb") as file:
      yield file
  except OSError as error:
    raise UserError(
      f"`{where}={path}`: {error.strerror}; give a .npz file"
    ) from error


class Archive:
  """The arrays of an .npz file, by name.

  Attributes:
    path: path of the file.
    names: names of its arrays.
  """

  def __init__(self, path: str | os.PathLike, where: str, file: BinaryIO):
    """Opens an archive, whose file must stay open while arrays are read.

    Args:
      path: path of the file.
      where: the setting or argument that named the file, for messages.
      file: see `reading`.

    Raises:
      UserError: the file is not an archive.
    """
    self.path = path
    try:
      self._arrays = _load(file)
    except Exception as error:  # Damaged archives raise nearly anything.
      raise UserError(
        f"`{where}={path}`: not a NumPy archive ({error}); give a .npz file"
      ) from error
    self.names = tuple(self._arrays.files)

  def __getitem__(self, name: str) -> np.ndarray:
    """Reads an array; UserError if it is damaged or holds objects."""
    try:
      array = self._arrays[name]
      # NumPy returns members that are not arrays as bytes.
      if not isinstance(array, np.ndarray):
        raise ValueError("no array")
    except Exception as error:  # As above.
      raise UserError(
        f"{self.path}: not a NumPy archive of numbers and strings: {name}: "
        f"unreadable ({error}); make it again"
      ) from error
    return array


def _load(file: BinaryIO) -> np.lib.npyio.NpzFile:
  # NumPy would take a file of another kind for a pickle, and advise to allow
  # pickles.
  if not zipfile.is_zipfile(file):
    raise ValueError("np.savez writes one")
  file.seek(0)
  # Object arrays need pickle, which executes what it reads.
  return np.load(file, allow_pickle=False)
