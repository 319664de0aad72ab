"""The outer loop: score the pool, propose, replace the worst, again.

One loop serves every variant. An evaluator turns tokens into scores and has a
state (`init`, `score`, `replicate`); a strategy turns a scored pool into
proposals and has a state (`init`, `tell`, `ask`); a journal remembers
(`restore`, `keep`, `end_round`) and shows progress. See evaluators/,
strategies/ and journal.py.
"""

import dataclasses
import time
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from nao_jax import pool as pools
from nao_jax.errors import UserError
from nao_jax.evaluators import Evaluator
from nao_jax.pool import Pool
from nao_jax.spaces.space import Space
from nao_jax.strategies import Proposal, Seen, Strategy, proposal
from nao_jax.strategies.uniform import sample_new


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """Sizes of the search; the defaults are the official one's.

  Attributes:
    pool_size: architectures in the first pool.
    rounds: times that proposals enter the pool; it is scored once more.
    new_per_round: proposals a round, at most.
    extend: add proposals to the pool; else they replace its worst members.
  """

  pool_size: int = 600
  rounds: int = 4
  new_per_round: int = 300
  extend: bool = False

  def check(self) -> None:
    """Raises UserError for sizes that cannot work together."""
    for name, least in (("pool_size", 2), ("rounds", 0), ("new_per_round", 1)):
      if getattr(self, name) < least:
        raise UserError(
          f"--{name}={getattr(self, name)}: allowed: {least} or more"
        )
    if not self.extend and self.new_per_round >= self.pool_size:
      raise UserError(
        f"--new_per_round={self.new_per_round}: some of the --pool_size="
        f"{self.pool_size} members must stay; give a smaller number or --extend"
      )


class SearchState(NamedTuple):
  """All that a search is, between two rounds or within one.

  Attributes:
    round: rounds done.
    pool: the architectures; when the members have scores of the next round,
      that one has come as far as the proposals.
    evaluator: state of the evaluator.
    strategy: state of the strategy.
  """

  round: int
  pool: Pool
  evaluator: Any
  strategy: Any


class Journal:
  """Remembers nothing and shows nothing; `journal.SearchJournal` does both."""

  def restore(self, template: SearchState) -> SearchState | None:
    """The last state that was saved, if any."""
    del template

  def keep(self, state: SearchState, steps: int) -> None:
    """Called within a round with a state to go on from, and the steps to it."""

  def end_round(self, state: SearchState, report: dict) -> None:
    """Called after every round, with what happened in it."""

  def progress(self, phase: str, done: int, total: int, note: str = "") -> None:
    """Called often."""


def run(
  space: Space,
  evaluator: Evaluator,
  strategy: Strategy,
  *,
  key: jax.Array,
  config: SearchConfig,
  given: np.ndarray | None = None,
  journal: Journal | None = None,
  enough: float = np.inf,
) -> Pool:
  """Searches from the first pool to the last scores.

  Args:
    space: the architectures.
    evaluator: where scores come from.
    strategy: where proposals come from.
    key: decides everything; each round folds its number in, so a search that
      goes on from a saved state ends as one that was never interrupted.
    config: the sizes.
    given: int32 [G, L], architectures that start in the pool.
    journal: remembers and shows.
    enough: a score that ends the search, such as the best one of a table.

  Returns:
    The pool; its last column of scores ranks the members. Columns of rounds
    that `enough` cut off are NaN.
  """
  config.check()
  journal = journal or Journal()
  pool_key, evaluator_key, strategy_key, rounds_key = jax.random.split(key, 4)
  state = SearchState(
    round=0,
    pool=_first_pool(space, pool_key, config, given),
    evaluator=evaluator.init(evaluator_key),
    strategy=strategy.init(strategy_key),
  )
  if saved := journal.restore(state):
    placed = evaluator.replicate(saved.evaluator)
    state = saved._replace(evaluator=placed)
  known = set(space.keys(state.pool.tokens))
  while state.round <= config.rounds:
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
    )
    journal.end_round(state, report)
    if report["best"] >= enough:
      break
  return state.pool


