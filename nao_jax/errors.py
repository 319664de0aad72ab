"""Exceptions that are not bugs, and the form of their messages.

A message writes a setting between backquotes, by its name in Python:
`search.pool_size`, or with a value `search.pool_size=1`. The drivers replace it
by the flag.
"""

from collections.abc import Callable, Iterable
import errno
import os
import re

# Messages of the system and of SQLite about full or broken storage. Not every
# library passes the number of an error on, but all pass its text.
_STORAGE_FAULTS = (
  *(
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
  ),
  "database or disk is full",
  "attempt to write a readonly database",
  "disk I/O error",
)


# A setting in a message, and the value that was found or is to be given.
_SETTING = re.compile(r"`([a-z]\w*(?:\.\w+)*)(?:=([^`]*))?`")

# Name and password of a user in an address.
_USER = re.compile(r"://[^/\s,]*@")


class UserError(ValueError):
  """Error for a request that cannot be carried out as it is.

  The message is one line. It names the setting, in the form that this module
  describes, or the file (with the position), what was found, what is allowed
  and what to do. Drivers print it and exit with code 2; every other exception
  is a bug and keeps its traceback.
  """

  @property
  def where(self) -> str:
    """Name of the setting that the message begins with, or ""."""
    found = _SETTING.match(str(self))
    return found[1] if found else ""


class Stopped(Exception):
  """Exception of a run that a signal stopped, with all of its work saved.

  Attributes:
    signal: number of the signal.
  """

  def __init__(self, message: str, signal: int):
    super().__init__(message)
    self.signal = signal


def named(setting: str, value: object = None) -> str:
  """Returns a setting in the form of messages, with its value if given."""
  return f"`{setting}`" if value is None else f"`{setting}={value}`"


def rename(message: str, write: Callable[[str, str | None], str | None]) -> str:
  """Rewrites the settings in a message.

  Args:
    message: a message with settings between backquotes.
    write: maps a setting's name and value (or None) to its new text, or to None
      to leave the setting as it is.
  """

  def written(found: re.Match) -> str:
    new = write(found[1], found[2])
    return found[0] if new is None else new

  return _SETTING.sub(written, message)


def in_a_line(error: BaseException) -> str:
  """Returns an error's text in one line; its type if the text is empty."""
  text = " ".join(str(error).split()) or type(error).__name__
  return without_passwords(text)


def without_passwords(text: str) -> str:
  """Returns a text whose addresses have no names of users and passwords."""
  return _USER.sub("://", text)


def some(names: Iterable[object], most: int = 5) -> str:
  """Returns the first names of a list, and the number of further ones."""
  names = [*map(str, names)]
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more


def storage_fault(error: BaseException | None) -> str | None:
  """Returns the message of a full, broken or read-only disk, else None."""
  text = str(error)
  return next((fault for fault in _STORAGE_FAULTS if fault in text), None)
