"""Numbers in a report, computed from the files of a run.

Shapes: N members of the pool in a round, M proposals of a round, C decoded
candidates, P ops, R trainings of a cell.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from nao_jax.controller import metrics
from nao_jax.pool import Pool
from nao_jax.report.run import Finalist, Run
from nao_jax.search.journal import origin_text

# Share of the pool that counts as its best members.
BEST = 0.25
# Draws of a bootstrap, and the fewest architectures that get an interval.
_DRAWS, _LEAST = 300, 5


class Predictions(NamedTuple):
  """Predictions of a controller beside the scores.

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


def predictions(run: Run) -> list[Predictions]:
  """Returns all predictions with a known score, by round and group."""
  found = []
  for round_, arrays in run.arrays.items():
    if round_ in run.scored and "member_predicted" in arrays:
      found += _of_members(run, round_, arrays)
    if round_ + 1 in run.scored and "proposal_predicted" in arrays:
      scores = run.pool.scores_of(round_ + 1)[run.proposals(round_)]
      found += _pairs(round_, "proposals", arrays["proposal_predicted"], scores)
  return found


def _of_members(run: Run, round_, arrays) -> Iterator[Predictions]:
  _, scores = run.pool.in_round(round_)
  predicted = arrays["member_predicted"]
  held_out = arrays.get("member_held_out", np.zeros(len(scores), bool))
  if len(predicted) == len(scores) == len(held_out):
    for group, rows in (("fitted", ~held_out), ("held out", held_out)):
      yield from _pairs(round_, group, predicted[rows], scores[rows])


def _pairs(round_, group, predicted, scores) -> Iterator[Predictions]:
  if len(predicted) != len(scores):
    return
  both = np.isfinite(predicted) & np.isfinite(scores)
  if both.any():
    yield Predictions(round_, group, predicted[both], scores[both])


class Estimate(NamedTuple):
  """A number and its 95 % interval; None where there are too few values."""

  value: float
  interval: tuple[float, float] | None = None


RANKINGS: dict[str, Callable] = {
  "pairwise accuracy": metrics.pairwise_accuracy,
  "Kendall's tau": metrics.kendall_tau,
}


def ranking(found: Predictions) -> dict[str, Estimate]:
  """Measures how well predictions order architectures, by `RANKINGS`.

  There are intervals only where the controller was not fitted to the scores.
  """
  estimates, pair = {}, (found.predicted, found.scores)
  for name, measure in RANKINGS.items():
    interval = None
    if found.group != "fitted" and len(found.scores) >= _LEAST:
      rng = np.random.default_rng(0)
      interval = metrics.interval(measure, *pair, rng, _DRAWS)
    estimates[name] = Estimate(measure(*pair), interval)
  return estimates


class Step(NamedTuple):
  """Result of the gradient step of one round.

  Attributes:
    round: number of the round.
    sizes: the step sizes that were tried.
    decoded: number of candidates that were decoded; None if unknown.
    new: number of candidates that were new; None if unknown.
    candidate_size: float [C], step size of each candidate.
    candidate_gain: float [C], predicted gain of each candidate over its seed.
    size: float [M], step size of each accepted proposal.
    at_point: float [M], the gain predicted for the embedding that was decoded;
      NaN where there is none.
    predicted: float [M], the gain predicted for the decoded architecture.
    measured: float [M], the gain over the seed in the next round; NaN where
      the proposal or its seed has no score there.
  """

  round: int
  sizes: list[float]
  decoded: int | None
  new: int | None
  candidate_size: np.ndarray
  candidate_gain: np.ndarray
  size: np.ndarray
  at_point: np.ndarray
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
    scores, parents = pool.scores_of(round_ + 1), pool.parents[rows]
    gains = scores[rows] - scores[parents]
    measured = np.where(parents < 0, np.nan, gains)
  new = row.get("new_by_step_size")
  return Step(
    round=round_,
    sizes=row.get("step_sizes", []),
    decoded=row.get("decoded"),
    new=None if new is None else sum(new),
    candidate_size=arrays["candidate_step_size"],
    candidate_gain=arrays["candidate_gain"],
    size=pool.step_sizes[rows],
    at_point=after - before,
    predicted=arrays["proposal_predicted"] - before,
    measured=measured,
  )


