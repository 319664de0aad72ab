"""The outer loop: score the pool, propose, replace the worst, repeat.

One loop serves every variant. An evaluator turns tokens into scores and has a
state (`init`, `score`, `replicate`); a strategy turns a scored pool into
proposals and has a state (`init`, `tell`, `ask`); a journal saves states
(`restore`, `keep`, `end_round`) and shows progress. See evaluators/,
strategies/ and journal.py.
"""

import dataclasses
import functools
import os
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from nao_jax import pool as pools
from nao_jax.errors import UserError
from nao_jax.evaluators import Evaluator
from nao_jax.evaluators.function import Function, Scores
from nao_jax.metrics import SCORE
from nao_jax.objectives import CostConstraint, outcome
from nao_jax.pool import Pool
from nao_jax.runs.environment import in_32_bits
from nao_jax.search.journal import SearchJournal
from nao_jax.search.state import Journal, SearchState
from nao_jax.settings import Only, field, validate
from nao_jax.spaces.space import Space
from nao_jax.strategies import (
  Observations,
  Proposal,
  Strategy,
  nao_plus,
  proposal,
)
from nao_jax.strategies.uniform import sample_new


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """Sizes of the search; the defaults are those of the official search.

  Attributes:
    pool_size: number of architectures in the first pool.
    rounds: number of rounds in which proposals enter the pool; after them the
      pool is scored once more.
    new_per_round: the most proposals in a round.
    extend: add new architectures to the pool; otherwise they replace the worst
      members.
    asynchronous: propose before all architectures of a round have scores, so
      that no device waits for the slowest training; pending architectures join
      the next round. The result then depends on the speed of trainings.
    late: with `asynchronous`, the most pending architectures when a round
      closes, as a share of `new_per_round`; with many workers, at least their
      number.
    random_per_round: number of random architectures that enter the pool beside
      the proposals of each round.
  """

  ACTS_WITH = (Only(("max_pending",), "asynchronous"),)

  pool_size: int = field(600, least=2)
  rounds: int = field(4, least=0)
  new_per_round: int = field(300, least=1)
  extend: bool = False
  asynchronous: bool = False
  max_pending: float = field(0.5, above=0)
  random_per_round: int = field(0, least=0)

  @property
  def pending_limit(self) -> int:
    """The most architectures that may be pending when a round closes."""
    if not self.asynchronous:
      return 0
    return max(1, round(self.max_pending * self.new_per_round))

  @property
  def _entering(self) -> int:
    """The most architectures that enter the pool in a round."""
    return self.new_per_round + self.random_per_round

  def check_together(self) -> None:
    """Raises UserError for sizes that do not fit together."""
    if not self.extend and self._entering >= self.pool_size:
      random = f" `random_per_round={self.random_per_round}`"
      raise UserError(
        f"`new_per_round={self.new_per_round}`"
        + (random if self.random_per_round else "")
        + f": some of the members (`pool_size={self.pool_size}`) must stay; "
        "give a smaller number, or `extend=True`"
      )
    if not self.asynchronous:
      return
    # Members that are pending at the end of a round cannot be replaced.
    least = 2 if self.extend else 1 + self._entering
    most = (self.pool_size - least) / self.new_per_round
    if self.pending_limit > self.pool_size - least:
      raise UserError(
        f"`max_pending={self.max_pending}`: of `pool_size={self.pool_size}` "
        f"members {least} must have a score when a round closes; give at most "
        f"{most:.3g}, or a larger pool"
      )


