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
from typing import Any

from absl import logging
import jax
import numpy as np

from nao_jax import pool as pools
from nao_jax.data import digest
from nao_jax.errors import UserError
from nao_jax.evaluators import Evaluator
from nao_jax.evaluators.function import Function, Scores
from nao_jax.metrics import SCORE
from nao_jax.objectives import CostConstraint
from nao_jax.pool import Pool
from nao_jax.runs.environment import in_32_bits
from nao_jax.search import round_report
from nao_jax.search.config import SearchConfig
from nao_jax.search.journal import SearchJournal, result
from nao_jax.search.state import Journal, SearchState
from nao_jax.settings import left_out, validate
from nao_jax.spaces.known import Known
from nao_jax.spaces.space import Space
from nao_jax.strategies import (
  Observations,
  Proposal,
  Strategy,
  nao_plus,
  proposal,
)
from nao_jax.strategies.uniform import sample_new


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
      Like the cost function, it gets the tokens of `space.plain`.
    key: source of all randomness; each round folds its number in, so a search
      that resumes from a saved state ends like one without interruption.
    config: the sizes.
    strategy: makes proposals; `nao_plus.small` by default.
    given: int32 [G, L], architectures that start in the pool.
    workdir: a directory for states and reports: the same call resumes an
      interrupted search and returns the pool of a finished one. The evaluator
      and the cost function must stay the same, which is not checked; all other
      arguments are checked.
    journal: saves states and shows progress; an alternative to a workdir.
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
  if workdir is not None and journal is not None:
    raise TypeError("run() takes a workdir or a journal, not both")
  validate(config, SearchConfig())
  follows_costs = constraint is not None and constraint.uses_cost_gradient
  search = _Search(
    space,
    evaluator if hasattr(evaluator, "score") else Function(evaluator),
    strategy or nao_plus.small(space, follows_costs),
    config,
    key,
    given=_checked(space, given, config),
    enough=np.float32(enough),  # Scores are float32 and are compared with it.
    constraint=of_plain_tokens(constraint, space),
  )
  search.check()
  if workdir is None:
    return search.run(journal or Journal())
  with SearchJournal(workdir, search.settings, config.rounds, SCORE) as opened:
    pool = search.run(opened)
    opened.finish(result(space, pool, search.constraint))
  return pool


