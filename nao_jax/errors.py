"""The exceptions that are no bugs."""

from collections.abc import Iterable
import errno
import os

# What storage says when it cannot hold more, by the system and by SQLite. Not
# every library passes the number of an error on, but all pass its text.
_STORAGE_FAULTS = (
  *(
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
  ),
  "database or disk is full",
  "attempt to write a readonly database",
  "disk I/O error",
)


class UserError(ValueError):
  """A request that cannot be carried out as it stands.

  The message is one line and names the flag or the file (with the position),
  what was found, what is allowed and what to do. Drivers print it and exit
  with code 2; everything else is a bug and keeps its traceback.
  """


class Stopped(Exception):
  """A run was asked to stop, and did so with all of its work saved.

  Attributes:
    signal: the number of the signal that asked.
  """

  def __init__(self, message: str, signal: int):
    super().__init__(message)
    self.signal = signal


def in_a_line(error: BaseException) -> str:
  """What an error says, without line breaks; its type, if it says nothing."""
  return " ".join(str(error).split()) or type(error).__name__


def some(names: Iterable[object], most: int = 5) -> str:
  """The first names of a list, and how many there are beyond them."""
  names = [*map(str, names)]
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more


def storage_fault(error: BaseException | None) -> str | None:
  """What a full, broken or read-only disk said, if that was the reason."""
  text = str(error)
  return next((fault for fault in _STORAGE_FAULTS if fault in text), None)
