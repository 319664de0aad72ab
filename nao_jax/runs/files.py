"""Files that are replaced atomically."""

import errno
import os
import pathlib
import tempfile

from nao_jax.errors import UserError
from nao_jax.runs import paths


def check_writable(file: str | os.PathLike, where: str) -> None:
  """Checks that a file can be written later; creates its folder.

  Raises:
    UserError: no file of this name can be written.
  """
  path = paths.expanded(file)
  try:
    if path.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
      pass
  except OSError as error:
    raise UserError(
      f"`{where}={file}`: cannot be written ({error.strerror}); give another"
    ) from error


def write(file: pathlib.Path, text: str) -> None:
  """Replaces the text of a file atomically."""
  write_bytes(file, text.encode())


def write_bytes(file: pathlib.Path, content: bytes) -> None:
  """Replaces the content of a file atomically."""
  temporary = file.with_name(f".{file.name}.partial")
  with temporary.open("wb") as opened:
    opened.write(content)
    opened.flush()
    os.fsync(opened.fileno())
  os.replace(temporary, file)
