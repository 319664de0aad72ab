"""The final comparison, stopped and resumed."""

import jax
import numpy as np
import pytest

from nao_jax import outcome, pool
from nao_jax.data.images import Examples, ImageData
from nao_jax.evaluators.shared import Alone, SharedWeights
from nao_jax.journal import SearchJournal
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import sample_new

SPACE = cnn.space(2)
REPEATS = 2


class Killed(Exception):
  pass


@pytest.fixture(scope="module")
def scored():
  """A pool after its last scores."""
  tokens = sample_new(SPACE, jax.random.key(0), 4, set())
  first = pool.start(tokens[:0], tokens, 1)
  return pool.record(first, np.arange(4.0), 0)


def _compare(scored, path, train):
  with SearchJournal(path, {}, 0) as journal:
    return outcome.compare(
      SPACE, scored, 2, jax.random.key(1), train, journal, "accuracy"
    )


def test_a_comparison_goes_on_after_each_training(scored, tmp_path):
  trained = []

  def train(tokens, known, shown):
    for repeat in range(known, REPEATS):
      trained.append((tokens.tobytes(), repeat))
      if len(trained) in (2, 6):
        raise Killed
      shown(repeat + 1, REPEATS)
      yield np.nan if repeat else float(tokens.sum())

  for _ in range(2):
    with pytest.raises(Killed):
      _compare(scored, tmp_path / "run", train)
  found = _compare(scored, tmp_path / "run", train)
  assert {name: np.shape(rows) for name, rows in found.items()} == {
    "searched": (2, REPEATS),
    "random": (2, REPEATS),
  }
  # Only the two that were under way were begun twice.
  assert len(trained) == 4 * REPEATS + 2
  assert len(set(trained)) == 4 * REPEATS
  assert found["searched"][0] == [float(scored.tokens[3].sum()), None]
  assert _compare(scored, tmp_path / "run", train) == found


def test_trainings_in_the_supernets_program_come_one_by_one(monkeypatch):
  """And are seen in between, so that a signal need not wait for their end."""

  class Trainer:
    steps = 3

  def score(self, state, key, tokens, round_, progress):
    for done in range(4):
      progress("train supernet", done, 3)
    progress("score pool", 1, 1)
    return state, np.float32([jax.random.uniform(key)])

  monkeypatch.setattr(SharedWeights, "init", lambda self, key: None)
  monkeypatch.setattr(SharedWeights, "score", score)
  none = Examples(np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int32))
  data = ImageData("none", 2, none, none, none, None, None)
  alone, seen = Alone(Trainer(), data, REPEATS), []
  tokens, key = np.zeros(SPACE.length, np.int32), jax.random.key(0)
  every = list(
    alone.test_accuracies(key, tokens, 0, lambda *at: seen.append(at))
  )
  assert seen == [(done, 6) for done in (0, 1, 2, 3, 3, 4, 5, 6)]
  assert len(set(every)) == REPEATS
  assert list(alone.test_accuracies(key, tokens, 1)) == every[1:]
