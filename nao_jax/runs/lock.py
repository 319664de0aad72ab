"""Lock that lets one process at a time use a directory."""

import fcntl
import json
import os
import pathlib
import socket
import tempfile
from typing import NamedTuple

from absl import logging

from nao_jax.errors import UserError

NAME = ".lock"


class Lock:
  """A lock held from creation to the end of a `with`, or of the process.

  The system releases it when the process ends in any way, so a dead process
  never holds it.
  """

  def __init__(self, directory: pathlib.Path, place: str):
    """Takes the lock.

    Args:
      directory: an existing, writable directory.
      place: name of the directory in messages.

    Raises:
      UserError: another process holds it.
    """
    self._file = (directory / NAME).open("a+")
    locked = True
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      self._file.close()
      found, process = holder(directory), "another process"
      if found is not None:  # It may just be written.
        process = f"process {found.process} on {found.host}"
      raise UserError(
        f"{place}: {process} is at work there; wait for it or give another "
        "directory"
      ) from error
    except OSError as error:  # A file system without locks.
      logging.warning("%s: cannot be locked (%s)", directory, error.strerror)
      locked = False
    self._file.seek(0)
    self._file.truncate()
    held = {"process": os.getpid(), "host": socket.gethostname()}
    json.dump(held | {"locked": locked}, self._file)
    self._file.flush()

  def __enter__(self) -> "Lock":
    return self

  def __exit__(self, *_) -> None:
    self._file.close()


class Holder(NamedTuple):
  """The process that took the lock of a directory last.

  Attributes:
    process: its process number.
    host: its machine.
    at_work: whether it holds the lock; None if that is unknown: on another
      machine, or on a file system without locks.
  """

  process: int
  host: str
  at_work: bool | None


def check_possible(directory: pathlib.Path) -> None:
  """Raises OSError if files in a directory cannot be locked.

  SQLite would wait for such locks, and checkpoints cannot be written.
  """
  with tempfile.TemporaryFile(dir=directory) as file:
    try:
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      reason = f"files there cannot be locked: {error.strerror}"
      raise OSError(error.errno, reason) from error


def holder(directory: pathlib.Path) -> Holder | None:
  """Returns the last holder of a lock, if any, without touching the lock."""
  try:
    file = directory / NAME
    held = json.loads(file.read_text())
    process, host = int(held["process"]), str(held["host"])
    inode, locked = file.stat().st_ino, held.get("locked", True)
  except (
    OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError,
  ):  # fmt: skip
    return None
  if host != socket.gethostname() or not locked:
    return Holder(process, host, None)
  return Holder(process, host, _is_held(inode, process))


def is_running(process: int) -> bool:
  """Returns False if the process of this machine has ended.

  A killed process keeps its number until its parent has asked for its end.
  """
  try:
    os.kill(process, 0)
    state = pathlib.Path(f"/proc/{process}/stat").read_bytes()
  except ProcessLookupError:
    return False
  except (OSError, OverflowError):  # Another user's process, or not Linux.
    return True
  # 123 (python) S 1 ..
  return state.rpartition(b") ")[2][:1] not in (b"Z", b"X")


def _is_held(inode: int, process: int) -> bool | None:
  """Returns whether the system has such a lock, without trying to take it.

  Trying would keep other processes out.
  """
  try:
    rows = pathlib.Path("/proc/locks").read_text().splitlines()
  except OSError:  # Not Linux.
    return None if is_running(process) else False
  # 1: FLOCK ADVISORY WRITE process major:minor:inode 0 EOF
  held = [row.split() for row in rows if " FLOCK " in row]
  return any(
    row[-4] == str(process) and row[-3].rpartition(":")[2] == str(inode)
    for row in held
  )
