"""Finalists, the winner, and the comparison with random cells."""

import contextlib
import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from nao_jax import pool, settings
from nao_jax.data.images import Examples, ImageData
from nao_jax.errors import UserError
from nao_jax.evaluators import local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.metrics import ACCURACY, PERPLEXITY
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.trials import Trials
from nao_jax.search import final_tables, finals
from nao_jax.search.config import FinalistConfig
from nao_jax.search.journal import SearchJournal
from nao_jax.search.proposer import Proposer
from nao_jax.strategies import Strategy, proposal
from nao_jax.strategies.proxies import Proxy
from nao_jax.strategies.uniform import sample_new
from nao_jax.tasks import image_presets
from nao_jax.tasks import images as image_task
from nao_jax.tasks.image_finals import ImageFinalConfig
from tests.stand_ins import Killed
from tests.tiny_candidates import SPACE

EPOCHS = 3


@dataclasses.dataclass(frozen=True)
class Candidates:
  """Trainings halfway through which bad cells are far better than good ones.

  Attributes:
    worth: final score of tokens; NaN diverges.
    trained: (tokens, seed, epoch) of each epoch, in order.
    kill_at: the number of epochs after which the process is lost.
    seed: seed of these trainings.
    last_only: see the candidates of images and text.
  """

  utility: object
  trained: list
  kill_at: int = 10**9
  seed: int = 0
  last_only: bool = False
  epochs: int = EPOCHS
  devices: int = 1
  each = WorkUnit(1, "words")

  def start(self, tokens):
    del tokens
    return np.full((), self.seed % 1000, np.float32)

  def epoch(self, tokens, states, epochs, between):
    (row,), (state,), (epoch,) = tokens, states, epochs
    if len(self.trained) >= self.kill_at:
      raise Killed
    between()
    self.trained.append((tuple(row.tolist()), self.seed, epoch))
    score = self.utility(row, self.seed) + float(state) / 1e6
    if epoch == 1:
      score = 100 - score
    wanted = local.measured_epochs(epochs, EPOCHS, self.last_only)[0]
    return [(state + 1, 0.5, score if wanted else -np.inf)]


@dataclasses.dataclass(frozen=True)
class Config:
  """The settings that are looked at."""

  finalists: int = 3
  finalist_share: float = 0.0
  finalist_rounds: int = 0
  finalist: FinalistConfig = FinalistConfig()
  evaluator: str = "shared"
  final: ImageFinalConfig = ImageFinalConfig(cells=2, repeats=2)


@dataclasses.dataclass(frozen=True)
class _Neighbours(Strategy):
  """Proposes neighbours of the best architecture, and keeps what it is told."""

  asked: list

  def ask(self, state, key, observed, limit):
    self.asked.append(observed)
    rows = SPACE.neighbours(observed.tokens[observed.order[0]])
    new = [row for row in rows if not {*SPACE.keys(row[None])} & observed.known]
    return state, proposal(SPACE.canonical(np.array(new[:limit], np.int32)))


def _proposer(asked: list) -> Proposer:
  return Proposer(_Neighbours(asked), SPACE, jax.random.key(3))


def _scored(count, seed=0):
  """A pool after its last scores: the later a member, the better."""
  tokens = sample_new(SPACE, jax.random.key(seed), count, set())
  first = pool.start(tokens[:0], tokens, 1)
  return pool.record(first, np.arange(float(count)), 0)


def _trainings(path, candidates, measure=ACCURACY, opened=None, signals=()):
  """Makes trainings as the tasks do; appends each opened part to `opened`."""

  def open_(training, part, last_only, stage=0):
    if opened is not None:
      opened.append(part)
    seed = finals.seed(7, training, stage)
    own = dataclasses.replace(candidates, seed=seed, last_only=last_only)
    known = Trials(
      path / "trials.sqlite", SPACE.name, {"part": part, "n": seed}
    )
    return contextlib.nullcontext(
      FromScratch(SPACE, local.Local(own), known, measure=measure)
    )

  return finals.Trainings(
    SPACE,
    measure,
    lambda stage: open_(0, "validation", False, stage),
    lambda number: open_(number, "test", True),
    signals,
  )


