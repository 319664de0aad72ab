"""A pool in parts, so that a checkpoint follows a round and not the search.

Each round adds a file with the architectures and scores that are new in it. A
checkpoint holds only what is in no part yet. Parts are written before it and
never change: an earlier checkpoint needs fewer of them, and a round that is run
again writes its part again.
"""

import pathlib

import numpy as np

from nao_jax.errors import UserError
from nao_jax.pool import Pool
from nao_jax.search import round_files

# Columns that only grow, with architectures and with scores.
_ARCHITECTURES = ("tokens", "origins", "parents", "step_sizes")
_SCORES = ("rows", "values")


class PoolParts:
  """Folder with the parts of a pool, written by one process."""

  def __init__(self, folder: pathlib.Path):
    """Neither reads nor creates the folder."""
    self._folder = folder
    self._held = 0, 0  # Architectures and scores that parts hold.

  def add(self, round_: int, pool: Pool) -> None:
    """Writes what no part holds as the part of a round."""
    round_files.write(self._folder, round_, _after(pool, *self._held))
    self._held = len(pool.tokens), len(pool.rows)

  def rest(self, pool: Pool) -> Pool:
    """Returns the pool without what parts hold; `alive` and `counts` stay."""
    return pool._replace(**_after(pool, *self._held))

  def whole(self, rounds: int, rest: Pool) -> Pool:
    """Returns the pool of which `rest` is left, and goes on from there.

    Args:
      rounds: number of rounds that have ended; later parts are not read.
      rest: what `rest` returned, or a whole pool, as earlier versions saved.

    Raises:
      UserError: a part is damaged or missing.
    """
    pool = rest
    self._held = (
      len(rest.alive) - len(rest.tokens),
      int(rest.counts.sum()) - len(rest.rows),
    )
    if any(self._held):
      read = (round_files.read(self._folder, at) for at in range(rounds))
      # A run that an earlier version began has no parts of its first rounds.
      pool = _joined([part for part in read if part], rest)
    if pool is None:
      raise UserError(
        f"{self._folder}: these are not the parts of the pool that the "
        "checkpoint goes on from; put them back, or start again in another "
        "`workdir`"
      )
    return pool


def _after(pool: Pool, architectures: int, scores: int) -> dict:
  """Returns the columns that grow from these numbers on, {name: array}."""
  starts = dict.fromkeys(_ARCHITECTURES, architectures)
  starts |= dict.fromkeys(_SCORES, scores)
  return {name: getattr(pool, name)[start:] for name, start in starts.items()}


def _joined(parts: list[dict], rest: Pool) -> Pool | None:
  """Returns the pool of these parts and the rest; None if they do not fit."""
  own = _after(rest, 0, 0)
  try:
    columns = {
      name: np.concatenate([*(part[name] for part in parts), column])
      for name, column in own.items()
    }
  except (KeyError, ValueError):
    return None
  pool = rest._replace(**columns)
  fits = (
    all(columns[name].dtype == own[name].dtype for name in own)
    and {len(columns[name]) for name in _ARCHITECTURES} == {len(rest.alive)}
    and {len(columns[name]) for name in _SCORES} == {int(rest.counts.sum())}
  )
  return pool if fits else None
