"""Training of candidates on local devices, and the state that is left."""

import itertools

import jax
import numpy as np

from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs.trials import Trials
from tests.stand_ins import Killed, nothing
from tests.tiny_candidates import SPACE, TinyCandidates

ROWS = np.int32([[1, 2, 3], [2, 2, 2], [4, 1, 1]])


def _bytes(state):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def _run(evaluator, state, kill_at):
  """Scores all; returns the last state kept, and whether it came to the end."""
  kept, updates = state, itertools.count()

  def keep(state, _):
    nonlocal kept
    if next(updates) == kill_at:
      raise Killed
    kept = state

  try:
    kept, _ = evaluator.score(state, None, ROWS, 0, nothing, keep)
  except Killed:
    return kept, False
  return kept, True


def test_runs_end_in_the_same_state_wherever_one_was_killed(tmp_path):
  for kill_at in itertools.count():
    folder = tmp_path / str(kill_at)
    folder.mkdir()
    candidates = TinyCandidates(str(folder))
    trials = Trials(folder / "trials.sqlite", SPACE.name, {})
    evaluator = FromScratch(SPACE, Local(candidates), trials)
    first = evaluator.init(None)
    state, whole = _run(evaluator, first, kill_at)
    if not whole:
      # A trial that ended just before the kill is in the file, but its training
      # is still in the state.
      state, _ = _run(evaluator, state, None)
    assert _bytes(state.executor) == _bytes(first.executor)
    if whole:
      break
  assert kill_at == len(ROWS) * candidates.epochs