def _run(
  path, scored, candidates, config=None, *, steps=0, proposer=None, **changes
):
  often = CheckpointConfig(steps=steps)
  with SearchJournal(path, {}, 0, checkpoints=often) as journal:
    journal.rewind("round", 1)
    return finals.run(
      _trainings(path, candidates, **changes),
      scored,
      config or Config(),
      jax.random.key(1),
      journal,
      proposer=proposer,
    )


def _sum(row, _=0):
  return float(np.sum(row)) / 100


def test_trainings_that_are_killed_anywhere_end_as_those_that_were_not(
  tmp_path,
):
  config = Config(2, final=ImageFinalConfig(cells=1, repeats=2))
  scored, whole, pieces = _scored(8), [], []
  best = _run(tmp_path / "whole", scored, Candidates(_sum, whole), config)

  def go_on(kill_at):
    candidates = Candidates(_sum, pieces, kill_at)
    return _run(tmp_path / "stopped", scored, candidates, config, steps=1)

  # Within a finalist, at the end of the last, and within the comparison.
  for kill_at in (2, 4 * EPOCHS, 5 * EPOCHS + 1):
    with pytest.raises(Killed):
      go_on(kill_at)
  assert go_on(10**9) == best
  # Each epoch was saved, so none was trained twice.
  assert pieces == whole
  # 2 + 2 finalists once, 1 + 1 cells twice.
  assert len(whole) == EPOCHS * (4 + 2 * 2)
  lines = [
    json.loads(line)
    for line in (tmp_path / "stopped" / "history.jsonl")
    .read_text()
    .splitlines()
  ]
  stages = ["searched finalists", "random finalists"]
  assert [line["stage"] for line in lines] == stages
  assert not list((tmp_path / "stopped").glob("checkpoints_*"))


def test_finalists_of_later_rounds_are_proposed_from_trainings(tmp_path):
  """Neighbours of the best finalists are better than the pool's best."""
  config = Config(2, 0.0, 2, final=ImageFinalConfig(cells=1, repeats=1))
  asked, whole, pieces = [], [], []
  proposer = _proposer(asked)
  scored = _scored(8)
  run = functools.partial(
    _run, scored=scored, config=config, steps=1, proposer=proposer
  )
  best = run(tmp_path / "whole", candidates=Candidates(_sum, whole))
  searched = best["finalists"]["searched"]
  assert len(searched) == len(best["finalists"]["random"]) == 2 + 2 * 2
  assert best["tokens"] == searched[0]["tokens"]
  # They were trained as neighbours of the best; rows from 8 on are new.
  assert len({x["row"] for x in searched}) == 6
  assert [x["row"] for x in searched if x["place"]] == [7, 6]
  assert best["origin"] == 2  # The winner is from the second round.
  values = {x["row"]: x["validation_accuracy"] for x in searched}
  first, second = asked
  np.testing.assert_allclose(first.scores, [values[6], values[7]])
  np.testing.assert_array_equal(first.tokens, scored.tokens[6:])
  assert len(second.tokens) == 4
  for kill_at in (1, 6 * EPOCHS + 1, 9 * EPOCHS):
    with pytest.raises(Killed):
      run(tmp_path / "again", candidates=Candidates(_sum, pieces, kill_at))
  assert run(tmp_path / "again", candidates=Candidates(_sum, pieces)) == best
  assert pieces == whole


def test_a_random_cell_that_is_proposed_is_no_random_one(tmp_path):
  """It counts as searched, and as many random cells stay."""

  @dataclasses.dataclass(frozen=True)
  class Known(Strategy):
    def ask(self, state, key, observed, limit):
      return state, proposal(random[: limit - 1])

  config = Config(2, 0.0, 1, final=ImageFinalConfig(cells=1, repeats=1))
  run = functools.partial(_run, scored=_scored(8), config=config)
  first = run(
    tmp_path / "a", proposer=_proposer([]), candidates=Candidates(_sum, [])
  )
  random = np.int32([x["tokens"] for x in first["finalists"]["random"]])
  proposer = Proposer(Known(), SPACE, jax.random.key(3))
  best = run(tmp_path / "b", proposer=proposer, candidates=Candidates(_sum, []))
  searched, others = best["finalists"].values()
  assert len(searched) == len(others) == 3
  tokens = [x["tokens"] for x in searched]
  assert random[0].tolist() in tokens
  assert not any(x["tokens"] in tokens for x in others)


