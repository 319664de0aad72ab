"""A space and a function of one's own, searched by one call."""

import signal

import jax
import numpy as np
import pytest

from nao_jax.errors import Stopped, UserError
from nao_jax.evaluators.function import Function
from nao_jax.objectives import CostConstraint
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import slots
from nao_jax.strategies import nao_plus
from nao_jax.strategies.evolution import Evolution

SPACE = slots.space("own", {f"slot {at}": (1, 2, 3, 4) for at in range(5)})
CONFIG = SearchConfig(pool_size=8, rounds=3, new_per_round=3, extend=True)
WEIGHTS = np.random.default_rng(0).normal(size=(5, 4))


class Scores:
  """A function of tokens that records its calls."""

  def __init__(self):
    self.asked = []

  def __call__(self, tokens):
    self.asked.append(np.array(tokens))
    chosen = SPACE.indices(tokens).values()
    return sum(map(np.take, WEIGHTS, chosen))


def _search(scores, *, config=CONFIG, key=0, **arguments):
  arguments.setdefault("strategy", Evolution(SPACE))
  return loop.run(SPACE, scores, jax.random.key(key), config, **arguments)


@pytest.fixture(scope="module")
def pool():
  return _search(Scores())


def _assert_equal(one, other):
  for name, a, b in zip(one._fields, one, other, strict=True):
    np.testing.assert_array_equal(a, b, err_msg=name)


def test_every_architecture_is_asked_once(pool):
  scores = Scores()
  _assert_equal(pool, _search(scores))
  np.testing.assert_array_equal(np.concatenate(scores.asked), pool.tokens)
  assert len(scores.asked) == 1 + CONFIG.rounds


def test_a_member_has_the_same_score_in_every_round(pool):
  for row in pool.scores:
    assert len(set(row[~np.isnan(row)])) == 1
  np.testing.assert_allclose(
    pool.scores[:, -1], Scores()(pool.tokens), rtol=1e-6
  )


def test_the_best_row_has_the_best_score(pool):
  assert pool.scores[pool.best, -1] == np.nanmax(pool.scores)


def test_batches_have_one_shape_and_do_not_change_the_pool(pool):
  scores = Scores()
  _assert_equal(pool, _search(Function(scores, batch=4)))
  assert {len(tokens) for tokens in scores.asked} == {4}


def test_scores_of_a_wrong_shape_are_refused():
  with pytest.raises(UserError, match=r"array \[8, 1\] for 8 .*\[8\]"):
    _search(lambda tokens: tokens[:, :1])


class Interrupting(Scores):
  """Somebody presses Ctrl-C in one of the calls."""

  def __init__(self, call):
    super().__init__()
    self.call = call

  def __call__(self, tokens):
    if len(self.asked) == self.call:
      signal.raise_signal(signal.SIGINT)
    return super().__call__(tokens)


@pytest.mark.parametrize("call", [0, 2, 4])
def test_the_same_call_goes_on_where_it_was_stopped(pool, tmp_path, call):
  """Batches of 4; stops in the first batch, in a round, in a later round."""
  first, second = Interrupting(call), Scores()
  with pytest.raises(Stopped):
    _search(Function(first, batch=4), workdir=tmp_path / "run")
  resumed = _search(Function(second, batch=4), workdir=tmp_path / "run")
  _assert_equal(pool, resumed)
  assert len(first.asked) == call + 1
  assert len(first.asked) + len(second.asked) == 5


def test_a_search_that_ended_gives_its_pool_again(pool, tmp_path):
  for asked in (4, 0):
    scores = Scores()
    _assert_equal(pool, _search(scores, workdir=tmp_path / "run"))
    assert len(scores.asked) == asked
  assert SPACE.text(pool.tokens[pool.best]) in (
    (tmp_path / "run/best.json").read_text()
  )


def test_a_search_that_had_enough_does_not_go_on(tmp_path):
  for _ in range(2):
    pool = _search(Scores(), enough=-np.inf, workdir=tmp_path / "run")
    assert np.isnan(pool.scores[:, 1:]).all()
    assert not np.isnan(pool.scores[pool.best, 0])


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"key": 1}, "key"),
    ({"config": SearchConfig(8, 2, 3, True)}, "search"),
    ({"strategy": None}, "strategy"),
  ],
)
def test_a_workdir_of_another_search_is_refused(tmp_path, change, named):
  _search(Scores(), enough=-np.inf, workdir=tmp_path / "run")
  with pytest.raises(UserError, match=f"holds another run .*{named}.* is "):
    _search(Scores(), workdir=tmp_path / "run", **change)


def test_a_workdir_and_a_journal_are_too_much(tmp_path):
  with pytest.raises(TypeError, match="not both"):
    _search(Scores(), workdir=tmp_path / "run", journal=loop.Journal())


def test_given_architectures_may_be_lists_of_any_integers():
  given = [[1, 6, 11, 16, 20]]
  pools = [
    _search(Scores(), given=rows)
    for rows in (given, np.int64(given), np.int32(given))
  ]
  assert pools[0].tokens.dtype == np.int32
  for other in pools[1:]:
    _assert_equal(pools[0], other)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ([[1, 6, 11, 16, 99]], r"given\[0\]: token 99 .*slot 4"),
    (
      [[1, 6, 11, 16, 20]] * 2,
      "`given`: two of the architectures are the same",
    ),
    ([[1, 6, 11, 16, 20]] * 9, "`given`: 9 architectures do not fit"),
  ],
)
def test_given_architectures_that_cannot_be_are_refused(given, message):
  with pytest.raises(UserError, match=message):
    _search(Scores(), given=given)


def test_a_score_as_good_as_enough_ends_the_search_whatever_its_bits():
  # As a float32, 0.9 is a little less.
  pool = _search(lambda tokens: np.full(len(tokens), 0.9), enough=0.9)
  assert len(pool.tokens) == CONFIG.pool_size
  assert not np.isnan(pool.scores[:, 0]).any()


def test_another_end_is_another_search(tmp_path):
  _search(Scores(), enough=-1e9, workdir=tmp_path / "run")
  with pytest.raises(UserError, match="enough is"):
    _search(Scores(), workdir=tmp_path / "run")


def test_a_controller_that_estimates_no_costs_is_refused_at_once():
  scores = Scores()
  constraint = CostConstraint(
    "size", lambda tokens: tokens.sum(-1) + 1.0, limit=99.0
  )
  with pytest.raises(UserError, match="does not estimate"):
    _search(scores, strategy=nao_plus.small(SPACE), constraint=constraint)
  assert not scores.asked
