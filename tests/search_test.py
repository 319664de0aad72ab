import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from nao_jax import settings
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.errors import UserError
from nao_jax.runs import checkpoint
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.search import loop
from nao_jax.search.journal import SearchJournal
from nao_jax.search.loop import Journal, SearchConfig
from nao_jax.search.pool_parts import PoolParts
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.strategies import proposal
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.uniform import Uniform
from tests import tracing
from tests.stand_ins import Killed

SPACE = cnn.space(2)
CONFIG = SearchConfig(pool_size=24, rounds=2, new_per_round=6)


class Shelf(NamedTuple):
  """Count and total of the scores of a fake evaluator's pools so far."""

  count: np.ndarray
  total: np.ndarray


class Linear:
  """Scores are a fixed linear function of the tokens, plus the round.

  The state matters to the scores, so that a search that loses it is found out.
  """

  def __init__(self):
    self.seen = []
    self.weights = np.random.default_rng(3).normal(
      size=(SPACE.length, SPACE.vocabulary)
    )

  def init(self, key):
    return Shelf(np.zeros((), np.int32), jax.random.uniform(key))

  def replicate(self, state):
    return Shelf(*map(np.asarray, state))

  def value(self, tokens):
    """The mean weight of the tokens, [N, L] to [N]."""
    return self.weights[np.arange(SPACE.length), tokens].mean(1)

  def score(self, state, key, tokens, round_, progress, keep):
    progress("score pool", len(tokens), len(tokens))
    self.seen.append(tokens)
    noise = jax.random.uniform(jax.random.fold_in(key, round_), ()) * 1e-3
    scores = self.value(tokens) + noise + 1e-2 * state.total
    state = Shelf(state.count + 1, state.total + np.float32(scores.mean()))
    return state, scores.astype(np.float32)


def _nao():
  """One strategy for all tests: its fit compiles once."""
  return Nao(
    Controller(
      SPACE,
      ControllerConfig(
        embedding=4, hidden=8, mlp_layers=1, mlp_width=16, mlp_dropout=0.0
      ),
    ),
    FitConfig(epochs=200, batch=8, learning_rate=1e-2),
    NaoConfig(top_k=6, max_step_size=8, held_out=0.25),
  )


def _search(strategy, *, seed=0, evaluator=None, **arguments):
  return loop.run(
    SPACE,
    evaluator or Linear(),
    jax.random.key(seed),
    CONFIG,
    strategy=strategy,
    **arguments,
  )


@pytest.fixture(scope="module")
def evaluator():
  return Linear()


@pytest.fixture(scope="module")
def counted(evaluator):
  """A search with NAO: its pool, and the programs of each round."""

  class Counting(Journal):
    def __init__(self):
      self.by_round = []

    def end_round(self, state, report):
      self.by_round.append(dict(found))
      found.clear()

    def progress(self, phase, done, total, note=""):
      pass

  journal = Counting()
  with tracing.programs() as found:
    pool = _search(_nao(), evaluator=evaluator, journal=journal)
  return pool, journal.by_round


@pytest.fixture(scope="module")
def pool(counted):
  """After a search with NAO."""
  return counted[0]


@pytest.fixture(scope="module")
def uniform_pool():
  return _search(Uniform(SPACE))


def _assert_equal(one, other):
  for name, a, b in zip(one._fields, one, other, strict=True):
    np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture(scope="module", params=["pool", "uniform_pool"])
def any_pool(request):
  return request.getfixturevalue(request.param)


def test_the_pool_keeps_its_size(any_pool):
  scored = np.sum(~np.isnan(any_pool.scores), axis=0)
  assert scored.tolist() == [CONFIG.pool_size] * (CONFIG.rounds + 1)
  assert len(any_pool.members) == CONFIG.pool_size


def test_the_evaluator_is_given_the_members_in_order(evaluator, pool):
  for round_, tokens in enumerate(evaluator.seen):
    scored = ~np.isnan(pool.scores[:, round_])
    np.testing.assert_array_equal(tokens, pool.tokens[scored])


def test_no_two_architectures_are_one_function(any_pool):
  assert len(set(SPACE.keys(any_pool.tokens))) == len(any_pool.tokens)
  assert all(SPACE.accepts(row) for row in any_pool.tokens.tolist())


def test_proposals_enter_in_every_round(any_pool):
  newest = [np.sum(any_pool.origins == r) for r in range(CONFIG.rounds + 1)]
  assert newest[0] == CONFIG.pool_size
  assert all(0 < count <= CONFIG.new_per_round for count in newest[1:])