def _first_pool(space, key, config, given) -> Pool:
  if given is None:
    given = np.zeros((0, space.length), np.int32)
  known = set(space.keys(given))
  wanted = config.pool_size - len(given)
  random = sample_new(space, key, wanted, known)
  if len(random) < wanted:
    raise UserError(
      f"--pool_size={config.pool_size}: space {space.name!r} has only about "
      f"{len(given) + len(random)} different architectures; give fewer"
    )
  return pools.start(given, random, config.rounds + 1)


def _round(
  state, key, space, evaluator, strategy, config, journal, known, enough
):
  """One round; the key is the same in all of them. Proposals become known."""
  round_ = state.round
  clock = _Clock()
  state = _scored(state, jax.random.fold_in(key, 0), evaluator, journal)
  pool = state.pool
  report = _summary(pool, round_) | {"score_seconds": clock.lap()}
  if round_ < config.rounds and report["best"] < enough:
    scores = pool.scores[pool.members, round_]
    seen = Seen(pool.tokens[pool.members], scores, known)
    round_key = jax.random.fold_in(key, round_ + 1)
    tell_key, ask_key = jax.random.split(round_key)
    learnt, lessons = strategy.tell(
      state.strategy,
      tell_key,
      seen,
      journal.progress,
      lambda learnt, steps: journal.keep(
        state._replace(strategy=learnt), steps
      ),
    )
    learnt, asked = strategy.ask(learnt, ask_key, seen, config.new_per_round)
    if not len(asked.tokens):
      draw_key = jax.random.fold_in(round_key, 2)  # Beside the two above.
      drawn = _draw(space, draw_key, config.new_per_round, known, round_)
      asked = drawn._replace(report=asked.report)
    known.update(space.keys(asked.tokens))
    admit = pools.extend if config.extend else pools.replace_worst
    state = state._replace(pool=admit(pool, asked, round_), strategy=learnt)
    report |= lessons | asked.report | {"new": len(asked.tokens)}
    report["propose_seconds"] = clock.lap()
  return state._replace(round=round_ + 1), report


def _scored(state: SearchState, key, evaluator, journal) -> SearchState:
  """The state with the scores of this round, which it may have already."""
  round_, pool = state.round, state.pool
  if not np.isnan(pool.scores[pool.members, round_]).any():
    return state
  trained, scores = evaluator.score(
    state.evaluator,
    key,
    pool.tokens[pool.members],
    round_,
    journal.progress,
    lambda trained, steps: journal.keep(
      state._replace(evaluator=trained), steps
    ),
  )
  pool = pools.record(pool, _finite(scores, round_), round_)
  state = state._replace(pool=pool, evaluator=trained)
  journal.keep(state, 1)
  return state


def _draw(space, key, count, known, round_) -> Proposal:
  """Random proposals, where a strategy has none."""
  drawn = sample_new(space, key, count, known)
  logging.warning(
    "round %d: every proposal was known; %d random ones take their place%s",
    round_,
    len(drawn),
    "" if len(drawn) else ", as the space is used up",
  )
  return proposal(drawn)


def _finite(scores: np.ndarray, round_: int) -> np.ndarray:
  """The scores, the worst one in the place of what is none."""
  finite = np.isfinite(scores)
  if finite.all():
    return scores
  if not finite.any():
    raise UserError(
      f"round {round_}: no architecture has a score that is a number: the "
      "training diverged; give a smaller --learning_rate, and another --workdir"
    )
  logging.warning(
    "round %d: %d of %d scores are not numbers and count as the worst",
    round_,
    np.sum(~finite),
    len(scores),
  )
  return np.where(finite, scores, scores[finite].min())


def _summary(pool: Pool, round_: int) -> dict:
  scores = pool.scores[pool.members, round_]
  best = pool.ranked(round_)[0]
  summary = {
    "round": round_,
    "best": float(scores.max()),
    "mean": float(scores.mean()),
    "best_row": int(best),
    "best_origin": int(pool.origins[best]),
  }
  newest = pool.origins[pool.members] == round_
  if round_ and newest.any():
    summary["mean_of_newest"] = float(scores[newest].mean())
  return summary


class _Clock:
  def __init__(self):
    self._start = time.monotonic()

  def lap(self) -> float:
    """Seconds since the last lap."""
    start, self._start = self._start, time.monotonic()
    return round(self._start - start, 3)
