"""Claims: rows in a file of trials that say which process trains what.

The owner of a claim counts beats in it while its process runs, so one that
hangs keeps its claims. No time is written, as the clocks of machines differ and
are set: a process that meets a claim watches it by the monotonic clock, and
takes it over after `_LAPSE` seconds without a beat; at once where it sees that
the owner's process is gone.
"""

from collections.abc import Callable
import contextlib
import functools
import os
import pathlib
import secrets
import socket
import sqlite3
import threading
import time
from typing import NamedTuple

from nao_jax.errors import UserError
from nao_jax.runs import lock

# Seconds between two looks at a claim.
POLL = 1.0
# Seconds between two beats, and without one until a claim lapses. A busy
# machine may delay a beat by many seconds.
_BEAT, _LAPSE = 10.0, 120.0

COLUMNS = "space, protocol, architecture, machine, process, owner, beats"

# Versions that know no claims read and write the other table as before.
TABLE = """
create table if not exists claims (
  space text not null, architecture text not null, protocol text not null,
  machine text not null, process integer not null, owner text not null,
  beats integer not null, primary key (space, architecture, protocol))
"""

_ROW = "space = ? and protocol = ? and architecture = ?"

Opened = Callable[[], contextlib.AbstractContextManager[sqlite3.Connection]]


class _Claim(NamedTuple):
  """Claim as it is in the file."""

  machine: str
  process: int
  owner: str
  beats: int

  @property
  def is_orphan(self) -> bool:
    """True if its process is known to be gone."""
    return (
      self.machine == _machine()
      # Outside of Linux several machines may have this name.
      and " " in self.machine
      and type(self.process) is int
      and not lock.is_running(self.process)
    )

  def __str__(self) -> str:
    host = ascii(self.machine)[1:-1].partition(" ")[0]
    return f"process {self.process!s:.20} on {host:.60}"


class _Watched(NamedTuple):
  """Claim of another, when it was looked at, and seconds without a beat."""

  claim: _Claim
  at: float
  silent: float


class Claims:
  """The claims of one owner, and those of others that it has met.

  Architectures are texts, as in the file.
  """

  def __init__(self, key: tuple[str, str], opened: Opened):
    """Creates an owner without claims.

    Args:
      key: space and protocol.
      opened: opens a connection to the file that commits and closes.
    """
    self._key, self._opened = key, opened
    self._owner = secrets.token_hex(8)
    self._held: set[str] = set()
    self._watched: dict[str, _Watched] = {}
    self._end = threading.Event()

  def looked_lately(self, architecture: str) -> bool:
    """Returns whether it is too early to look at another's claim again."""
    watched = self._watched.get(architecture)
    return watched is not None and time.monotonic() - watched.at < POLL

  def blocks(self, database: sqlite3.Connection, architecture: str) -> bool:
    """Looks at the claim to an architecture, and notes when.

    Returns:
      Whether another owner has one that holds.
    """
    row = database.execute(
      f"select machine, process, owner, beats from claims where {_ROW}",
      (*self._key, architecture),
    ).fetchone()
    claim = row and _Claim(*row)
    if claim is None or claim.owner == self._owner or claim.is_orphan:
      self.forget(architecture)
      return False
    now, silent = time.monotonic(), 0.0
    watched = self._watched.get(architecture)
    if watched and watched.claim == claim:
      # No leap of the clock is enough alone: its owner may beat after it.
      silent = watched.silent + min(now - watched.at, _LAPSE / 2)
    self._watched[architecture] = _Watched(claim, now, silent)
    return silent < _LAPSE

  def forget(self, architecture: str) -> None:
    """Forgets another's claim, which holds no longer."""
    self._watched.pop(architecture, None)

  @property
  def met_others(self) -> bool:
    """True if another owner has a claim that was looked at."""
    return bool(self._watched)

  def owner_of(self, architecture: str) -> str | None:
    """Returns the other process that trains it, if one was seen."""
    watched = self._watched.get(architecture)
    return watched and str(watched.claim)

  def take(self, database: sqlite3.Connection, architecture: str) -> None:
    """Writes a claim, and begins to beat."""
    owner = _machine(), os.getpid(), self._owner
    database.execute(
      f"insert or replace into claims ({COLUMNS}) values (?, ?, ?, ?, ?, ?, 0)",
      (*self._key, architecture, *owner),
    )
    self.forget(architecture)
    if not self._held:
      self._end = threading.Event()
      beats = threading.Thread(
        target=self._beat_until, args=(self._end,), daemon=True
      )
      # Without a thread to spare the claim lapses.
      with contextlib.suppress(RuntimeError):
        beats.start()
    self._held.add(architecture)

  def end(self, database: sqlite3.Connection, architecture: str) -> None:
    """Removes the claim to what has a trial now, whoever owns it."""
    database.execute(
      f"delete from claims where {_ROW}", (*self._key, architecture)
    )
    self._drop({architecture})

  def release(self, architecture: str | None) -> None:
    """Gives up a claim of this owner, or all. If that fails, they lapse."""
    names = {*self._held} if architecture is None else {architecture}
    if not names & self._held:
      return
    self._drop(names)
    rows = [(*self._key, name, self._owner) for name in names]
    with contextlib.suppress(UserError), self._opened() as database:
      database.executemany(
        f"delete from claims where {_ROW} and owner = ?", rows
      )

  def _drop(self, architectures: set[str]) -> None:
    self._held -= architectures
    if not self._held:
      self._end.set()

  def beat(self) -> None:
    """Counts a beat; if it cannot be written, perhaps the next one can."""
    with contextlib.suppress(UserError), self._opened() as database:
      database.execute(
        "update claims set beats = beats + 1 where owner = ?", (self._owner,)
      )

  def _beat_until(self, end: threading.Event) -> None:
    while not end.wait(_BEAT):
      self.beat()


@functools.cache
def _machine() -> str:
  """Returns the host's name and what tells its process numbers from others'."""
  host = socket.gethostname()
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Containers on one machine number their processes apart.
    return f"{host} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
  except OSError:  # Not Linux.
    return host
