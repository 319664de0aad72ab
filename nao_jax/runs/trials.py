"""Trials: results of trainings from scratch, in a file that searches share.

A trial is identified by its architecture (the canonical tokens) and its
protocol: a hash of everything else that determines the score. The same trial is
run once, even by different searches: each claims what it begins. SECURITY.md
lists the exceptions.
"""

from collections.abc import Iterable, Sequence
import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3

from absl import logging
import numpy as np

from nao_jax.errors import UserError
from nao_jax.runs import claims, formats, lock, paths

# Time to wait while another process is writing.
_SECONDS_TO_WAIT = 60.0

_TABLE = """
create table if not exists trials (
  space text not null, architecture text not null, protocol text not null,
  score real, curve text not null, failed integer not null,
  primary key (space, architecture, protocol))
"""

_COLUMNS = "space, architecture, protocol, score, curve, failed"


@dataclasses.dataclass(frozen=True)
class Trial:
  """One training from scratch.

  Attributes:
    score: higher is better; None if the training failed.
    curve: the score after each epoch, minus infinity where it was not
      measured; it is shorter if the training was stopped early, and empty if
      every attempt failed.
  """

  score: float | None
  curve: tuple[float, ...]

  @property
  def last(self) -> float | None:
    """The score after the last epoch; None if the training failed."""
    return None if self.score is None else self.curve[-1]

  @property
  def lost(self) -> bool:
    """True if every attempt failed, for example because workers were lost."""
    return not self.curve


class Trials:
  """The trials of one space and protocol in a file."""

  def __init__(
    self, file: str | os.PathLike, space: str, protocol: dict
  ) -> None:
    """Opens the file, or creates it.

    Args:
      file: an SQLite database.
      space: name of the search space.
      protocol: JSON-like, everything but the architecture that determines a
        score.

    Raises:
      UserError: the file cannot be opened, or is something else.
    """
    self.path = paths.expanded(file).absolute()
    self._key = space, digest(protocol)
    self._claims = claims.Claims(self._key, self._open)
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      lock.check_possible(self.path.parent)
    except OSError as error:
      raise self._refusal(error) from error
    with self._open() as database:
      place = f"`trials={self.path}`"
      formats.check_database(database, formats.TRIALS, place)
      database.execute(_TABLE)
      database.execute(claims.TABLE)
      # Fails now, not after the first training, if the file is read-only.
      database.execute("begin immediate")
      database.execute(f"select {_COLUMNS} from trials limit 1")
      database.execute(f"select {claims.COLUMNS} from claims limit 1")
      formats.check_database(database, formats.TRIALS, place, mark=True)

  def get(self, architecture: Sequence[int]) -> Trial | None:
    """Returns the trial of an architecture (canonical tokens), or None."""
    with self._open() as database:
      return self._found(database, _text(architecture))

  def claim(self, architecture: Sequence[int]) -> tuple[Trial | None, bool]:
    """Looks a trial up and, if there is none, claims it.

    Who claimed a trial trains it and calls `add`, or `release`. A claim that
    cannot be written is a warning, as its training need not be lost.

    Returns:
      The trial, or None; and whether it is claimed for the caller. If there is
      no trial and no claim, another process trains it; ask again after
      `claims.POLL` seconds.
    """
    name = _text(architecture)
    if self._claims.looked_lately(name):
      return None, False
    with self._open() as database:
      trial, mine = self._look(database, name)
    if not mine:
      return trial, False
    try:
      with self._open() as database:
        database.execute("begin immediate")
        # Another process may have been faster.
        trial, mine = self._look(database, name)
        if mine:
          self._claims.take(database, name)
    except UserError as error:
      self._claims.forget(name)
      logging.warning(
        "a claim is not written, others may train, too: %s", error
      )
    return trial, mine

  def release(self, architecture: Sequence[int] | None = None) -> None:
    """Gives up the claim to an architecture, or all claims made here."""
    self._claims.release(None if architecture is None else _text(architecture))

  def elsewhere(self, architectures: Iterable[Sequence[int]]) -> list[str]:
    """Returns the processes that train some of these, as `claim` saw them."""
    if not self._claims.met_others:
      return []
    owners = (self._claims.owner_of(_text(row)) for row in architectures)
    return [owner for owner in owners if owner]

  def _look(self, database, name: str) -> tuple[Trial | None, bool]:
    """Returns the trial, or None; and whether nobody trains it."""
    if trial := self._found(database, name):
      self._claims.forget(name)
      return trial, False
    return None, not self._claims.blocks(database, name)

  def _found(self, database, name: str) -> Trial | None:
    row = database.execute(
      "select score, curve from trials"
      " where space = ? and protocol = ? and architecture = ?",
      (*self._key, name),
    ).fetchone()
    return row and self._trial(*row)

  def _trial(self, score, curve) -> Trial:
    try:
      trial = Trial(score, tuple(json.loads(curve)))
    # A thousand nested brackets exceed the recursion limit of the parser.
    except (ValueError, TypeError, RecursionError) as error:
      raise self._refusal(error) from error
    scores = trial.curve if score is None else (score, *trial.curve)
    if not all(type(x) in (int, float) for x in scores):
      raise self._refusal(f"{trial} is not all numbers")
    return trial

  def add(self, architecture: Sequence[int], trial: Trial) -> None:
    """Saves a trial, unless another process has already saved one."""
    (space, protocol), name = self._key, _text(architecture)
    with self._open() as database:
      database.execute(
        f"insert or ignore into trials ({_COLUMNS}) values (?, ?, ?, ?, ?, ?)",
        (
          space,
          name,
          protocol,
          trial.score,
          json.dumps(trial.curve),
          trial.score is None,
        ),
      )
      self._claims.end(database, name)

  @contextlib.contextmanager
  def _open(self):
    """Opens a connection that commits, or rolls back, and closes."""
    try:
      with (
        contextlib.closing(
          sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT)
        ) as database,
        database,
      ):
        yield database
    except formats.DATABASE_ERRORS as error:
      raise self._refusal(error) from error

  def _refusal(self, reason: object) -> UserError:
    return UserError(
      f"`trials={self.path}`: not a file of trials that can be read and written"
      f" ({reason}); give another"
    )


def digest(protocol: dict) -> str:
  """Returns a short hash of a JSON-like value; it is equal for equal values."""
  text = json.dumps(protocol, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _text(architecture: Sequence[int]) -> str:
  return " ".join(str(int(token)) for token in np.asarray(architecture))
