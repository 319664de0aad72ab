"""Numbers behind a report, computed from the files of a run.

Shapes: N members of the pool in a round, M proposals of a round, C decoded
candidates, A architectures, P ops, R trainings of a cell.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import NamedTuple

import numpy as np

from nao_jax.controller import metrics
from nao_jax.pool import GIVEN, RANDOM, Pool
from nao_jax.report.run import Run

# Share of the pool that counts as its best members.
BEST = 0.25
# Draws of a bootstrap, and the fewest members that get an interval.
_DRAWS, _LEAST = 300, 5


class Foreseen(NamedTuple):
  """Predictions of a controller beside the measured scores.

  Attributes:
    round: the round whose controller predicted.
    group: "fitted" and "held out" are members of that round's pool;
      "proposals" were predicted before they were scored, one round later.
    predicted: float [N].
    scores: float [N].
  """

  round: int
  group: str
  predicted: np.ndarray
  scores: np.ndarray


def foreseen(run: Run) -> list[Foreseen]:
  """Returns all predictions with a known score, by round and group."""
  found = []
  for round_, arrays in run.arrays.items():
    if round_ in run.scored and "member_predicted" in arrays:
      found += _of_members(run, round_, arrays)
    if round_ + 1 in run.scored and "proposal_predicted" in arrays:
      rows = run.proposals(round_)
      scores = run.pool.scores[rows, round_ + 1]
      found += _pairs(round_, "proposals", arrays["proposal_predicted"], scores)
  return found


def _of_members(run: Run, round_, arrays) -> Iterator[Foreseen]:
  scores = run.pool.scores[run.members(round_), round_]
  predicted = arrays["member_predicted"]
  held_out = arrays.get("member_held_out", np.zeros(len(scores), bool))
  if len(predicted) == len(scores) == len(held_out):
    for group, rows in (("fitted", ~held_out), ("held out", held_out)):
      yield from _pairs(round_, group, predicted[rows], scores[rows])


def _pairs(round_, group, predicted, scores) -> Iterator[Foreseen]:
  if len(predicted) != len(scores):
    return
  both = np.isfinite(predicted) & np.isfinite(scores)
  if both.any():
    yield Foreseen(round_, group, predicted[both], scores[both])


class Measured(NamedTuple):
  """A number and its 95 % interval; None for too few architectures."""

  value: float
  interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Quality of the order that predictions give to architectures.

  Attributes:
    of: the predictions and the scores.
    k: the k of the precision at k.
    measures: {name: number}.
  """

  of: Foreseen
  k: int
  measures: dict[str, Measured]


