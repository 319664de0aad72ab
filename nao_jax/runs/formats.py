"""Numbers of the formats of files, so that later formats are refused by name.

A number rises when an earlier version would misread the file. Files without
one are of versions up to 0.2, whose formats were those of number 1.
"""

import sqlite3
from typing import Any

from nao_jax.errors import UserError

# In config.json, for all files of a workdir that are not databases.
WORKDIR = 1
# The `user_version` of pool.sqlite and of a file of trials.
POOL = TRIALS = 1
# The array `format` of a table.
TABLE = 1

# Errors of a database, whose messages may repeat bytes of a damaged one.
DATABASE_ERRORS = sqlite3.Error, UnicodeDecodeError


def check(found: Any, known: int, place: str, program: str = "") -> None:
  """Raises UserError for a format that is later than the known one.

  Args:
    found: the number in the file, or None.
    known: the number of this version.
    place: name of the file in messages.
    program: the version that wrote the file, if it is known.
  """
  if found is not None and not (type(found) is int and 0 <= found <= known):
    by = f" by {program}" if program else ""
    raise UserError(
      f"{place}: written{by} in format {found!s:.20}, and this version reads "
      f"formats up to {known}; use the version that wrote it, or a later one"
    )


def check_database(
  database: sqlite3.Connection, known: int, place: str, *, mark: bool = False
) -> None:
  """Checks the format of a database.

  Args:
    database: an open connection.
    known: see `check`.
    place: see `check`.
    mark: whether to write the number into a database that has none.

  Raises:
    UserError: see `check`.
    sqlite3.Error: the file cannot be read or written.
  """
  (found,) = database.execute("pragma user_version").fetchone()
  check(found, known, place)
  if mark and found < known:
    database.execute(f"pragma user_version = {known}")
