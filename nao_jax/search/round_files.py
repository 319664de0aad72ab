"""Folders with a file of arrays for each round."""

import io
import pathlib
import zipfile
import zlib

import numpy as np

from nao_jax.errors import UserError
from nao_jax.runs.files import write_bytes


def write(
  folder: pathlib.Path, round_: int, arrays: dict[str, np.ndarray]
) -> None:
  """Writes the arrays of a round; equal arrays give a file of equal bytes."""
  content = io.BytesIO()
  np.savez(content, allow_pickle=False, **arrays)
  folder.mkdir(exist_ok=True)
  write_bytes(folder / _name(round_), content.getvalue())


def read(folder: pathlib.Path, round_: int) -> dict[str, np.ndarray]:
  """Returns the arrays of a round; empty if it has none.

  Raises:
    UserError: the file is damaged.
  """
  file = folder / _name(round_)
  if not file.exists():
    return {}
  try:
    # np.load does not close a file that it cannot read.
    with file.open("rb") as content:
      archive = np.load(content, allow_pickle=False)
      return {name: archive[name] for name in archive.files}
  except (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error,
  ) as error:  # fmt: skip
    raise UserError(f"{folder.name}/{file.name} is damaged") from error


def _name(round_: int) -> str:
  return f"{round_:04d}.npz"