def ranking(of: Foreseen) -> Ranking:
  """Measures predictions; intervals only where nothing was fitted."""
  k = -(-len(of.scores) // 4)

  def precision(predicted, scores):
    return metrics.precision_at(k, predicted, scores)

  return Ranking(
    of,
    k,
    {
      "pairwise accuracy": _measured(metrics.pairwise_accuracy, of),
      "Kendall's tau": _measured(metrics.kendall_tau, of),
      "Spearman's rho": _measured(metrics.spearman_rho, of),
      "precision at k": _measured(precision, of),
    },
  )


def _measured(measure: Callable, of: Foreseen) -> Measured:
  value = measure(of.predicted, of.scores)
  if of.group == "fitted" or len(of.scores) < _LEAST:
    return Measured(value, None)
  rng = np.random.default_rng(0)
  return Measured(
    value, metrics.interval(measure, of.predicted, of.scores, rng, _DRAWS)
  )


class Step(NamedTuple):
  """Result of the gradient step of one round.

  Attributes:
    round: number of the round.
    sizes: the step sizes that were tried.
    new: number of new candidates for each step size; None if unknown.
    decoded: number of candidates decoded for each step size; None if unknown.
    candidate_size: float [C], step size of each candidate.
    candidate_gain: float [C], predicted gain of each candidate over its seed.
    size: float [M], step size of each accepted proposal.
    promised: float [M], the gain predicted for the embedding that was decoded;
      NaN where there is none.
    predicted: float [M], the gain predicted for the decoded architecture.
    measured: float [M], the gain over the seed in the next round; NaN where
      the proposal or its seed has no score there.
  """

  round: int
  sizes: list[float]
  new: list[int] | None
  decoded: float | None
  candidate_size: np.ndarray
  candidate_gain: np.ndarray
  size: np.ndarray
  promised: np.ndarray
  predicted: np.ndarray
  measured: np.ndarray


def steps(run: Run) -> list[Step]:
  """Returns the gradient step of every round that moved embeddings."""
  by_round = {row["round"]: row for row in run.history}
  return [
    _step(run, by_round[round_], arrays)
    for round_, arrays in run.arrays.items()
    if "candidate_gain" in arrays
    and run.pool is not None
    and len(run.proposals(round_)) == len(arrays["proposal_before"])
  ]


def _step(run: Run, row: dict, arrays: dict) -> Step:
  pool, round_ = run.pool, row["round"]
  rows, before = run.proposals(round_), arrays["proposal_before"]
  after = arrays.get("proposal_after", np.full(len(rows), np.nan))
  measured = np.full(len(rows), np.nan)
  if round_ + 1 in run.scored:
    scores = pool.scores[:, round_ + 1]
    measured = np.where(
      pool.parents[rows] < 0, np.nan, scores[rows] - scores[pool.parents[rows]]
    )
  sizes, decoded = row.get("step_sizes", []), row.get("decoded")
  return Step(
    round=round_,
    sizes=sizes,
    new=row.get("new_by_step_size"),
    decoded=decoded / len(sizes) if decoded and sizes else None,
    candidate_size=arrays["candidate_step_size"],
    candidate_gain=arrays["candidate_gain"],
    size=pool.step_sizes[rows],
    promised=after - before,
    predicted=arrays["proposal_predicted"] - before,
    measured=measured,
  )


class Ancestor(NamedTuple):
  """One architecture in the chain of parents that led to another.

  Attributes:
    row: its number in the pool.
    origin: where it came from.
    step_size: size of the step that made it; 0 for none.
    changed: number of tokens that differ from its parent's; None without a
      parent.
    first: its score in the first round that it was in.
    parent: its parent's score in the same round; None without a parent.
    last: its score in the last round that it was in.
  """

  row: int
  origin: str
  step_size: float
  changed: int | None
  first: float
  parent: float | None
  last: float


def ancestors(pool: Pool, row: int) -> list[Ancestor]:
  """Returns the chain of parents that ends at a row of the pool, in order."""
  chain = []
  while row >= 0:
    parent, scores = int(pool.parents[row]), pool.scores[row]
    known = np.flatnonzero(~np.isnan(scores))
    if not len(known):
      break
    has = 0 <= parent < row
    then = pool.scores[parent, known[0]] if has else np.nan
    chain.append(
      Ancestor(
        row=row,
        origin=origin(int(pool.origins[row])),
        step_size=float(pool.step_sizes[row]),
        changed=int((pool.tokens[row] != pool.tokens[parent]).sum())
        if has
        else None,
        first=float(scores[known[0]]),
        parent=None if np.isnan(then) else float(then),
        last=float(scores[known[-1]]),
      )
    )
    row = parent if has else -1
  return chain[::-1]


def origin(number: int) -> str:
  """Returns the origin of an architecture in a word or two."""
  if number == GIVEN:
    return "given"
  return "random" if number == RANDOM else f"round {number}"


class Shares(NamedTuple):
  """Frequencies of the ops: means over architectures and standard errors.

  Attributes:
    names: names of the P ops.
    best: float [P], share of each op in the best quarter of the pool.
    best_error: float [P], the standard error.
    rest: float [P], share of each op in the other members.
    rest_error: float [P], the standard error.
    counts: number of architectures in the best quarter and in the rest.
  """

  names: tuple[str, ...]
  best: np.ndarray
  best_error: np.ndarray
  rest: np.ndarray
  rest_error: np.ndarray
  counts: tuple[int, int]


def op_shares(run: Run) -> Shares:
  """Returns the frequencies of the ops in the last pool that was scored."""
  ranked, names = run.pool.ranked(run.scored[-1]), run.cells.op_names
  count = max(1, round(BEST * len(ranked)))
  ops = run.cells.ops(run.pool.tokens[ranked])
  shares = (ops[..., None] == np.arange(len(names))).mean(1)
  best, rest = shares[:count], shares[count:]
  return Shares(
    names,
    best.mean(0),
    standard_error(best),
    rest.mean(0) if len(rest) else np.full(len(names), np.nan),
    standard_error(rest),
    (len(best), len(rest)),
  )


def standard_error(values: np.ndarray) -> np.ndarray:
  """Returns the standard error of the mean over the first axis.

  It is NaN for fewer than two values.
  """
  if len(values) < 2:
    return np.full(values.shape[1:], np.nan)
  return values.std(0, ddof=1) / np.sqrt(len(values))


class Group(NamedTuple):
  """Cells that were trained from scratch.

  Attributes:
    cells: the measurements of each cell, without trainings that diverged.
    diverged: number of trainings that diverged.
  """

  cells: list[np.ndarray]
  diverged: int

  @property
  def values(self) -> np.ndarray:
    """The measurements of all trainings."""
    return np.concatenate(self.cells) if self.cells else np.zeros(0)

  @property
  def mean(self) -> float:
    """The mean over all trainings; NaN if there is none."""
    return float(self.values.mean()) if len(self.values) else np.nan

  @property
  def deviation(self) -> float:
    """The standard deviation over all trainings; NaN for fewer than two."""
    return float(self.values.std(ddof=1)) if len(self.values) > 1 else np.nan


def groups(compared: dict[str, list]) -> dict[str, Group]:
  """Returns {"searched" or "random": trainings}."""
  found = {}
  for name, rows in compared.items():
    cells = [np.array(row, np.float64) for row in rows]
    found[name] = Group(
      [cell[~np.isnan(cell)] for cell in cells],
      int(sum(np.isnan(cell).sum() for cell in cells)),
    )
  return found


def scratch_ranking(run: Run) -> Ranking | None:
  """Measures how well shared weights ordered the cells trained from scratch.

  Returns None where fewer than three found cells have both scores, or where
  the search shared no weights.
  """
  cells = groups(run.compared).get("searched", Group([], 0)).cells
  if run.settings["evaluator"] != "shared" or not run.scored:
    return None
  last = run.scored[-1]
  ranked = run.pool.ranked(last)
  if run.finalists:  # The best finalists were compared, best first.
    ranked = [entry["row"] for entry in run.finalists["searched"]]
  both = [
    (run.pool.scores[row, last], cell.mean())
    for row, cell in zip(ranked, cells, strict=False)
    if len(cell)
  ]
  if len(both) < 3:
    return None
  shared, scratch = np.transpose(both)
  sign = 1 if run.cells.measure.higher_is_better else -1
  return ranking(Foreseen(last, "shared weights", shared, sign * scratch))


def advantage(found: dict[str, Group]) -> Measured | None:
  """Returns the mean of searched cells minus that of random cells.

  The interval is two standard errors on either side, over the means of cells:
  the trainings of one cell are not independent of each other.
  """
  if set(found) != {"searched", "random"}:
    return None
  means = [
    np.array([cell.mean() for cell in found[name].cells if len(cell)])
    for name in ("searched", "random")
  ]
  if not all(map(len, means)):
    return None
  difference = float(means[0].mean() - means[1].mean())
  error = 2 * np.sqrt(sum(standard_error(part) ** 2 for part in means))
  if np.isnan(error):
    return Measured(difference, None)
  return Measured(
    difference, (difference - float(error), difference + float(error))
  )
