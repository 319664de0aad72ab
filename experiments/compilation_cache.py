"""Caches compiled programs across processes; on by default in every driver."""

import errno
import os
import pathlib
import stat

from absl import flags, logging
import jax

from nao_jax.errors import UserError
from nao_jax.runs import paths

# These flags belong to the driver that imports this module; its --help shows
# them.
flags.disclaim_key_flags()

_FOLDER = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Folder of compiled programs, or `off`. By default nao_jax/programs in the"
  " user's cache folder, or what JAX_COMPILATION_CACHE_DIR says.",
)

# All programs are kept: a search has a hundred that compile faster than JAX's
# limit.
_SECONDS = 0.0


def set_up() -> None:
  """Chooses the folder; call it before the first program is compiled.

  Without the flag, a folder that JAX was given in another way is used, and a
  folder that cannot be used is skipped: the user may have no home, or one that
  belongs to somebody else.

  Raises:
    UserError: the folder of the flag cannot be used, or others could write
      machine code into it.
  """
  given = _FOLDER.value
  if given == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return
  if given is None and jax.config.jax_compilation_cache_dir:
    return
  try:
    folder = paths.expanded(given) if given else _usual()
    for path in (*reversed(folder.parents), folder):
      path.mkdir(mode=0o700, exist_ok=True)  # For this user alone.
    _check(folder)
  except (OSError, UserError) as error:
    found = getattr(error, "strerror", None) or str(error)
    if given is not None:
      raise UserError(
        f"--compilation_cache={given}: cannot be used ({found}); give a folder "
        "that only you can write, or off"
      ) from error
    logging.warning("compiled programs are not kept: %s", found)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)


def _usual() -> pathlib.Path:
  """Returns a folder in the user's cache (XDG base directory specification)."""
  home = os.environ.get("XDG_CACHE_HOME", "")
  # The specification says to ignore relative paths.
  base = pathlib.Path(home if os.path.isabs(home) else "~/.cache")
  return paths.expanded(base) / "nao_jax" / "programs"


def _check(folder: pathlib.Path) -> None:
  """Raises PermissionError if this user cannot write there, or others can."""
  state = folder.stat()
  others = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
  if others or state.st_uid != os.getuid():
    raise PermissionError(
      errno.EPERM,
      f"other users can write {folder}, and what is there is run; chmod 700 it",
    )
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(errno.EACCES, f"{folder}: permission denied")
