"""What architectures cost: what they may at most, and less of it as an aim.

A search without a demand follows the score alone. With a limit, architectures
beyond it are never evaluated. With a trade, the search looks for the front: the
architectures than which no other is better in one and not worse in the other.

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
class DemandConfig:
  """What is asked of architectures beside the score, as flags.

  Attributes:
    limit: the largest cost that is allowed, such as `params:3e6`,
      `multiply_adds:5e8` or `latency:2.5`; none if empty.
    objectives: `score`, or `score,params` and the like for a front of scores
      and costs.
    limit_penalty: how much of the predicted score a cost beyond the limit is
      worth in the ascent; 0: what is beyond is rejected and no more.
    latency_table: CSV file with columns cell, op, milliseconds.
  """

  limit: str = ""
  objectives: str = "score"
  limit_penalty: float = field(1.0, least=0)
  latency_table: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Demand:
  """What a search asks of architectures beside the score.

  Attributes:
    name: of the cost, for people.
    cost: exact, and the same whenever it is asked.
    limit: the largest cost that is allowed.
    trade: whether less cost is an aim of its own.
    penalty: how much of the predicted score a cost beyond the limit is worth
      in the ascent.
    known: costs by the bytes of tokens; they are computed once.
  """

  name: str
  cost: Cost
  limit: float = np.inf
  trade: bool = False
  penalty: float = 1.0
  known: dict[bytes, float] = dataclasses.field(
    default_factory=dict, repr=False
  )

  @property
  def described(self) -> dict:
    """All but the function: JSON-like."""
    return {
      "cost": self.name,
      "limit": self.limit if self.limit < np.inf else None,
      "trade": self.trade,
      "penalty": self.penalty,
    }

  @property
  def steers(self) -> bool:
    """Whether the ascent needs an estimate of the cost."""
    return self.trade or (self.penalty > 0 and self.limit < np.inf)

  def costs(self, tokens: np.ndarray) -> np.ndarray:
    """The costs of architectures [N, L]: float64 [N].

    Raises:
      UserError: the function of costs gave something else.
    """
    tokens = np.asarray(tokens, np.int32)
    names = [row.tobytes() for row in tokens]
    new = dict(zip(names, tokens, strict=True))
    new = {n: row for n, row in new.items() if n not in self.known}
    if new:
      values = self._ask(np.array([*new.values()]))
      self.known.update(zip(new, values.tolist(), strict=True))
    return np.array([self.known[name] for name in names], np.float64)

  def _ask(self, tokens: np.ndarray) -> np.ndarray:
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
    """Which of [N, L] are within the limit: bool [N]."""
    if self.limit == np.inf:
      return np.ones(len(tokens), bool)
    return self.costs(tokens) <= self.limit

  def order(self, tokens: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rows of [N, L], best first; ties keep their order.

    By score; in a trade by fronts, and within a front the lonely ones first
    (Deb et al. 2002, NSGA-II).
    """
    if not self.trade:
      return np.argsort(-scores, kind="stable")
    points = np.stack([scores, -self.costs(tokens)], -1)
    rank = fronts(points)
    return np.lexsort((-crowding(points, rank), rank))

  def scaled(self, tokens: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Costs [N] as a controller learns them: logarithms.

    Those of a pool [P, L] are from 0 to 1; 0.5 if they are all equal.
    """
    return self._scale(self.costs(tokens), pool)

  def scaled_limit(self, pool: np.ndarray) -> float:
    """The limit in the units of `scaled`."""
    return float(self._scale(np.float64(self.limit), pool))

  def _scale(self, costs, pool):
    logs = np.log(self.costs(pool))
    low, span = logs.min(), np.ptp(logs)
    return (np.log(costs) - low) / span if span > 0 else 0 * costs + 0.5


def outcome(
  demand: Demand,
  tokens: np.ndarray,
  scores: np.ndarray,
  to_text: Callable[[np.ndarray], str],
) -> dict:
  """What best.json says of costs, JSON-like.

  Args:
    demand: of the search.
    tokens: int32 [N, L], scored last, of which the best is the winner.
    scores: [N].
    to_text: writes an architecture for people.

  Returns:
    `cost` of the winner and the demand; in a trade the `front`, cheapest first.
  """
  costs = demand.costs(tokens)
  found = {"cost": demand.described | {"value": costs[np.argmax(scores)]}}
  if demand.trade:
    rows = np.flatnonzero(front(np.stack([scores, -costs], -1)))
    found["front"] = [
      {
        "tokens": tokens[row].tolist(),
        "text": to_text(tokens[row]),
        "score": float(scores[row]),
        demand.name: costs[row],
      }
      for row in rows[np.argsort(costs[rows], kind="stable")]
    ]
  return found


def front(points: np.ndarray) -> np.ndarray:
  """Which points [N, M], higher is better, none dominates: bool [N]."""
  return fronts(points) == 0


def fronts(points: np.ndarray) -> np.ndarray:
  """The number of each point's front: int [N].

  Front 0 are the points that none dominates, front 1 those that none but the
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
  """How far each point's neighbours on its front are apart: [N].

  The sum over objectives, each relative to its range on the front; infinite at
  the ends of a front (Deb et al. 2002).

  Args:
    points: [N, M].
    numbers: [N], of their fronts.
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
  """For each weight the best row that is not taken: random scalarisation.

  With random weights the choice is spread over the front (Paria et al. 2020).

  Args:
    scores: [N], from 0 to 1.
    costs: [N], scaled.
    weights: [n] of the score, from 0 to 1; the cost has the rest.

  Returns:
    Rows, as many as there are weights, or all.
  """
  taken = []
  left = np.ones(len(scores), bool)
  for weight in weights[: len(scores)]:
    worth = weight * scores - (1 - weight) * costs
    taken.append(int(np.argmax(np.where(left, worth, -np.inf))))
    left[taken[-1]] = False
  return taken


def parse(config: DemandConfig, names: tuple[str, ...]) -> tuple | None:
  """What the flags ask for: (name of the cost, limit, trade), or None.

  Args:
    config: the flags.
    names: of the costs that there are.

  Raises:
    UserError: a flag has another form, or the flags do not fit together.
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
  """The name of the cost and the limit of `params:3e6`; "", inf if empty.

  Args:
    text: of the flag.
    names: of the costs that there are; any by default.

  Raises:
    UserError: the text has another form.
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