def test_the_worst_members_are_replaced(any_pool):
  scored = ~np.isnan(any_pool.scores)
  for round_ in range(CONFIG.rounds):
    before, after = scored[:, round_], scored[:, round_ + 1]
    gone, stayed = before & ~after, before & after
    assert np.sum(gone) == np.sum(any_pool.origins == round_ + 1)
    scores = any_pool.scores[:, round_]
    assert scores[gone].max() <= scores[stayed].min()


def test_who_was_replaced_never_comes_back(any_pool):
  alive = ~np.isnan(any_pool.scores)
  for row, origin in zip(alive, any_pool.origins, strict=True):
    assert not row[:origin].any()
    assert (np.diff(row[origin:].astype(int)) <= 0).all()
  np.testing.assert_array_equal(alive[:, -1], any_pool.alive)


def test_parents_were_among_the_best_when_their_children_were_made(pool):
  children = np.flatnonzero(pool.origins > 0)
  for child in children:
    best = pool.ranked(pool.origins[child] - 1)[: _nao().config.top_k]
    assert pool.parents[child] in best
  assert np.isin(pool.step_sizes[children], np.arange(1, 9)).all()


def test_the_random_pool_has_no_parents(pool, uniform_pool):
  first = pool.origins == 0
  assert (pool.parents[first] == -1).all()
  assert not pool.step_sizes[first].any()
  assert (uniform_pool.parents == -1).all()
  assert not uniform_pool.step_sizes.any()


def test_proposals_of_nao_are_better_than_random_ones(evaluator):
  # With 100 random architectures the mean is known to a tenth of its spread.
  random = evaluator.value(np.asarray(SPACE.sample(jax.random.key(9), 100)))
  pools = [_search(_nao(), seed=seed) for seed in range(3)]
  proposed = [
    evaluator.value(pool.tokens[pool.origins > 0]).mean() for pool in pools
  ]
  assert np.mean(proposed) > random.mean() + random.std() / 2


def test_one_key_gives_one_pool(pool):
  _assert_equal(pool, _search(_nao()))


def test_the_rounds_after_the_first_trace_nothing_anew(counted):
  first, *later = counted[1]
  for name in ("fit", "reconstruct", "predict", "propose"):
    assert f"compile jit({name})" in first
  assert not any(later)


def test_what_is_written_down_does_not_change_a_search(pool, tmp_path):
  """Neither reports, nor TensorBoard, nor a checkpoint after every call."""
  place, always = tmp_path / "run", CheckpointConfig(minutes=0.0)
  with SearchJournal(
    place, {"seed": 0}, CONFIG.rounds, checkpoints=always
  ) as journal:
    _assert_equal(pool, _search(_nao(), journal=journal))
  assert list(place.glob("events.*"))
  assert len((place / "history.jsonl").read_text().splitlines()) == 3


def test_another_key_gives_another_pool(uniform_pool):
  other = _search(Uniform(SPACE), seed=1)
  assert not set(SPACE.keys(other.tokens)) <= set(
    SPACE.keys(uniform_pool.tokens)
  )


def test_given_architectures_start_in_the_pool(uniform_pool):
  given = uniform_pool.tokens[:3]
  pool = _search(Uniform(SPACE), given=given)
  np.testing.assert_array_equal(pool.tokens[pool.origins == -1], given)
  assert np.sum(pool.origins == 0) == CONFIG.pool_size - len(given)
  assert not np.isnan(pool.scores[:3, 0]).any()


def test_a_space_that_is_too_small_is_refused():
  small = Space("small", ((1, 2), (1, 2), (1,)))
  with pytest.raises(UserError, match=r"`pool_size=24`: .* about 4 "):
    loop.run(small, None, jax.random.key(0), CONFIG, strategy=Uniform(small))


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"pool_size": 1}, "`pool_size=1`:"),
    ({"rounds": -1}, "`rounds=-1`:"),
    ({"new_per_round": 0}, "`new_per_round=0`:"),
    ({"new_per_round": 600}, "`new_per_round=600`:"),
  ],
)
def test_impossible_sizes_are_refused(changes, named):
  with pytest.raises(UserError, match=named):
    settings.validate(SearchConfig(**changes))


class Mortal(SearchJournal):
  """A workdir whose machine is lost before or after a round is saved."""

  def __init__(self, *arguments, round_, saved):
    super().__init__(*arguments)
    self.end, self.saved = round_, saved

  def end_round(self, state, report):
    if report["round"] == self.end and not self.saved:
      raise Killed
    super().end_round(state, report)
    if report["round"] == self.end:
      raise Killed


