"""Costs of architectures: limits on a cost, and multi-objective search.

A search without a cost constraint follows the score alone. With a limit,
architectures that cost more are never evaluated. A multi-objective search looks
for the Pareto front of score and cost: the architectures that no other
architecture dominates.

Shapes: N architectures, L tokens, M objectives.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError
from nao_jax.runs.environment import of_the_caller
from nao_jax.settings import field

# Tokens int32 [N, L] to costs [N], each above 0.
Cost = Callable[[np.ndarray], npt.ArrayLike]


@dataclasses.dataclass(frozen=True)
class ConstraintConfig:
  """Cost constraint of a search, as the user writes it.

  Attributes:
    limit: the largest cost that is allowed, such as `params:3e6`,
      `multiply_adds:5e8` or `latency:2.5`; empty for no limit.
    objectives: `score`, or `score` and a cost, such as `score,params`, for the
      Pareto front of both.
    limit_penalty: the weight, in the ascent, of a cost beyond the limit
      relative to the predicted score; with 0 architectures beyond the limit are
      only rejected.
    latency_table: CSV file with columns cell, op, milliseconds.
  """

  limit: str = ""
  objectives: str = "score"
  limit_penalty: float = field(1.0, least=0)
  latency_table: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class CostConstraint:
  """Cost constraint of a search.

  Attributes:
    name: name of the cost.
    cost: the cost function; exact and deterministic.
    limit: the largest cost that is allowed.
    multi_objective: whether a low cost is an objective, too.
    penalty: the weight, in the ascent, of a cost beyond the limit relative to
      the predicted score.
    known: costs computed so far, by the bytes of tokens.
  """

  name: str
  cost: Cost
  limit: float = np.inf
  multi_objective: bool = False
  penalty: float = 1.0
  known: dict[bytes, float] = dataclasses.field(
    default_factory=dict, repr=False
  )

  @property
  def described(self) -> dict:
    """Attributes without the functions, JSON-like."""
    return {
      "cost": self.name,
      "limit": self.limit if self.limit < np.inf else None,
      "multi_objective": self.multi_objective,
      "penalty": self.penalty,
    }

  @property
  def uses_cost_gradient(self) -> bool:
    """True if the ascent needs an estimate of the cost."""
    return self.multi_objective or (self.penalty > 0 and self.limit < np.inf)

  def costs(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the costs of architectures [N, L], float64 [N].

    Raises:
      UserError: the cost function did not return one finite number above 0 per
        architecture.
    """
    tokens = np.asarray(tokens, np.int32)
    names = [row.tobytes() for row in tokens]
    new = dict(zip(names, tokens, strict=True))
    new = {n: row for n, row in new.items() if n not in self.known}
    if new:
      values = self._call(np.array([*new.values()]))
      self.known.update(zip(new, values.tolist(), strict=True))
    return np.array([self.known[name] for name in names], np.float64)

  def _call(self, tokens: np.ndarray) -> np.ndarray:
    with of_the_caller():
      values = np.asarray(self.cost(tokens), np.float64)
    if values.shape != (len(tokens),):
      raise UserError(
        f"the cost {self.name!r} gave an array {list(values.shape)} for "
        f"{len(tokens)} architectures; it must give one number for each"
      )
    bad = np.flatnonzero(~((values > 0) & (values < np.inf)))
    if len(bad):
      raise UserError(
        f"the cost {self.name!r} of {tokens[bad[0]].tolist()} is "
        f"{values[bad[0]]}; allowed: finite numbers above 0"
      )
    return values

  def allows(self, tokens: np.ndarray) -> np.ndarray:
    """Returns which of [N, L] are within the limit, bool [N]."""
    if self.limit == np.inf:
      return np.ones(len(tokens), bool)
    return self.costs(tokens) <= self.limit

  def order(self, tokens: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the rows of [N, L], best first; ties keep their order.

    Rows are ordered by score; in a multi-objective search by front and, within
    a front, by descending crowding distance (Deb et al. 2002, NSGA-II).
    """
    if not self.multi_objective:
      return np.argsort(-scores, kind="stable")
    points = np.stack([scores, -self.costs(tokens)], -1)
    rank = fronts(points)
    return np.lexsort((-crowding(points, rank), rank))

  def scaled(self, tokens: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Returns logarithms of costs, [N], scaled for a controller.

    Costs of the pool [P, L] lie between 0 and 1; if the pool's costs are equal,
    all costs become 0.5.
    """
    return self._scale(self.costs(tokens), pool)

  def scaled_limit(self, pool: np.ndarray) -> float:
    """Returns the limit in the units of `scaled`."""
    return float(self._scale(np.float64(self.limit), pool))

  def _scale(self, costs, pool):
    logs = np.log(self.costs(pool))
    low, span = logs.min(), np.ptp(logs)
    return (np.log(costs) - low) / span if span > 0 else 0 * costs + 0.5


def outcome(
  constraint: CostConstraint,
  tokens: np.ndarray,
  scores: np.ndarray,
  to_text: Callable[[np.ndarray], str],
) -> dict:
  """Returns the entries of best.json about costs, JSON-like.

  Args:
    constraint: cost constraint of the search.
    tokens: int32 [N, L], architectures with scores of the last round; the best
      is the winner.
    scores: [N].
    to_text: writes an architecture as text.

  Returns:
    `cost`, the constraint and the winner's cost; after a multi-objective search
    also the `front`, cheapest first.
  """
  costs = constraint.costs(tokens)
  found = {"cost": constraint.described | {"value": costs[np.argmax(scores)]}}
  if constraint.multi_objective:
    rows = np.flatnonzero(front(np.stack([scores, -costs], -1)))
    found["front"] = [
      {
        "tokens": tokens[row].tolist(),
        "text": to_text(tokens[row]),
        "score": float(scores[row]),
        constraint.name: costs[row],
      }
      for row in rows[np.argsort(costs[rows], kind="stable")]
    ]
  return found


def front(points: np.ndarray) -> np.ndarray:
  """Returns which points [N, M] no other dominates, bool [N].

  Higher is better.
  """
  return fronts(points) == 0


def fronts(points: np.ndarray) -> np.ndarray:
  """Returns the number of each point's front, int [N].

  Front 0 are the points that no other dominates, front 1 the points that only
  points of front 0 dominate, and so on. Equal points share a front.

  Args:
    points: [N, M], higher is better.
  """
  points = np.asarray(points)
  one, other = points[:, None], points[None]
  dominates = (one >= other).all(-1) & (one > other).any(-1)
  above, numbers = dominates.sum(0), np.full(len(points), -1)
  number = 0
  while (numbers < 0).any():
    best = (numbers < 0) & (above == 0)
    numbers[best] = number
    above -= dominates[best].sum(0)
    number += 1
  return numbers


def crowding(points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Returns the crowding distance of each point, [N] (Deb et al. 2002).

  It is the distance between a point's neighbours on its front, summed over
  objectives, each relative to its range on the front; infinite at the ends.

  Args:
    points: [N, M].
    numbers: [N], the number of each point's front.
  """
  points = np.asarray(points, np.float64)
  distance = np.zeros(len(points))
  for number in np.unique(numbers):
    rows = np.flatnonzero(numbers == number)
    for values in points[rows].T:
      order = np.argsort(values, kind="stable")
      values = np.pad(values[order], 1, constant_values=(-np.inf, np.inf))
      span = max(np.ptp(values[1:-1]), np.finfo(float).tiny)
      distance[rows[order]] += (values[2:] - values[:-2]) / span
  return distance


def pick(
  scores: np.ndarray, costs: np.ndarray, weights: np.ndarray
) -> list[int]:
  """Picks for each weight the best of the remaining rows.

  Random weights spread the picks over the front: random scalarisation (Paria et
  al. 2020).

  Args:
    scores: [N], from 0 to 1.
    costs: [N], scaled.
    weights: [n], weights of the score, from 0 to 1; the cost has the rest.

  Returns:
    Rows, as many as there are weights, or all N.
  """
  taken = []
  left = np.ones(len(scores), bool)
  for weight in weights[: len(scores)]:
    utility = weight * scores - (1 - weight) * costs
    taken.append(int(np.argmax(np.where(left, utility, -np.inf))))
    left[taken[-1]] = False
  return taken


def parse(config: ConstraintConfig, names: tuple[str, ...]) -> tuple | None:
  """Parses a cost constraint.

  Args:
    config: the settings.
    names: names of the available costs.

  Returns:
    (name of the cost, limit, whether the search is multi-objective); None
    without a constraint.

  Raises:
    UserError: a setting has another form, or they do not fit together.
  """
  name, limit = parse_limit(config.limit, names)
  traded = _parse_objectives(config.objectives, names)
  if name and traded and name != traded:
    raise UserError(
      f"`limit={config.limit}` `objectives={config.objectives}`: a search has "
      "one cost; name the same one"
    )
  if name or traded:
    return name or traded, limit, bool(traded)
  return None


def parse_limit(
  text: str, names: tuple[str, ...] | None = None
) -> tuple[str, float]:
  """Parses a limit such as `params:3e6`.

  Args:
    text: the setting.
    names: names of the available costs; any name by default.

  Returns:
    The name of the cost and the limit; "" and infinity for an empty text.

  Raises:
    UserError: the text has another form, or the cost is unknown.
  """
  if not text:
    return "", np.inf
  name, _, number = text.partition(":")
  try:
    limit = float(number)
  except ValueError:
    limit = np.nan
  if not name or not 0 < limit < np.inf:
    raise UserError(
      f"`limit={text}`: give a cost and a number above 0, such as params:3e6"
    )
  if names is not None and name not in names:
    raise UserError(f"`limit={text}`: the costs are {', '.join(names)}")
  return name, limit


def _parse_objectives(text: str, names) -> str:
  if text == "score":
    return ""
  score, _, name = text.partition(",")
  if score != "score" or name not in names:
    raise UserError(
      f"`objectives={text}`: allowed: score, "
      + ", ".join(f"'score,{name}'" for name in names)
    )
  return name