@in_32_bits
def run(
  space: Space,
  evaluator: Evaluator | Scores,
  key: jax.Array,
  config: SearchConfig,
  *,
  strategy: Strategy | None = None,
  given: np.ndarray | None = None,
  workdir: str | os.PathLike | None = None,
  journal: Journal | None = None,
  enough: float = np.inf,
  constraint: CostConstraint | None = None,
) -> Pool:
  """Searches from the first pool to the last scores.

  Args:
    space: the search space; `spaces.slots.space` makes one from named slots.
    evaluator: the source of scores: an `Evaluator`, or a function that takes
      tokens int32 [N, L] and returns scores [N], as for `evaluators.Function`.
    key: source of all randomness; each round folds its number in, so a search
      that resumes from a saved state ends like one without interruption.
    config: the sizes.
    strategy: makes proposals; `nao_plus.small` by default.
    given: int32 [G, L], architectures that start in the pool.
    workdir: a directory for states and reports: the same call resumes an
      interrupted search and returns the pool of a finished one. The evaluator
      and the cost function must stay the same, which is not checked; all other
      arguments are checked.
    journal: saves states and shows progress, in the place of a workdir.
    enough: a score that ends the search, such as the best score of a table.
    constraint: cost constraint: a limit on a cost, or a multi-objective search.
      The strategy's controller must estimate costs if
      `constraint.uses_cost_gradient`.

  Returns:
    The pool; its last column of scores ranks the members. Columns of rounds
    that `enough` cut off are NaN.

  Raises:
    UserError: the sizes, the given architectures, the strategy or the workdir
      do not allow the search.
    Stopped: a signal stopped the search, with a workdir or its journal.
  """
  validate(config, SearchConfig())
  estimates_cost = constraint is not None and constraint.uses_cost_gradient
  strategy = strategy or nao_plus.small(space, estimates_cost)
  if estimates_cost:
    _check_estimates(strategy)
  if not hasattr(evaluator, "score"):
    evaluator = Function(evaluator)
  if config.asynchronous and not hasattr(evaluator, "score_async"):
    raise UserError(
      "`asynchronous=True`: the evaluator scores all of the pool at once; "
      "allowed only with one that has score_async"
    )
  given = _checked(space, given, config)
  # Scores are float32 and are compared with it.
  enough = np.float32(enough)
  parts = space, evaluator, strategy, key, config, given
  if workdir is None:
    return _search(*parts, journal or Journal(), enough, constraint)
  if journal is not None:
    raise TypeError("run() takes a workdir or a journal, not both")
  settings = _settings(space, strategy, key, config, given, constraint)
  settings["enough"] = str(enough)
  with SearchJournal(workdir, settings, config.rounds, SCORE) as journal:
    pool = _search(*parts, journal, enough, constraint)
    journal.finish(_outcome(space, pool, constraint))
  return pool


def _search(
  space, evaluator, strategy, key, config, given, journal, enough, constraint
) -> Pool:
  pool_key, evaluator_key, strategy_key, rounds_key = jax.random.split(key, 4)
  state = SearchState(
    round=0,
    pool=_first_pool(space, pool_key, config, given, constraint),
    evaluator=evaluator.init(evaluator_key),
    strategy=strategy.init(strategy_key),
  )
  if saved := journal.restore(state):
    placed = evaluator.replicate(saved.evaluator)
    state = saved._replace(evaluator=placed)
  known = set(space.keys(state.pool.tokens))
  while not _ended(state, config, enough):
    state, report = _round(
      state,
      rounds_key,
      space,
      evaluator,
      strategy,
      config,
      journal,
      known,
      enough,
      constraint,
    )
    journal.end_round(state, report)
  return state.pool


def _ended(state: SearchState, config: SearchConfig, enough: float) -> bool:
  scored = state.pool.scores[:, : state.round]
  return state.round > config.rounds or bool((scored[:, -1:] >= enough).any())


def _settings(space, strategy, key, config, given, constraint) -> dict:
  """Returns all that determines a search but the evaluator, JSON-like."""
  settings = {
    f"space.{field.name}": _plain(getattr(space, field.name))
    for field in dataclasses.fields(space)
  }
  return settings | {
    "strategy": type(strategy).__name__,
    "strategy settings": _plain(strategy),
    "search": _plain(config),
    "key": np.asarray(jax.random.key_data(key)).tolist(),
    "given": given.tolist(),
    "constraint": constraint and constraint.described,
  }


def _plain(value) -> Any:
  """Converts a value to a JSON-like one; other objects give their names."""
  if isinstance(value, Space):
    return value.name
  if dataclasses.is_dataclass(value):
    fields = dataclasses.fields(value)
    return {field.name: _plain(getattr(value, field.name)) for field in fields}
  if isinstance(value, (tuple, list)):
    return [_plain(item) for item in value]
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  return getattr(value, "__name__", type(value).__name__)


