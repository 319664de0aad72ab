"""Paths as users write them; the only module that expands `~`."""

import os
import pathlib

from nao_jax.errors import UserError


def expanded(path: str | os.PathLike) -> pathlib.Path:
  """Expands `~`, which a shell expands only at the start of a word.

  Raises:
    UserError: there is no home folder, or no user of the name after `~`.
  """
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:
    raise UserError(
      f"{path}: no home folder is known for `~`; write the path in full"
    ) from error
