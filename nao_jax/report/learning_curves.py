"""Rounds of a search, and curves over them.

Shapes: N members of the pool in a round, X places on an axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nao_jax.report.run import Run


class Round(NamedTuple):
  """The pool in one round.

  Attributes:
    number: number of the round, from 0.
    scores: float [N], scores of all members.
    newest: bool [N], whether the previous round proposed the member.
    scored: number of architectures scored so far, in all rounds.
    seconds: time so far; None if it is unknown.
  """

  number: int
  scores: np.ndarray
  newest: np.ndarray
  scored: int
  seconds: float | None

  @property
  def deviation(self) -> float:
    """The standard deviation of the scores; NaN for one score."""
    return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else np.nan


def rounds(run: Run) -> list[Round]:
  """Returns all rounds that have scores."""
  found, seconds = [], 0.0
  by_round = {row["round"]: row for row in run.history}
  for number in run.scored:
    members, row = run.members(number), by_round.get(number)
    if row is None or seconds is None:
      seconds = None
    else:
      seconds += row.get("score_seconds", 0) + row.get("propose_seconds", 0)
    found.append(
      Round(
        number,
        run.pool.scores[members, number],
        (run.pool.origins[members] == number) & (number > 0),
        int(np.sum(~np.isnan(run.pool.scores[:, : number + 1]).all(1))),
        seconds,
      )
    )
  return found


# Horizontal axes: {label: position of a round, None if it is unknown}.
AXES: dict[str, Callable[[Round], float | None]] = {
  "round": lambda row: row.number,
  "architectures scored": lambda row: row.scored,
  "minutes": lambda row: None if row.seconds is None else row.seconds / 60,
}


class Band(NamedTuple):
  """A curve of one search, or of several that differ only in the seed.

  Attributes:
    x: float [X], positions that all searches cover.
    low: float [X], the lowest value.
    mean: float [X], the mean.
    high: float [X], the highest value.
    count: number of searches.
  """

  x: np.ndarray
  low: np.ndarray
  mean: np.ndarray
  high: np.ndarray
  count: int


def band(
  searches: list[list[Round]],
  at: Callable[[Round], float | None],
  value: Callable[[Round], float],
) -> Band | None:
  """Summarises several searches; returns None where they do not overlap.

  Args:
    searches: the rounds of each search, at least one.
    at: position of a round, a value of `AXES`. Between two rounds a search is
      interpolated linearly.
    value: value of a round.
  """
  curves = [
    ([at(row) for row in rows], [value(row) for row in rows])
    for rows in searches
  ]
  if not all(x and None not in x for x, _ in curves):
    return None
  first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
  x = np.unique([place for x, _ in curves for place in x])
  x = x[(first <= x) & (x <= last)]
  if not len(x):
    return None
  values = np.array([np.interp(x, *curve) for curve in curves])
  low, high = values.min(0), values.max(0)
  return Band(x, low, values.mean(0), high, len(curves))


def best_of(row: Round) -> float:
  """Returns the best score of a round."""
  return float(row.scores.max())


def mean_of(row: Round) -> float:
  """Returns the mean score of a round."""
  return float(row.scores.mean())