def _outcome(
  space: Space, pool: Pool, constraint: CostConstraint | None
) -> dict:
  """Returns the contents of best.json."""
  row = pool.best
  last = ~np.isnan(pool.scores).all(0)
  scores = pool.scores[:, np.flatnonzero(last)[-1]]
  scored = ~np.isnan(scores)
  costs = constraint and outcome(
    constraint, pool.tokens[scored], scores[scored], space.text
  )
  return (costs or {}) | {
    "space": space.name,
    "tokens": pool.tokens[row].tolist(),
    "text": space.text(pool.tokens[row]),
    "origin": int(pool.origins[row]),
    "score": float(pool.scores[row][~np.isnan(pool.scores[row])][-1]),
  }


def _checked(space: Space, given, config: SearchConfig) -> np.ndarray:
  """Returns the given architectures, int32 [G, L], validated.

  Raises:
    UserError: one is illegal, two are equivalent, or they exceed the pool.
  """
  rows = [] if given is None else np.asarray(given).tolist()
  rows = [space.validate(row, f"given[{at}]") for at, row in enumerate(rows)]
  if len(rows) > config.pool_size:
    raise UserError(
      f"`given`: {len(rows)} architectures do not fit "
      f"`pool_size={config.pool_size}`"
    )
  tokens = np.array(rows, np.int32).reshape(-1, space.length)
  if len(set(space.keys(tokens))) < len(tokens):
    raise UserError("`given`: two of the architectures are the same function")
  return tokens


def _check_estimates(strategy: Strategy) -> None:
  controller = getattr(strategy, "controller", None)
  if controller is not None and not controller.estimates_cost:
    raise UserError(
      "constraint: the ascent follows costs, which the strategy's controller "
      "does not estimate; make it with estimates_cost=True, or give penalty=0"
    )


def _first_pool(space, key, config, given, constraint) -> Pool:
  known = set(space.keys(given))
  wanted = config.pool_size - len(given)
  if constraint is not None:
    _check_given(given, constraint)
  random = sample_new(space, key, wanted, known, constraint)
  limited = constraint is not None and constraint.limit < np.inf
  if len(random) < wanted and limited:
    least = min(constraint.known.values())
    raise UserError(
      f"`constraint.limit={constraint.name}:{constraint.limit:g}`: only "
      f"{len(random)} of `pool_size={config.pool_size}` random architectures "
      f"were found within it, among {len(constraint.known)}; the least "
      f"{constraint.name} of them is {least:g}; give a larger limit or a "
      "smaller pool"
    )
  if len(random) < wanted:
    raise UserError(
      f"`pool_size={config.pool_size}`: space {space.name!r} has only about "
      f"{len(given) + len(random)} different architectures; give fewer"
    )
  return pools.start(given, random, config.rounds + 1)


def _check_given(given, constraint: CostConstraint) -> None:
  bad = np.flatnonzero(~constraint.allows(given))
  if len(bad):
    raise UserError(
      f"`given`: architecture {bad[0] + 1} of {len(given)} has "
      f"{constraint.name} {constraint.costs(given)[bad[0]]:g}, more than the "
      f"limit {constraint.limit:g}"
    )


