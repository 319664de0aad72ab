"""Report of a round: scores, costs and times."""

import time

import numpy as np

from nao_jax.objectives import CostConstraint
from nao_jax.pool import Pool


def scores(
  pool: Pool, round_: int, constraint: CostConstraint | None = None
) -> dict:
  """Summarises the scores of a round.

  Args:
    pool: the pool with these scores.
    round_: number of the round.
    constraint: cost constraint of the search, whose costs are reported, too.

  Returns:
    {name: a JSON-like value}, and `member_cost`, an array of costs [N].
  """
  rows, scores = pool.in_round(round_)
  best = pool.ranked(round_)[0]
  summary = {
    "round": round_,
    "best": float(scores.max()),
    "mean": float(scores.mean()),
    "best_row": int(best),
    "best_origin": int(pool.origins[best]),
  }
  if pending := len(pool.members) - len(rows):
    summary["pending"] = pending
  newest = pool.origins[rows] == round_
  if round_ and newest.any():
    summary["mean_of_newest"] = float(scores[newest].mean())
  return summary | _costs(pool, round_, constraint)


def in_rows(report: dict, rows: np.ndarray) -> dict:
  """Puts the values of members in the order of their rows in the pool."""
  order = np.argsort(rows)
  return {
    name: value[order] if name.startswith("member_") else value
    for name, value in report.items()
  }


def _costs(pool: Pool, round_: int, constraint: CostConstraint | None) -> dict:
  if constraint is None:
    return {}
  rows, _ = pool.in_round(round_)
  costs = constraint.costs(pool.tokens[rows])
  return {
    "cost": constraint.name,
    "limit": constraint.limit if constraint.limit < np.inf else None,
    "best_cost": float(
      constraint.costs(pool.tokens[pool.ranked(round_)[:1]])[0]
    ),
    "member_cost": costs,
  }


class Clock:
  """Measures the time between laps."""

  def __init__(self):
    self._start = time.monotonic()

  def lap(self) -> float:
    """Returns the seconds since the last lap."""
    start, self._start = self._start, time.monotonic()
    return round(self._start - start, 3)
