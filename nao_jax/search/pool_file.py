"""Database pool.sqlite: architectures and scores by round.

Other programs can read it during and after a search.

Shapes: A architectures, R rounds.
"""

import contextlib
import os
import pathlib
import sqlite3

import numpy as np

from nao_jax.errors import UserError, storage_fault
from nao_jax.pool import Pool
from nao_jax.runs import formats
from nao_jax.spaces.space import Space

# Python begins no transaction before statements that change tables. Scores are
# kept by round first, so that a round writes the end of their table alone.
_ANEW = (
  "begin",
  "drop table if exists scores",
  "drop table if exists architectures",
  """create table architectures (
  id integer primary key, tokens text not null, origin integer not null,
  parent integer references architectures, step_size real, alive integer)""",
  """create table scores (
  architecture integer not null references architectures,
  round integer not null, score real not null,
  primary key (round, architecture)) without rowid""",
)
# Errors that values of unexpected types raise.
_WRONG = (ValueError, TypeError, AttributeError, IndexError)
_ADVICE = "move it away, and it is written again from the checkpoints"


class PoolFile:
  """Database of a pool, written by one process.

  The whole pool is written in the first call, as the file may be out of date,
  and after another program has changed the file; otherwise only the changes of
  the pool are written.
  """

  def __init__(self, path: pathlib.Path):
    """Neither reads nor creates the file."""
    self.path = path
    self._written: Pool | None = None
    self._left: tuple[int, ...] | None = None

  def check(self) -> None:
    """Raises UserError if the database is damaged, before it is written."""
    if not self.path.exists():
      return
    try:
      with contextlib.closing(sqlite3.connect(self.path)) as database:
        formats.check_database(database, formats.POOL, str(self.path))
        found = database.execute("pragma quick_check(1)").fetchone()[0]
    except formats.DATABASE_ERRORS as error:
      found = error
    if found != "ok":
      raise UserError(f"{self.path}: damaged ({found}); {_ADVICE}")

  def write(self, pool: Pool) -> None:
    """Writes the pool to the database, in one transaction.

    Args:
      pool: the pool; its arrays must not be changed in place afterwards.

    Raises:
      UserError: the file is not a database of a pool, or cannot be written.
    """
    before = self._written
    if not (before and self._identity() == self._left and _grown(before, pool)):
      before = None
    self._written = None  # Until the transaction has succeeded.
    try:
      with contextlib.closing(sqlite3.connect(self.path)) as database, database:
        if before is None:
          place = str(self.path)
          formats.check_database(database, formats.POOL, place, mark=True)
          for statement in _ANEW:
            database.execute(statement)
          before = Pool(*(column[:0] for column in pool))
        _write_changes(database, before, pool)
    except formats.DATABASE_ERRORS as error:
      if storage_fault(error):
        raise
      raise UserError(
        f"{self.path}: cannot be written ({error}); {_ADVICE}"
      ) from error
    self._written, self._left = pool, self._identity()

  def _identity(self) -> tuple[int, ...] | None:
    """Returns numbers that change if the file is changed or replaced."""
    try:
      found = os.stat(self.path)
    except FileNotFoundError:
      return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read(file: pathlib.Path, space: Space) -> Pool | None:
  """Reads a database without changing it, even while it is written.

  Args:
    file: the database.
    space: the search space.

  Returns:
    The pool in the tokens of `space.plain`, with the rounds that have scores;
    None if there is no file or no score.

  Raises:
    UserError: the file is damaged, or a row is no architecture of the space.
  """
  if not file.exists():
    return None
  # Read-only, so that SQLite creates no files beside it.
  source = f"{file.absolute().as_uri()}?mode=ro"
  try:
    with contextlib.closing(sqlite3.connect(source, uri=True)) as database:
      formats.check_database(database, formats.POOL, str(file))
      rows = database.execute(
        "select tokens, origin, parent, step_size, alive from architectures"
        " order by id"
      ).fetchall()
      scores = database.execute(
        "select architecture, round, score from scores"
        " where score is not null order by round, architecture"
      ).fetchall()
    return _pool(file, space, rows, scores) if scores else None
  except UserError:
    raise
  except (sqlite3.Error, *_WRONG) as error:
    raise UserError(f"{file}: cannot be read ({error}); {_ADVICE}") from error


def _pool(file, space: Space, rows: list[tuple], scores: list[tuple]) -> Pool:
  tokens = [
    space.validate(list(map(int, text.split())), f"{file}: row {number}")
    for number, (text, *_) in enumerate(rows)
  ]
  _, origins, parents, step_sizes, alive = zip(*rows, strict=True)
  # As indices, numbers that no row or round can have are refused.
  scored, rounds, values = map(np.array, zip(*scores, strict=True))
  return Pool(
    tokens=space.to_plain(np.array(tokens, np.int32)),
    origins=np.array(origins, np.int32),
    parents=np.array([-1 if p is None else p for p in parents], np.int32),
    step_sizes=np.array([size or 0 for size in step_sizes], np.float32),
    alive=np.array(alive, bool),
    rows=np.arange(len(rows), dtype=np.int32)[scored],
    values=values.astype(float),
    counts=np.bincount(np.arange(len(rounds))[rounds]),
  )


def _grown(before: Pool, pool: Pool) -> bool:
  """Returns whether the pool contains everything in `before`.

  Members may leave the pool, and rows and scores may be added.
  """
  ends = np.minimum(np.cumsum(pool.counts), len(before.rows))
  return np.array_equal(np.cumsum(before.counts), ends) and all(
    np.array_equal(own, getattr(pool, name)[: len(own)])
    for name, own in before._asdict().items()
    if name not in ("alive", "counts")
  )


def _write_changes(database, before: Pool, pool: Pool) -> None:
  """Writes the rows and values in which the pool differs from `before`."""
  known = len(before.tokens)
  new = Pool(*(column[known:] for column in pool))
  database.executemany(
    "insert into architectures values (?, ?, ?, ?, ?, ?)",
    zip(
      range(known, len(pool.tokens)),
      (" ".join(map(str, row)) for row in new.tokens.tolist()),
      new.origins.tolist(),
      (None if row < 0 else row for row in new.parents.tolist()),
      (size or None for size in new.step_sizes.tolist()),
      new.alive.astype(int).tolist(),
      strict=True,
    ),
  )
  changed = np.flatnonzero(before.alive != pool.alive[:known])
  database.executemany(
    "update architectures set alive = ? where id = ?",
    zip(
      pool.alive[changed].astype(int).tolist(), changed.tolist(), strict=True
    ),
  )
  columns = pool.rows, pool.rounds, pool.values
  database.executemany(
    "insert or replace into scores values (?, ?, ?)",
    zip(*(x[len(before.rows) :].tolist() for x in columns), strict=True),
  )
