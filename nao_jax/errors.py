"""Exceptions that are no bugs, and how messages name settings.

A message writes a setting between backquotes, by the name that a Python caller
gives it: `search.pool_size`, or with a value `search.pool_size=1`. The drivers
put the flag in its place.
"""

from collections.abc import Callable, Iterable
import errno
import os
import re

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


# A setting in a message, and the value that was found or is to be given.
_SETTING = re.compile(r"`([a-z]\w*(?:\.\w+)*)(?:=([^`]*))?`")


class UserError(ValueError):
  """A request that cannot be carried out as it stands.

  The message is one line and names the setting, as the module says, or the
  file (with the position), what was found, what is allowed and what to do.
  Drivers print it and exit with code 2; everything else is a bug and keeps its
  traceback.
  """

  @property
  def where(self) -> str:
    """The setting that the message begins with; "" if with none."""
    found = _SETTING.match(str(self))
    return found[1] if found else ""


class Stopped(Exception):
  """A run was asked to stop, and did so with all of its work saved.

  Attributes:
    signal: the number of the signal that asked.
  """

  def __init__(self, message: str, signal: int):
    super().__init__(message)
    self.signal = signal


def named(setting: str, value: object = None) -> str:
  """A setting as messages name it, with its value if one is given."""
  return f"`{setting}`" if value is None else f"`{setting}={value}`"


def rename(message: str, write: Callable[[str, str | None], str | None]) -> str:
  """Writes the settings of a message in another way.

  Args:
    message: names settings between backquotes.
    write: takes a name, and the value beside it or None; gives what is to stand
      there, or None to leave it.
  """

  def written(found: re.Match) -> str:
    new = write(found[1], found[2])
    return found[0] if new is None else new

  return _SETTING.sub(written, message)


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