@pytest.mark.parametrize(("round_", "saved"), [(0, True), (2, False)])
def test_a_resumed_search_ends_as_an_uninterrupted_one(
  pool, tmp_path, round_, saved
):
  place = tmp_path / "run", {"seed": 0}, CONFIG.rounds
  with (
    Mortal(*place, round_=round_, saved=saved) as journal,
    pytest.raises(Killed),
  ):
    _search(_nao(), journal=journal)
  evaluator = Linear()
  with SearchJournal(*place) as journal:
    resumed = _search(_nao(), evaluator=evaluator, journal=journal)
  _assert_equal(pool, resumed)
  assert len(evaluator.seen) == CONFIG.rounds + 1 - (round_ + saved)
  assert [row["round"] for row in journal.history()] == [0, 1, 2]


@pytest.mark.parametrize("table", [True, False])
def test_a_search_goes_on_from_the_whole_pool_that_earlier_versions_saved(
  pool, tmp_path, monkeypatch, table
):
  save, place = checkpoint.save, (tmp_path / "run", {"seed": 0}, CONFIG.rounds)

  def save_earlier(directory, state):
    columns = (*state.pool[:5], state.pool.scores) if table else state.pool
    save(directory, state._replace(pool=columns))

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "save", save_earlier)
    patch.setattr(PoolParts, "add", lambda *_: None)
    with (
      Mortal(*place, round_=1, saved=True) as journal,
      pytest.raises(Killed),
    ):
      _search(_nao(), journal=journal)
  assert not (tmp_path / "run/pool").exists()
  for _ in range(2):  # The second goes on from the end, with parts.
    with SearchJournal(*place) as journal:
      _assert_equal(pool, _search(_nao(), journal=journal))


def test_rounds_of_a_journal_that_remembers_nothing_are_reported():
  class Listener(Journal):
    def __init__(self):
      self.rounds, self.phases = [], set()

    def end_round(self, state, report):
      self.rounds.append((state.round, report["round"]))

    def progress(self, phase, done, total, note=""):
      self.phases.add((phase, done, total))

  listener = Listener()
  _search(Uniform(SPACE), journal=listener)
  assert listener.rounds == [(1, 0), (2, 1), (3, 2)]
  proposals = "propose", 0, CONFIG.new_per_round
  assert listener.phases == {("score pool", 24, 24), proposals}


@pytest.mark.parametrize("strategy", [Evolution(SPACE), Local(SPACE)])
def test_the_state_of_every_strategy_is_remembered(strategy, tmp_path):
  whole = _search(strategy)
  place = tmp_path / "run", {"seed": 0}, CONFIG.rounds
  with Mortal(*place, round_=1, saved=True) as journal, pytest.raises(Killed):
    _search(strategy, journal=journal)
  with SearchJournal(*place) as journal:
    _assert_equal(whole, _search(strategy, journal=journal))


def test_a_search_ends_when_a_score_is_enough():
  evaluator = Linear()
  pool = _search(Uniform(SPACE), evaluator=evaluator, enough=-np.inf)
  assert len(evaluator.seen) == 1
  assert np.isnan(pool.scores[:, 1:]).all()
  assert len(pool.tokens) == CONFIG.pool_size  # Nothing was proposed for it.


class Diverging(Linear):
  """Evaluator some or all of whose scores are not numbers."""

  def __init__(self, bad):
    super().__init__()
    self.bad = bad

  def score(self, *arguments):
    state, scores = super().score(*arguments)
    return state, np.where(np.arange(len(scores)) % self.bad, scores, np.nan)


def test_what_diverged_counts_as_the_worst():
  pool = _search(Uniform(SPACE), evaluator=Diverging(3))
  assert len(pool.members) == CONFIG.pool_size
  first = pool.scores[: CONFIG.pool_size, 0]
  assert (first[::3] == first.min()).all()


def test_a_search_of_nothing_but_failures_says_so():
  with pytest.raises(UserError, match=r"round 0: .* smaller `learning_rate`"):
    _search(Uniform(SPACE), evaluator=Diverging(1))


class Repeating:
  """A strategy that proposes nothing new."""

  def __init__(self):
    self.init = lambda key: ()
    self.tell = lambda state, *_: (state, {})
    self.ask = lambda state, *_: (
      state,
      proposal(np.zeros((0, SPACE.length), np.int32)),
    )


class Keys(Repeating):
  """Remembers the keys of each round."""

  def __init__(self):
    super().__init__()
    self.found = []
    self.tell = lambda state, key, *_: (self._remember(key) or state, {})
    ask = self.ask
    self.ask = lambda state, key, *rest: (
      self._remember(key) or ask(state, key, *rest)
    )

  def _remember(self, key):
    self.found.append(tuple(jax.random.key_data(key).tolist()))