def _round(
  state,
  key,
  space,
  evaluator,
  strategy,
  config,
  journal,
  known,
  enough,
  constraint,
):
  """Runs one round; returns the state and the report.

  The key is the same in all rounds. Proposals are added to `known`.
  """
  round_ = state.round
  clock = _Clock()
  state = _scored(state, jax.random.fold_in(key, 0), evaluator, journal, config)
  pool, rows = state.pool, state.pool.scored(round_)
  report = _summary(pool, round_) | {"score_seconds": clock.lap()}
  if constraint is not None:
    report |= _costs(pool, round_, constraint)
  if round_ < config.rounds and report["best"] < enough:
    observed = Observations(
      pool.tokens[rows], pool.scores[rows, round_], known, constraint
    )
    round_key = jax.random.fold_in(key, round_ + 1)
    tell_key, ask_key = jax.random.split(round_key)
    learnt, lessons = strategy.tell(
      state.strategy,
      tell_key,
      observed,
      journal.progress,
      lambda learnt, steps: journal.keep(
        state._replace(strategy=learnt), steps
      ),
    )
    learnt, asked = strategy.ask(
      learnt, ask_key, observed, config.new_per_round
    )
    if not len(asked.tokens):
      draw_key = jax.random.fold_in(round_key, 2)  # Unlike the two above.
      drawn = _draw(
        space, draw_key, config.new_per_round, known, round_, constraint
      )
      asked = drawn._replace(report=asked.report)
    known.update(space.keys(asked.tokens))
    random = sample_new(
      space,
      jax.random.fold_in(round_key, 3),  # Unlike the three above.
      config.random_per_round,
      known,
      constraint,
    )
    known.update(space.keys(random))
    if config.extend:
      pool = pools.extend(pool, asked, round_, rows, random)
    else:
      pool = pools.replace_worst(
        pool, asked, round_, rows, observed.order, random
      )
    state = state._replace(pool=pool, strategy=learnt)
    report |= _in_rows(lessons | asked.report, rows)
    report |= {"new": len(asked.tokens), "random": len(random)}
    report["propose_seconds"] = clock.lap()
  return state._replace(round=round_ + 1), report


def _in_rows(report: dict, rows: np.ndarray) -> dict:
  """Puts the values of members in the order of their rows in the pool."""
  order = np.argsort(rows)
  return {
    name: value[order] if name.startswith("member_") else value
    for name, value in report.items()
  }


def _scored(state: SearchState, key, evaluator, journal, config) -> SearchState:
  """Scores the pool, unless the state has the scores of this round."""
  round_, pool = state.round, state.pool
  if len(pool.scored(round_)):
    return state
  score = evaluator.score
  if max_pending := config.pending_limit if round_ < config.rounds else 0:
    score = functools.partial(evaluator.score_async, max_pending=max_pending)
  trained, scores = score(
    state.evaluator,
    key,
    pool.tokens[pool.members],
    round_,
    journal.progress,
    lambda trained, steps: journal.keep(
      state._replace(evaluator=trained), steps
    ),
  )
  # If architectures may be pending, NaN stands for their scores.
  scores = scores if max_pending else _finite(scores, round_)
  pool = pools.record(pool, scores, round_)
  state = state._replace(pool=pool, evaluator=trained)
  journal.keep(state, 1)
  return state


def _draw(space, key, count, known, round_, constraint) -> Proposal:
  """Returns random proposals, for a strategy that has none."""
  drawn = sample_new(space, key, count, known, constraint)
  logging.warning(
    "round %d: every proposal was known; %d random ones take their place%s",
    round_,
    len(drawn),
    "" if len(drawn) else ", as the space is used up",
  )
  return proposal(drawn)


def _finite(scores: np.ndarray, round_: int) -> np.ndarray:
  """Replaces scores that are not finite by the worst finite one.

  Raises:
    UserError: no score is finite.
  """
  finite = np.isfinite(scores)
  if finite.all():
    return scores
  if not finite.any():
    raise UserError(
      f"round {round_}: no architecture has a score that is a number: the "
      "training diverged; give a smaller `learning_rate`, and another "
      "`workdir`"
    )
  logging.warning(
    "round %d: %d of %d scores are not numbers and count as the worst",
    round_,
    np.sum(~finite),
    len(scores),
  )
  return np.where(finite, scores, scores[finite].min())


def _summary(pool: Pool, round_: int) -> dict:
  rows = np.sort(pool.scored(round_))
  scores = pool.scores[rows, round_]
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
  return summary


def _costs(pool: Pool, round_: int, constraint: CostConstraint) -> dict:
  tokens = pool.tokens[np.sort(pool.scored(round_))]
  costs = constraint.costs(tokens)
  return {
    "cost": constraint.name,
    "limit": constraint.limit if constraint.limit < np.inf else None,
    "best_cost": float(
      constraint.costs(pool.tokens[pool.ranked(round_)[:1]])[0]
    ),
    "member_cost": costs,
  }


class _Clock:
  def __init__(self):
    self._start = time.monotonic()

  def lap(self) -> float:
    """Returns the seconds since the last lap."""
    start, self._start = self._start, time.monotonic()
    return round(self._start - start, 3)