def test_the_best_of_each_stage_train_again_for_more_epochs(tmp_path):
  """The second stage reverses the order that all others find."""
  finalist = FinalistConfig(EPOCHS, "3:4,1:9")
  config = Config(5, finalist=finalist, final=ImageFinalConfig(cells=2))
  seeds = [finals.seed(7, 0, stage) for stage in range(3)]
  whole, pieces = [], []

  def utility(row, seed):
    return _sum(row) * (-1 if seed == seeds[1] else 1)

  def run(path, trained, kill_at=10**9):
    candidates = Candidates(utility, trained, kill_at)
    return _run(tmp_path / path, _scored(8), candidates, config, steps=1)

  best = run("whole", whole)
  order = [*dict.fromkeys((row, seed) for row, seed, _ in whole)]
  by_seed = [[row for row, seed in order if seed == own] for own in seeds]
  assert [len(rows) for rows in by_seed] == [2 * 5, 2 * 3, 2 * 1]
  for group in finals.GROUPS:
    own = best["finalists"][group]
    rows = [tuple(one["tokens"]) for one in own]
    of_group = [[x for x in stage if x in rows] for stage in by_seed]
    top = sorted(of_group[0], key=sum, reverse=True)
    assert sorted(map(sum, of_group[1])) == sorted(map(sum, top[:3]))
    assert sum(of_group[2][0]) == min(map(sum, of_group[1]))
    assert [len(one["stages"]) for one in own] == [3, 2, 2, 1, 1]
    assert [epochs for epochs, _ in own[0]["stages"]] == [EPOCHS, 4, 9]
    assert own[0]["validation_accuracy"] == own[0]["stages"][-1][1]
  assert best["tokens"] == best["finalists"]["searched"][0]["tokens"]
  for kill_at in (10 * EPOCHS + 1, 16 * EPOCHS + 1):
    with pytest.raises(Killed):
      run("again", pieces, kill_at)
  assert run("again", pieces) == best
  assert pieces == whole


@pytest.mark.parametrize(
  "stages", ["3", "a:4", "0:9", "3:0", "3:10", "2:20,2:30", "2:20,1:20"]
)
def test_stages_out_of_order_are_refused_by_name(stages):
  config = FinalistConfig(10, stages)
  with pytest.raises(UserError, match=f"`stages={stages}`"):
    settings.validate(config, config)


def test_a_stage_has_fewer_cells_than_there_are_finalists():
  config = settings.replace(
    image_presets.PRESETS["cifar10"], {"finalist.stages": "5:20"}
  )
  with pytest.raises(UserError, match=r"finalist\.stages=5:20`: 5 cells are"):
    settings.validate(config, config)
  settings.validate(dataclasses.replace(config, finalist_rounds=1))


def test_the_winner_is_the_finalist_that_trained_best(tmp_path):
  """Neither the score in the search nor a middle epoch decides."""
  scored = _scored(8)
  ranked = scored.tokens[scored.ranked(0)].tolist()

  def utility(row, _):
    # The second place in the search is the best, the fourth would be better.
    return {1: 0.9, 3: 1.0, 0: 0.5, 2: 0.7}.get(
      ranked.index(row.tolist()) if row.tolist() in ranked else -1, 0.1
    )

  best = _run(tmp_path / "run", scored, Candidates(utility, []))
  assert best["tokens"] == ranked[1]
  entries = best["finalists"]["searched"]
  assert [entry["place"] for entry in entries] == [2, 3, 1]
  assert [entry["rank"] for entry in entries] == [1, 2, 3]
  values = [entry["validation_accuracy"] for entry in entries]
  np.testing.assert_allclose(values, [0.9, 0.7, 0.5], atol=1e-2)
  assert best["validation_accuracy_as_finalist"] == values[0]
  assert best["validation_accuracy_with_shared_weights"] == 6
  assert best["compared"]["searched"] == [ranked[1], ranked[2]]


