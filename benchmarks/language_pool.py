"""The pool of a search for recurrent cells, read from pool.sqlite.

Shapes: A architectures, L tokens, R rounds.
"""

import contextlib
import pathlib
import sqlite3
from typing import NamedTuple

import numpy as np


class Pool(NamedTuple):
  """The pool of a search.

  Attributes:
    tokens: int32 [A, L].
    origins: int32 [A], the round that proposed it; 0 random, -1 given.
    scores: float64 [A, R], minus nats a word; NaN where it was not scored.
  """

  tokens: np.ndarray
  origins: np.ndarray
  scores: np.ndarray

  @classmethod
  def read(cls, folder: pathlib.Path) -> "Pool":
    """Reads the pool in a workdir."""
    with contextlib.closing(sqlite3.connect(folder / "pool.sqlite")) as file:
      members = file.execute(
        "select tokens, origin from architectures order by id"
      ).fetchall()
      scored = file.execute(
        "select architecture, round, score from scores"
      ).fetchall()
    rows, rounds, values = zip(*scored, strict=True)
    scores = np.full((len(members), max(rounds) + 1), np.nan)
    scores[rows, rounds] = values
    tokens = [[int(x) for x in written.split()] for written, _ in members]
    origins = np.int32([origin for _, origin in members])
    return cls(np.int32(tokens), origins, scores)

  def rounds(self) -> list[dict]:
    """Returns perplexities by round; means are taken over nats."""
    return [
      self._round(number, scores) for number, scores in enumerate(self.scores.T)
    ]

  def _round(self, number: int, scores: np.ndarray) -> dict:
    scored = ~np.isnan(scores)
    proposed = scored & (self.origins == number) & (number > 0)
    return {
      "round": number,
      "architectures": int(scored.sum()),
      "best": float(np.exp(-scores[scored].max())),
      "mean": _perplexity(scores[scored]),
      "proposals": int(proposed.sum()),
      "mean of proposals": _perplexity(scores[proposed]),
      "mean of the others": _perplexity(scores[scored & ~proposed]),
    }

  def spread(self, count: int) -> np.ndarray:
    """Returns rows of the last round, evenly spread over its ranking.

    They are sorted, best first.
    """
    last = self.scores[:, -1]
    ranked = np.argsort(-last, kind="stable")[: np.sum(~np.isnan(last))]
    places = np.linspace(0, len(ranked) - 1, count).round().astype(int)
    return ranked[np.unique(places)]


def _perplexity(scores: np.ndarray) -> float | None:
  return float(np.exp(-scores.mean())) if len(scores) else None
