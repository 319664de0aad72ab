"""Scores of a search by round, and curves of one or several searches.

Shapes: N members of the pool in a round, X positions on an axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nao_jax.report.run import Run

# Percentiles of the pool that a curve of one search shows.
SPREAD = (10, 90)


class Round(NamedTuple):
  """The pool in one round.

  Attributes:
    number: number of the round, from 0.
    scores: float [N], scores of all members.
    proposed: bool [N], whether the previous round proposed the member.
    scored: number of architectures scored so far, in all rounds.
    seconds: time so far; None if it is unknown.
  """

  number: int
  scores: np.ndarray
  proposed: np.ndarray
  scored: int
  seconds: float | None


def rounds(run: Run) -> list[Round]:
  """Returns all rounds that have scores."""
  found, seconds = [], 0.0
  by_round = {row["round"]: row for row in run.history}
  for number in run.scored:
    (members, scores), row = run.pool.in_round(number), by_round.get(number)
    if row is None or seconds is None:
      seconds = None
    else:
      seconds += row.get("score_seconds", 0) + row.get("propose_seconds", 0)
    found.append(
      Round(
        number,
        scores,
        (run.pool.origins[members] == number) & (number > 0),
        np.count_nonzero(np.bincount(run.pool.rows[run.pool.rounds <= number])),
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
  """A curve with a range around it.

  Attributes:
    x: float [X], positions.
    low: float [X], lower end of the range.
    mean: float [X], the curve.
    high: float [X], upper end of the range.
  """

  x: np.ndarray
  low: np.ndarray
  mean: np.ndarray
  high: np.ndarray


def band(
  searches: list[list[Round]],
  at: Callable[[Round], float | None],
  value: Callable[[np.ndarray], float] = np.max,
) -> Band | None:
  """Returns the mean and the range of searches that differ only in the seed.

  Args:
    searches: the rounds of each search, at least one.
    at: position of a round, a value of `AXES`. Between two rounds a search is
      interpolated linearly.
    value: value of a round's scores [N]; the best by default.

  Returns:
    The curve at the positions that all searches cover; None if there are none.
  """
  curves = [
    ([at(row) for row in rows], [float(value(row.scores)) for row in rows])
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
  return Band(x, values.min(0), values.mean(0), values.max(0))


def pool_band(
  rounds: list[Round], at: Callable[[Round], float | None]
) -> Band | None:
  """Returns the mean of the pool and its `SPREAD`; None as in `band`."""
  mean = band([rounds], at, np.mean)
  if mean is None:
    return None
  low, high = (
    band([rounds], at, lambda scores, p=p: np.percentile(scores, p)).mean
    for p in SPREAD
  )
  return Band(mean.x, low, mean.mean, high)
