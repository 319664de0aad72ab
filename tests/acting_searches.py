"""Consequences that searches of all tasks have, in a toy space."""

import functools

import jax
import numpy as np
import pytest

from nao_jax.objectives import CostConstraint
from nao_jax.search import finals, loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import slots
from nao_jax.strategies.choice import strategy
from nao_jax.strategies.uniform import Uniform
from nao_jax.tasks.task import Stage
from tests import acting

KEY = jax.random.key(0)
TOY = slots.space("toy", {f"slot {n}": ("a", "b", "c", "d") for n in range(5)})


class _Scores:
  """An evaluator of the toy space, with all that an asynchronous one has."""

  def __init__(self):
    self.max_pending = []

  def init(self, key):
    del key
    return ()

  def replicate(self, state):
    return state

  def score(self, state, key, tokens, *_):
    del key
    return state, np.float32(tokens.sum(1))

  def score_async(self, state, key, tokens, *_, max_pending):
    self.max_pending.append(max_pending)
    state, scores = self.score(state, key, tokens)
    return state, np.where(np.arange(len(scores)) < max_pending, np.nan, scores)


@functools.cache
def loop_of(config: SearchConfig) -> str:
  scores = _Scores()
  pool = loop.run(TOY, scores, KEY, config, strategy=Uniform(TOY))
  return acting.digest(pool.tokens, pool.scores, scores.max_pending)


def proposals(config, constraint):
  """Yields what the strategy does in the toy space, with its own costs.

  What its first programs do comes first: most settings act there, and the
  others are not traced for them.
  """
  chosen = strategy(
    config, TOY, constraint is not None and constraint.uses_cost_gradient
  )
  asked = ()
  if constraint is not None:
    asked = (constraint.limit, constraint.multi_objective, constraint.penalty)
  for programs in (1, 2, 3, None):
    yield from _proposed(chosen, config.search.pool_size, programs, *asked)


@functools.cache
def _proposed(chosen, size, programs, *asked) -> list[str]:
  constraint = None
  if asked:
    constraint = CostConstraint(
      "tokens", lambda rows: rows.sum(1) + 1.0, *asked
    )
  tokens = np.asarray(TOY.sample(KEY, size))
  with pytest.MonkeyPatch.context() as patch:
    return acting.proposing(chosen, TOY, tokens, patch, constraint, programs)


def retrained(task):
  """Yields the candidates of the stages after a search that there are."""
  config = task.config
  for budget, part, wanted in (
    (config.finalist, "validation", config.finalists),
    (config.final, "test", config.final.cells),
  ):
    if wanted:
      seed = finals.seed(config.seed, 0)
      yield task.retrained(Stage(budget, seed, part, False))[0]