class Ancestor(NamedTuple):
  """One architecture in the chain of parents that led to another.

  Attributes:
    row: its row in the pool.
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
  chain, table = [], pool.scores
  while row >= 0:
    parent, scores = int(pool.parents[row]), table[row]
    # Proposals after the rounds have no score.
    known = np.flatnonzero(~np.isnan(scores))
    first, last = known[[0, -1]] if len(known) else (-1, -1)
    changed = before = None
    if 0 <= parent < row:
      changed = int((pool.tokens[row] != pool.tokens[parent]).sum())
      score = float(table[parent, first])
      before = None if np.isnan(score) else score
    chain.append(
      Ancestor(
        row=row,
        origin=origin_text(int(pool.origins[row])),
        step_size=float(pool.step_sizes[row]),
        changed=changed,
        first=float(scores[first]),
        parent=before,
        last=float(scores[last]),
      )
    )
    row = -1 if changed is None else parent
  return chain[::-1]


class Shares(NamedTuple):
  """Shares of the ops in a group of architectures.

  Attributes:
    count: number of architectures.
    mean: float [P], mean share of each op.
    error: float [P], its standard error.
  """

  count: int
  mean: np.ndarray
  error: np.ndarray


def op_shares(run: Run) -> tuple[Shares, Shares]:
  """Returns the shares in the best quarter of the last pool and in the rest."""
  ranked = run.pool.ranked(run.scored[-1])
  count = max(1, round(BEST * len(ranked)))
  ops = run.cells.ops(run.pool.tokens[ranked])
  shares = (ops[..., None] == np.arange(len(run.cells.op_names))).mean(1)
  return tuple(
    Shares(
      len(part),
      part.mean(0) if len(part) else np.full(part.shape[1:], np.nan),
      standard_error(part),
    )
    for part in (shares[:count], shares[count:])
  )


def standard_error(values: np.ndarray) -> np.ndarray:
  """Returns the standard error of the mean over the first axis.

  It is NaN for fewer than two values.
  """
  return deviation(values) / np.sqrt(max(len(values), 1))


def deviation(values: np.ndarray) -> np.ndarray:
  """Returns the standard deviation over the first axis; NaN for one value."""
  if len(values) < 2:
    return np.full(values.shape[1:], np.nan)
  return values.std(0, ddof=1)


class Trainings(NamedTuple):
  """Measurements of cells that were trained from scratch.

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
    return float(deviation(self.values))


def trainings(compared: dict[str, list]) -> dict[str, Trainings]:
  """Returns {"searched" or "random": trainings} of the final comparison."""
  found = {}
  for name, rows in compared.items():
    cells = [np.array(row, np.float64) for row in rows]
    found[name] = Trainings(
      [cell[~np.isnan(cell)] for cell in cells],
      int(sum(np.isnan(cell).sum() for cell in cells)),
    )
  return found


def advantage(found: dict[str, Trainings]) -> Estimate | None:
  """Returns the mean of searched cells minus that of random cells.

  The interval is two standard errors on either side, over the means of cells:
  the trainings of one cell are not independent of each other.
  """
  if set(found) != {"searched", "random"}:
    return None
  searched, random = (
    np.array([cell.mean() for cell in found[name].cells if len(cell)])
    for name in ("searched", "random")
  )
  if not len(searched) or not len(random):
    return None
  difference = float(searched.mean() - random.mean())
  error = 2 * float(np.hypot(standard_error(searched), standard_error(random)))
  if np.isnan(error):
    return Estimate(difference)
  return Estimate(difference, (difference - error, difference + error))


def utility(run: Run, finalists: list[Finalist]) -> np.ndarray:
  """Returns results of first trainings, higher is better; -inf if diverged."""
  values = np.array([finalist.first for finalist in finalists])
  sign = 1 if run.cells.measure.higher_is_better else -1
  return np.where(np.isnan(values), -np.inf, sign * values)
