"""Paths as users write them: the only place that knows of `~`."""

import os
import pathlib

from nao_jax.errors import UserError


def expanded(path: str | os.PathLike) -> pathlib.Path:
  """A path with `~` expanded; a shell does so only at the start of a word.

  Raises:
    UserError: there is no home folder, or nobody of the name behind `~`.
  """
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:
    raise UserError(
      f"{path}: no home folder is known for `~`; write the path in full"
    ) from error