@dataclasses.dataclass(frozen=True)
class _Search:
  """The constants of a search; see `run`."""

  space: Space
  evaluator: Evaluator
  strategy: Strategy
  config: SearchConfig
  key: jax.Array
  given: np.ndarray
  enough: np.float32
  constraint: CostConstraint | None

  def check(self) -> None:
    """Raises UserError if the parts do not fit together."""
    controller = getattr(self.strategy, "controller", None)
    if self._follows_costs and not getattr(controller, "estimates_cost", True):
      raise UserError(
        "constraint: the ascent follows costs, which the strategy's controller "
        "does not estimate; make it with estimates_cost=True, or give penalty=0"
      )
    if self.config.asynchronous and not hasattr(self.evaluator, "score_async"):
      raise UserError(
        "`asynchronous=True`: the evaluator scores all of the pool at once; "
        "allowed only with one that has score_async"
      )

  @property
  def _follows_costs(self) -> bool:
    return self.constraint is not None and self.constraint.uses_cost_gradient

  @property
  def settings(self) -> dict:
    """Everything but the evaluator that determines a search, JSON-like."""
    settings = {
      f"space.{field.name}": _plain(getattr(self.space, field.name))
      for field in dataclasses.fields(self.space)
    }
    if isinstance(self.space, Known):
      tokens = self.space.rows.tokens
      settings["space.rows"] = digest.of_arrays(0, tokens)
    return settings | {
      "strategy": type(self.strategy).__name__,
      "strategy settings": _plain(self.strategy),
      "search": _plain(self.config),
      "key": np.asarray(jax.random.key_data(self.key)).tolist(),
      "given": self.given.tolist(),
      "constraint": self.constraint and self.constraint.described,
      "enough": str(self.enough),
    }

  def run(self, journal: Journal) -> Pool:
    """Searches from the last saved state, or the first pool, to the end."""
    pool_key, evaluator_key, strategy_key, key = jax.random.split(self.key, 4)
    state = SearchState(
      round=0,
      pool=self._first_pool(pool_key),
      evaluator=self.evaluator.init(evaluator_key),
      strategy=self.strategy.init(strategy_key),
    )
    if saved := journal.restore(state):
      placed = self.evaluator.replicate(saved.evaluator)
      state = saved._replace(evaluator=placed)
    known = set(self.space.keys(state.pool.tokens))
    while not self._ended(state):
      state, report = self._round(state, key, known, journal)
      journal.end_round(state, report)
    return state.pool

  def _ended(self, state: SearchState) -> bool:
    _, last = state.pool.in_round(state.round - 1)  # Empty before the first.
    return state.round > self.config.rounds or bool((last >= self.enough).any())

  def _first_pool(self, key: jax.Array) -> Pool:
    given, constraint, size = self.given, self.constraint, self.config.pool_size
    wanted = size - len(given)
    if constraint is not None:
      _check_given(given, constraint)
    known = set(self.space.keys(given))
    random = sample_new(self.space, key, wanted, known, constraint)
    if len(random) == wanted:
      return pools.start(given, random, self.config.rounds + 1)
    if constraint is not None and constraint.limit < np.inf:
      least = min(constraint.known.values())
      raise UserError(
        f"`constraint.limit={constraint.name}:{constraint.limit:g}`: only "
        f"{len(random)} of `pool_size={size}` random architectures were found "
        f"within it, among {len(constraint.known)}; the least "
        f"{constraint.name} of them is {least:g}; give a larger limit or a "
        "smaller pool"
      )
    raise UserError(
      f"`pool_size={size}`: space {self.space.name!r} has only about "
      f"{len(given) + len(random)} different architectures; give fewer"
    )

  def _round(
    self, state: SearchState, key: jax.Array, known: set, journal: Journal
  ) -> tuple[SearchState, dict]:
    """Runs one round; returns the state and the report.

    The key is the same in all rounds. Proposals are added to `known`.
    """
    round_, clock = state.round, round_report.Clock()
    state = self._scored(state, jax.random.fold_in(key, 0), journal)
    pool, rows = state.pool, state.pool.scored(round_)
    report = round_report.scores(pool, round_, self.constraint)
    report["score_seconds"] = clock.lap()
    if round_ < self.config.rounds and report["best"] < self.enough:
      observed = Observations(
        pool.tokens[rows], pool.scores_of(round_)[rows], known, self.constraint
      )
      round_key = jax.random.fold_in(key, round_ + 1)
      state, asked, lessons = self._proposed(
        state, round_key, observed, journal
      )
      random = self._random(round_key, known)
      if self.config.extend:
        pool = pools.extend(pool, asked, round_, rows, random)
      else:
        pool = pools.replace_worst(
          pool, asked, round_, rows, observed.order, random
        )
      state = state._replace(pool=pool)
      report |= round_report.in_rows(lessons | asked.report, rows)
      report |= {"new": len(asked.tokens), "random": len(random)}
      report["propose_seconds"] = clock.lap()
    return state._replace(round=round_ + 1), report

  def _scored(
    self, state: SearchState, key: jax.Array, journal: Journal
  ) -> SearchState:
    """Scores the pool, unless the state has the scores of this round."""
    round_, pool = state.round, state.pool
    if pool.counts[round_]:
      return state
    score, pending = self.evaluator.score, 0
    if round_ < self.config.rounds:
      pending = self.config.pending_limit
    if pending:
      score = functools.partial(self.evaluator.score_async, max_pending=pending)
    trained, scores = score(
      state.evaluator,
      key,
      self.space.to_plain(pool.tokens[pool.members]),
      round_,
      journal.progress,
      lambda trained, steps: journal.keep(
        state._replace(evaluator=trained), steps
      ),
    )
    # The scores of pending architectures are NaN.
    scores = scores if pending else _finite(scores, round_)
    pool = pools.record(pool, scores, round_)
    state = state._replace(pool=pool, evaluator=trained)
    journal.keep(state, 1)
    return state

  def _proposed(
    self,
    state: SearchState,
    key: jax.Array,
    observed: Observations,
    journal: Journal,
  ) -> tuple[SearchState, Proposal, dict]:
    """Learns and proposes; returns the report of `Strategy.tell`, too."""
    tell_key, ask_key = jax.random.split(key)
    learnt, lessons = self.strategy.tell(
      state.strategy,
      tell_key,
      observed,
      journal.progress,
      lambda learnt, steps: journal.keep(
        state._replace(strategy=learnt), steps
      ),
    )
    count, known = self.config.new_per_round, observed.known
    journal.progress("propose", 0, count)
    learnt, asked = self.strategy.ask(learnt, ask_key, observed, count)
    if not len(asked.tokens):
      draw_key = jax.random.fold_in(key, 2)  # Different from the two above.
      drawn = sample_new(self.space, draw_key, count, known, self.constraint)
      _warn_of_random(state.round, len(drawn))
      asked = proposal(drawn)._replace(report=asked.report)
    known.update(self.space.keys(asked.tokens))
    return state._replace(strategy=learnt), asked, lessons

  def _random(self, key: jax.Array, known: set) -> np.ndarray:
    """Draws the random architectures that join the proposals of a round."""
    key = jax.random.fold_in(key, 3)  # Different from those of `_proposed`.
    count = self.config.random_per_round
    random = sample_new(self.space, key, count, known, self.constraint)
    known.update(self.space.keys(random))
    return random


def of_plain_tokens(
  constraint: CostConstraint | None, space: Space
) -> CostConstraint | None:
  """Returns the constraint for the tokens of a space in any encoding."""
  if constraint is None or space.plain is space:
    return constraint
  return dataclasses.replace(
    constraint,
    cost=lambda tokens: constraint.costs(space.to_plain(tokens)),
    known={},
  )


def _plain(value) -> Any:
  """Converts a value to a JSON-like one; other objects to their names."""
  if isinstance(value, Space):
    return value.name
  if dataclasses.is_dataclass(value):
    return {
      own.name: _plain(getattr(value, own.name))
      for own in dataclasses.fields(value)
      if not left_out(own, getattr(value, own.name))
    }
  if isinstance(value, (tuple, list)):
    return [_plain(item) for item in value]
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  return getattr(value, "__name__", type(value).__name__)


def _checked(space: Space, given, config: SearchConfig) -> np.ndarray:
  """Returns the given architectures, int32 [G, L], validated."""
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


def _check_given(given, constraint: CostConstraint) -> None:
  bad = np.flatnonzero(~constraint.allows(given))
  if len(bad):
    raise UserError(
      f"`given`: architecture {bad[0] + 1} of {len(given)} has "
      f"{constraint.name} {constraint.costs(given)[bad[0]]:g}, more than the "
      f"limit {constraint.limit:g}"
    )


def _warn_of_random(round_: int, count: int) -> None:
  logging.warning(
    "round %d: every proposal was known; %d random ones take their place%s",
    round_,
    count,
    "" if count else ", as the space is used up",
  )


def _finite(scores: np.ndarray, round_: int) -> np.ndarray:
  """Replaces scores that are not finite by the worst one; needs one."""
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