def _ranks(values):
  return np.array([sum(other <= own for other in values) for own in values])


def test_signals_rank_finalists_as_much_as_scores_do(tmp_path):
  """Also those of the pool, and those that a strategy learns from."""
  scored = _scored(8)
  order = np.random.default_rng(5).permutation(8)
  signal = Proxy("made", lambda rows: -rows @ 3 ** np.arange(rows.shape[1]))
  values = signal.values(SPACE, scored.tokens)
  assert len(set(values)) == 8
  merits = _ranks(scored.scores[:, 0]) + _ranks(values)
  first = sorted(range(8), key=lambda row: (-merits[row], -row))[:4]
  assert set(first) != {4, 5, 6, 7}
  asked, ranked = [], scored.tokens.tolist()

  def utility(row, _):
    row = row.tolist()
    return order[ranked.index(row)] / 8 if row in ranked else -1.0

  config = Config(4, 0.0, 1, final=ImageFinalConfig(cells=0))

  def run(asked, config, path):
    return _run(
      tmp_path / path,
      scored,
      Candidates(utility, []),
      config,
      proposer=_proposer(asked),
      signals=(signal,),
    )

  best = run(asked, config, "run")
  own, expected = sorted(first), _ranks(order[first]) + _ranks(values[first])
  (observed,) = asked
  np.testing.assert_array_equal(observed.tokens, scored.tokens[own])
  by_row = dict(zip(first, expected / 8, strict=True))
  np.testing.assert_allclose(observed.scores, [by_row[row] for row in own])
  entries = best["finalists"]["searched"]
  rows = np.array([x["tokens"] for x in entries])
  found = [x["validation_accuracy"] for x in entries]
  together = _ranks(found) + _ranks(signal.values(SPACE, rows))
  assert (np.diff(together) <= 0).all()
  assert np.argmax(found) != 0  # The score alone would choose another one.
  assert best["tokens"] == entries[0]["tokens"]
  places = {x["row"]: x["place"] for x in entries if x["place"]}
  assert places == {row: 8 - row for row in first}  # Those of the scores.
  # Random cells change neither the winner nor the order.
  beside = dataclasses.replace(config, final=ImageFinalConfig(cells=1))
  both = run([], beside, "beside")
  own = [x["tokens"] for x in both["finalists"]["searched"]]
  assert own == [x["tokens"] for x in entries]
  assert both["finalists"]["random"]


def test_a_lower_perplexity_wins_and_what_diverged_is_last(tmp_path):
  scored = _scored(8)
  ranked = scored.tokens[scored.ranked(0)].tolist()
  losses = [np.nan, 3.0, 2.0]

  def utility(row, _):
    row = row.tolist()
    return -losses[ranked.index(row)] if row in ranked else -4.0

  candidates = Candidates(utility, [])
  best = _run(tmp_path / "run", scored, candidates, measure=PERPLEXITY)
  entries = best["finalists"]["searched"]
  assert [entry["place"] for entry in entries] == [3, 2, 1]
  assert entries[0]["validation_perplexity"] == pytest.approx(
    np.exp(2), rel=1e-2
  )
  assert entries[-1]["validation_perplexity"] is None
  assert best["tokens"] == ranked[2]
  # Of a random cell, by its last epoch.
  found = np.array(best["test_perplexity"]["random"])
  np.testing.assert_allclose(found, np.exp(4), rtol=1e-2)


def test_the_test_part_is_opened_after_all_finalists_are_done(tmp_path):
  opened, trained = [], []
  _run(tmp_path / "run", _scored(8), Candidates(_sum, trained), opened=opened)
  assert opened == ["validation", "test", "test"]
  seeds = [seed for _, seed, _ in trained]
  assert seeds == sorted(seeds, key=[*dict.fromkeys(seeds)].index)


def test_all_cells_have_the_same_seed_and_each_training_another(tmp_path):
  trained = []
  best = _run(tmp_path / "run", _scored(8), Candidates(_sum, trained))
  cells = {}
  for row, seed, _ in trained:
    cells.setdefault(seed, set()).add(row)
  assert [len(rows) for rows in cells.values()] == [6, 4, 4]
  assert len({finals.seed(7, n) for n in range(3)} | {7}) == 4
  rows = best["test_accuracy"]["searched"] + best["test_accuracy"]["random"]
  assert all(len(set(row)) == 2 for row in rows)


