"""Compiled programs that outlive the process: on by default in every driver."""

import os
import pathlib
import stat

from absl import flags, logging
import jax

from nao_jax.errors import UserError

# They belong to the driver that asks for them, whose --help shows them.
flags.disclaim_key_flags()

_FOLDER = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Folder of compiled programs, or `off`. By default nao_jax/programs in the"
  " user's cache folder, or what JAX_COMPILATION_CACHE_DIR says.",
)

# Programs that take less to compile are not kept.
_SECONDS = 0.2


def set_up() -> None:
  """Chooses the folder, before the first program is compiled.

  Without the flag, a folder that jax was told of in other ways stays, and one
  that cannot be made (there may be no home) is gone without.

  Raises:
    UserError: the folder cannot be used, or others could write machine code
      into it.
  """
  given = _FOLDER.value
  if given == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return
  if given is None and jax.config.jax_compilation_cache_dir:
    return
  folder = pathlib.Path(given).expanduser() if given else _usual()
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check(folder)
  except OSError as error:
    found = f"{folder} cannot be used ({error.strerror})"
    if given is not None:
      raise UserError(
        f"--compilation_cache={given}: {found}; give a folder, or off"
      ) from error
    logging.warning("compiled programs are not kept: %s", found)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)


def _usual() -> pathlib.Path:
  """In the user's cache folder (XDG base directory specification)."""
  home = os.environ.get("XDG_CACHE_HOME", "")
  # Relative paths there are to be ignored.
  base = pathlib.Path(home if os.path.isabs(home) else "~/.cache")
  return base.expanduser() / "nao_jax" / "programs"


def _check(folder: pathlib.Path) -> None:
  """Raises UserError if anybody but this user can write there."""
  state = folder.stat()
  if state.st_uid != os.getuid() or state.st_mode & (
    stat.S_IWGRP | stat.S_IWOTH
  ):
    raise UserError(
      f"--compilation_cache={folder}: other users can write there, and what is "
      f"there is run; chmod 700 a folder of your own, or give off"
    )
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(13, "Permission denied")