def test_every_round_has_keys_of_its_own():
  strategy = Keys()
  pool = _search(strategy)
  assert len(set(strategy.found)) == len(strategy.found) == 2 * CONFIG.rounds
  # What is drawn where a strategy is at a loss differs, too, and would even if
  # the search did not know the round before.
  drawn = [pool.tokens[pool.origins == 1 + r] for r in range(CONFIG.rounds)]
  ours, theirs = (set(SPACE.keys(rows)) for rows in drawn)
  assert ours.isdisjoint(theirs)


RANDOM = SearchConfig(
  pool_size=24, rounds=2, new_per_round=6, random_per_round=5
)


@pytest.mark.parametrize("extend", [False, True])
def test_random_architectures_enter_beside_the_proposals(extend):
  config = dataclasses.replace(RANDOM, extend=extend)
  reports = []

  class Reports(Journal):
    def end_round(self, state, report):
      reports.append(report)

    def progress(self, phase, done, total, note=""):
      pass

  pool = loop.run(
    SPACE,
    Linear(),
    jax.random.key(0),
    config,
    strategy=Uniform(SPACE),
    journal=Reports(),
  )
  scored = ~np.isnan(pool.scores)
  sizes = [24, 35, 46] if extend else [24, 24, 24]
  assert scored.sum(0).tolist() == sizes
  assert len(set(SPACE.keys(pool.tokens))) == len(pool.tokens) == 46
  # They are of no round's making, and come after its proposals.
  entered = [[round_] * 6 + [0] * 5 for round_ in (1, 2)]
  assert pool.origins.tolist() == [0] * 24 + entered[0] + entered[1]
  assert (pool.parents == -1).all()
  assert [report.get("random") for report in reports] == [5, 5, None]
  for round_ in range(config.rounds):
    gone = scored[:, round_] & ~scored[:, round_ + 1]
    stayed = scored[:, round_] & scored[:, round_ + 1]
    assert gone.sum() == (0 if extend else 11)
    if gone.any():
      scores = pool.scores[:, round_]
      assert scores[gone].max() <= scores[stayed].min()


def test_what_enters_in_a_round_must_leave_somebody_in_the_pool():
  config = dataclasses.replace(RANDOM, random_per_round=18)
  with pytest.raises(UserError, match="`random_per_round=18`: some of the mem"):
    loop.run(SPACE, Linear(), jax.random.key(0), config)


def test_random_members_take_the_place_of_known_proposals(caplog):
  pool = _search(Repeating())
  newest = [np.sum(pool.origins == r) for r in range(CONFIG.rounds + 1)]
  assert newest == [CONFIG.pool_size, *[CONFIG.new_per_round] * CONFIG.rounds]
  assert len(set(SPACE.keys(pool.tokens))) == len(pool.tokens)
  assert "round 0: every proposal was known; 6 random ones" in caplog.text


def test_a_space_that_is_used_up_does_not_keep_a_search_going(caplog):
  small = Space("small", ((1, 2), (1, 2), (1,)))
  evaluator = Linear()
  evaluator.value = lambda tokens: tokens.mean(1)
  pool = loop.run(
    small,
    evaluator,
    jax.random.key(0),
    SearchConfig(pool_size=3, rounds=3, new_per_round=2),
    strategy=Repeating(),
  )
  assert len(pool.tokens) == 4
  assert "0 random ones take their place, as the space is used up" in (
    caplog.text
  )


def test_equal_scores_do_not_stop_a_search():
  evaluator = Linear()
  evaluator.value = lambda tokens: np.zeros(len(tokens))
  pool = _search(_nao(), evaluator=evaluator)
  assert len(pool.members) == CONFIG.pool_size
  assert np.sum(pool.origins > 0)


class Stopping(SearchJournal):
  """Journal that fails after it has kept a number of states."""

  def __init__(self, *arguments, after):
    every = CheckpointConfig(steps=1)
    super().__init__(*arguments, checkpoints=every)
    self.after = after

  def keep(self, state, steps, *, last=False):
    super().keep(state, steps, last=last)
    self.after -= 1
    if not self.after:
      raise Killed


@pytest.mark.parametrize("after", [1, 4, 11, 13])
def test_a_search_goes_on_within_a_round(pool, tmp_path, after):
  """Stops once scored, within and after the first fit; in the second round."""
  place = tmp_path / "run", {"seed": 0}, CONFIG.rounds
  with Stopping(*place, after=after) as journal, pytest.raises(Killed):
    _search(_nao(), journal=journal)
  evaluator = Linear()
  with SearchJournal(*place) as journal:
    resumed = _search(_nao(), evaluator=evaluator, journal=journal)
  _assert_equal(pool, resumed)
  # What was scored before is not scored again.
  assert len(evaluator.seen) == CONFIG.rounds - (after == 13)