@pytest.mark.parametrize("finalists", [0, 3])
def test_random_cells_are_not_in_the_pool(finalists, tmp_path):
  """The pool holds all but three of 64 architectures."""
  scored = _scored(61, seed=3)
  config = Config(finalists, final=ImageFinalConfig(cells=3, repeats=1))
  best = _run(tmp_path / "run", scored, Candidates(_sum, []), config)
  random = set(map(tuple, best["compared"]["random"]))
  assert random
  assert not random & set(map(tuple, scored.tokens.tolist()))


@pytest.mark.parametrize(
  ("count", "share", "places"),
  [
    (3, 0.5, [1, 3, 5]),
    (2, 1.0, [1, 10]),
    (1, 0.5, [1]),
    (4, 0.1, [1, 2, 3, 4]),
  ],
)
def test_finalists_are_spread_over_a_share_of_the_pool(
  count, share, places, tmp_path
):
  config = Config(count, share, final=ImageFinalConfig(cells=0))
  best = _run(tmp_path, _scored(10), Candidates(_sum, []), config)
  searched = best["finalists"]["searched"]
  # The pool's members are the better the later.
  assert sorted(x["place"] for x in searched) == places
  assert all(x["row"] == 10 - x["place"] for x in searched)


def test_a_small_pool_has_fewer_finalists_than_usual(tmp_path):
  config = Config(5, final=ImageFinalConfig(cells=0))
  best = _run(tmp_path / "run", _scored(3), Candidates(_sum, []), config)
  assert len(best["finalists"]["searched"]) == 3


def test_without_finalists_the_best_score_wins(tmp_path):
  scored, trained = _scored(8), []
  config = Config(0, final=ImageFinalConfig(cells=0))
  best = _run(tmp_path / "run", scored, Candidates(_sum, trained), config)
  assert not trained
  assert best["tokens"] == scored.tokens[-1].tolist()
  assert best["test_accuracy"] == {"searched": [], "random": []}
  assert "finalists" not in best


def test_without_a_comparison_no_random_cell_is_trained(tmp_path):
  trained = []
  config = Config(3, final=ImageFinalConfig(cells=0))
  best = _run(tmp_path / "run", _scored(8), Candidates(_sum, trained), config)
  assert len(trained) == 3 * EPOCHS
  assert best["finalists"]["random"] == []


def test_both_tables_and_the_winner_are_printed(tmp_path, capsys):
  best = _run(tmp_path / "run", _scored(8), Candidates(_sum, []))
  final_tables.show(best, ACCURACY)
  shown = capsys.readouterr().out
  for word in ("finalists", "place in the search", "comparison", "2 searched"):
    assert word in shown
  assert shown.count("searched") == 3 + 1
  assert f"winner: {best['text']}" in shown


@pytest.mark.parametrize("budget", ["final", "finalist"])
@pytest.mark.parametrize("name", image_presets.PRESETS)
def test_trainings_after_a_search_have_one_cosine_of_their_own(name, budget):
  """Whatever schedule and however many epochs the search has."""
  config = image_presets.PRESETS[name]
  part = Examples(np.zeros((640, 8, 8, 1), np.uint8), np.zeros(640, np.int32))
  data = ImageData("none", 10, part, part, part, None, None)
  trainer = image_task.final_trainer(config, data, getattr(config, budget))
  epochs = trainer.train.epochs
  assert epochs == getattr(config, budget).epochs
  rates = trainer.sgd.by_epoch(epochs)
  top, end = config.sgd.learning_rate, config.sgd.end_learning_rate
  assert float(rates(0)) == pytest.approx(top)
  angle = np.pi * (epochs - 1) / epochs
  last = end + (top - end) * (1 + np.cos(angle)) / 2
  assert float(rates(epochs - 1)) == pytest.approx(last, rel=1e-4)
  assert last < 0.1 * top or epochs == 1
