"""Reports: what a page says is what is on disk, and nothing leaves the page."""

import contextlib
import dataclasses
from html.parser import HTMLParser
import json
import re
import shutil
import sqlite3
import subprocess
import sys

from hypothesis import given, strategies
import jax
import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.errors import UserError
from nao_jax.metrics import ACCURACY, PERPLEXITY
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.report import (
  analysis,
  baseline,
  comparison_page,
  learning_curves,
  search_page,
)
from nao_jax.report import run as runs
from nao_jax.report.page import Page, Section, Table, Tile, render
from nao_jax.runs.workdir import flatten, unflatten
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.search.journal import SearchJournal
from nao_jax.spaces import cnn, rnn
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from nao_jax.strategies.projection import project
from nao_jax.strategies.uniform import Uniform
from nao_jax.tasks import known, text_presets
from nao_jax.tasks.image_finals import ImageFinalConfig
from nao_jax.tasks.image_presets import SearchCnnConfig
from tests import browser as browsers

SPACE = cnn.space(2)
ROUNDS = 2
SEARCH = SearchConfig(pool_size=14, rounds=ROUNDS, new_per_round=6)
EVIL = '<script>alert("1")</script> & <b>digits</b>'
SIZES = ControllerConfig(
  embedding=4, hidden=8, mlp_layers=1, mlp_width=8, mlp_dropout=0.0
)
NAO = Nao(
  Controller(SPACE, SIZES),
  FitConfig(epochs=100, batch=8, learning_rate=1e-2),
  NaoConfig(top_k=8, max_step_size=9, held_out=0.3),
)
PLUS = NaoPlus(
  Controller(SPACE, SIZES),
  NaoPlusConfig(
    members=2, pretraining=10, steps=2, most_steps=10, labelled=4,
    unlabelled=2, seeds=3, step_sizes=(0.5, 2.0), passes=2,
  ),
)  # fmt: skip
FINAL = {"searched": [[0.9, 0.8], [0.7, None]], "random": [[0.5, 0.6]] * 2}


class Linear:
  """Scores between 0 and 1, linear in the tokens, that rise by the round."""

  def init(self, key):
    return ()

  def replicate(self, state):
    return state

  def score(self, state, key, tokens, round_, progress, keep):
    weights = np.random.default_rng(3).uniform(0, 0.5, (100, 100))
    scores = weights[np.arange(tokens.shape[1]), tokens].mean(1)
    return state, (scores + 0.1 * round_).astype(np.float32)


class Losses(Linear):
  """Minus nats a word."""

  def score(self, *arguments):
    state, scores = super().score(*arguments)
    return state, scores - 4


def _settings(strategy, seed=0, **changes):
  config = SearchCnnConfig(
    dataset=EVIL,
    strategy=strategy,
    seed=seed,
    network=NetworkConfig(nodes=2, cells_per_stage=1, channels=4),
    search=SEARCH,
  )
  return flatten(dataclasses.replace(config, **changes)) | {"arch": []}


def _search(path, settings, strategy, space=SPACE, evaluator=None, **ends):
  """A real search of which the directory is all that is left."""
  journal = ends.pop("journal", SearchJournal)
  with journal(path, settings, ROUNDS) as journal:
    loop.run(
      space,
      evaluator or Linear(),
      jax.random.key(settings["seed"]),
      SEARCH,
      strategy=strategy,
      journal=journal,
    )
    if ends:
      journal.finish(ends)
  return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def nao(home):
  settings = _settings("nao")
  ends = {"test_accuracy": FINAL, "image": [8, 8, 1]}
  return _search(home / "nao", settings, NAO, **ends)


@pytest.fixture(scope="module")
def plus(home):
  return _search(home / "plus", _settings("nao_plus"), PLUS)


@pytest.fixture(scope="module")
def uniform(home):
  settings, ends = _settings("random"), {"test_accuracy": {}}
  return _search(home / "uniform", settings, Uniform(SPACE), **ends)


@pytest.fixture(scope="module")
def recurrent(home):
  config = text_presets.SearchRnnConfig(
    text=EVIL,
    strategy="random",
    network=LanguageModelConfig(nodes=3, width=8, vocabulary=50),
    search=SEARCH,
  )
  space, settings = rnn.space(3), flatten(config) | {"arch": []}
  ends = {"test_perplexity": {"searched": [[60.5]], "random": [[58.25]]}}
  path = home / "recurrent"
  return _search(path, settings, Uniform(space), space, Losses(), **ends)


class Reader(HTMLParser):
  """Parser of a page, for its text and elements as a browser sees them."""

  VOID = ("meta", "link", "br", "img", "use")

  def __init__(self, text):
    super().__init__()
    self.text, self.open = text, []
    self.tags, self.attributes, self.cells = [], [], []
    self.words = []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes += [(tag, *pair) for pair in attributes]
    if tag not in self.VOID:
      self.open.append(tag)
    if tag in ("td", "th"):
      self.cells.append("")

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes += [(tag, *pair) for pair in attributes]

  def handle_endtag(self, tag):
    if tag not in self.VOID:
      assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] in ("td", "th"):
      self.cells[-1] += data
    if not {"style", "svg"} & {*self.open}:
      self.words.append(data)

  @property
  def said(self):
    return " ".join(" ".join(self.words).split())

  def rows(self, width):
    """The cells as rows of so many, of all tables together."""
    return list(zip(*(self.cells[at:] for at in range(width)), strict=False))


def _page(path):
  return Reader(search_page.write(path).read_text())


def _text(path):
  """The page without its plots, which take most of the time."""
  page = search_page.of(runs.read(path))
  sections = [dataclasses.replace(part, plots=[]) for part in page.sections]
  return Reader(render(dataclasses.replace(page, sections=sections)))


@pytest.fixture(scope="module")
def page(nao):
  return _page(nao)


def _query(path, text):
  with contextlib.closing(sqlite3.connect(path / "pool.sqlite")) as database:
    return database.execute(text).fetchall()


def test_nothing_leaves_the_page(page):
  for tag, name, value in page.attributes:
    assert not name.startswith("on"), (tag, name)
    if name in ("href", "src", "xlink:href", "action", "srcset", "data"):
      assert value.startswith("#"), (tag, name, value)
  assert {"script", "link", "img", "iframe", "object", "base"}.isdisjoint(
    page.tags
  )
  assert "@import" not in page.text
  assert set(re.findall(r"url\((.)", page.text)) <= {"#"}
  # Names of XML, which nobody fetches.
  assert set(re.findall(r"https?://[^\"' ]*", page.text)) <= {
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/1999/xlink",
  }


def test_every_name_within_the_page_is_there_once(page):
  names = [value for _, name, value in page.attributes if name == "id"]
  assert len(set(names)) == len(names)
  wanted = re.findall(r'(?:url\(|href=")#([^")]+)', page.text)
  assert wanted
  assert {*wanted} == {*names}


def test_colours_are_those_of_the_page(page):
  drawn = re.findall(r"<svg.*?</svg>", page.text, re.DOTALL)
  used = {name for svg in drawn for name in re.findall(r"var\(--([\w-]+)", svg)}
  light, dark = re.findall(r":root \{(.*?)\}", page.text, re.DOTALL)
  for mode in (light, dark):
    assert used <= {*re.findall(r"--([\w-]+):", mode)}
  assert not any(re.search(r"#[0-9a-f]{6}\b", svg) for svg in drawn)


def test_all_of_it_is_shown(page):
  for title in (
    "The winner",
    "From scratch",
    "Scores by round",
    "What was proposed",
    "Does the predictor know?",
    "What the gradient step did",
    "Where the architectures lie",
    "What the best ones are made of",
    "Where the winner came from",
    "What it cost",
    "To run it again",
  ):
    assert title in page.said
  # Two cells, from scratch, 3 of scores, proposals, 2 of the predictor, 3 of
  # steps, a plane a round, ops.
  assert page.tags.count("svg") == 2 + 1 + 3 + 1 + 2 + 3 + ROUNDS + 1
  assert "What is missing" not in page.said


def test_the_name_of_a_data_set_is_text(page):
  assert EVIL in page.said
  assert "<script" not in page.text
  assert "<b>digits" not in page.text


def test_scores_on_the_page_are_those_of_the_database(nao, page):
  rows = [row[:4] for row in page.rows(4)]
  for round_ in range(ROUNDS + 1):
    (found,) = _query(
      nao,
      "select count(*), max(score), avg(score) from scores"
      f" where round = {round_}",
    )
    count, best, mean = found
    assert (str(round_), str(count), f"{best:.4f}", f"{mean:.4f}") in rows
  ((scored,),) = _query(nao, "select count(distinct architecture) from scores")
  assert f"architectures scored {scored}" in page.said


def test_the_quality_of_the_predictor_is_that_of_the_history(nao, page):
  # Without the intervals, which stand in brackets where there are enough.
  rows = [tuple(x.partition(" (")[0] for x in row) for row in page.rows(6)]
  for line in (nao / "history.jsonl").read_text().splitlines()[:-1]:
    row = json.loads(line)
    assert (
      str(row["round"]),
      "held out",
      str(row["held_out"]),
      f"{row['pairwise_accuracy']:.3f}",
      f"{row['kendall_tau']:.3f}",
      f"{row['spearman']:.3f}",
    ) in rows


@pytest.mark.parametrize("which", ["nao", "plus"])
def test_proposals_are_predicted_before_they_are_scored(which, request):
  path = request.getfixturevalue(which)
  found = {
    one.round: one
    for one in analysis.foreseen(runs.read(path))
    if one.group == "proposals"
  }
  assert sorted(found) == list(range(ROUNDS))
  page = _text(path)
  for round_, one in found.items():
    scores = _query(
      path,
      "select score from scores join architectures on id = architecture"
      f" where round = {round_ + 1} and origin = {round_ + 1} order by id",
    )
    np.testing.assert_allclose(one.scores, np.ravel(scores), rtol=1e-6)
    tau = stats.kendalltau(one.predicted, np.ravel(scores)).statistic
    assert re.search(rf"{np.nan_to_num(tau):.3f} \(", page.text)


def test_an_ensemble_holds_each_member_out_of_one_controller_and_says_so(plus):
  page = _page(plus)
  assert "Each member was held out of one controller" in page.said
  assert "held out" in page.cells
  assert "fitted" not in page.cells
  assert "What the gradient step did" in page.said


def test_measured_gains_are_over_the_seed_in_the_same_round(nao):
  steps = analysis.steps(runs.read(nao))
  for step in steps:
    gains = _query(
      nao,
      "select mine.score - theirs.score from architectures"
      " join scores as mine on mine.architecture = id"
      " left join scores as theirs on theirs.architecture = parent"
      f" and theirs.round = mine.round where origin = {step.round + 1}"
      f" and mine.round = {step.round + 1} order by id",
    )
    expected = np.array(gains, float).ravel()
    np.testing.assert_allclose(step.measured, expected, atol=1e-6)
    assert len(step.candidate_gain) == 8 * 9  # Seeds and step sizes.
  assert sum(len(step.measured) for step in steps)


def test_the_chain_of_parents_ends_with_the_winner(nao):
  run = runs.read(nao)
  chain = analysis.ancestors(run.pool, run.winner)
  assert chain[-1].row == run.winner
  assert chain[0].origin == "random"
  parents = dict(_query(nao, "select id, parent from architectures"))
  rows = [one.row for one in chain]
  assert [parents[row] for row in rows] == [None, *rows[:-1]]


def test_a_parent_that_does_not_exist_ends_the_chain(nao):
  pool = runs.read(nao).pool
  row = len(pool.tokens) - 1
  for wrong in (row, row + 7):
    parents = np.where(np.arange(len(pool.parents)) == row, wrong, -1)
    (one,) = analysis.ancestors(pool._replace(parents=parents), row)
    assert one.parent is None


def test_shares_of_ops_are_counted_by_rank(nao):
  run = runs.read(nao)
  shares = analysis.op_shares(run)
  members = run.members(ROUNDS)
  scores = run.pool.scores[members, ROUNDS]
  best = members[np.argsort(-scores, kind="stable")[: shares.counts[0]]]
  ops = cnn.to_cells(run.pool.tokens[best])[..., 1::2].ravel()
  expected = np.bincount(ops, minlength=5) / len(ops)
  np.testing.assert_allclose(shares.best, expected)
  np.testing.assert_allclose([shares.best.sum(), shares.rest.sum()], 1)
  assert sum(shares.counts) == SEARCH.pool_size


def test_costs_are_those_of_the_winner(nao, page):
  run = runs.read(nao)
  tokens = run.pool.tokens[run.winner]
  final = unflatten(ImageFinalConfig, run.settings, "final.")
  own = run.cells.network
  for network in (own, final.network(own)):
    found = cost(network, tokens, 8, 1)
    assert f"{found.parameters:,}" in page.cells
    assert f"{found.multiply_adds:,}" in page.cells


def test_the_comparison_has_its_spread_and_says_what_diverged(page):
  values = np.array([0.9, 0.8, 0.7])
  expected = f"{values.mean():.4f}", f"{values.std(ddof=1):.4f}", "1"
  assert ("searched", "2", "3", *expected) in page.rows(6)
  # 0.85 and 0.7 against 0.55 twice: two standard errors are 0.15.
  assert "+0.2250" in page.said
  assert "+0.0750 to +0.3750" in page.said
  assert "for this one search" in page.said


def test_a_difference_within_the_errors_is_no_difference(nao, tmp_path):
  path = shutil.copytree(nao, tmp_path / "run")
  best = json.loads((path / "best.json").read_text())
  best["test_accuracy"] = {"searched": [[0.9], [0.5]], "random": [[0.6], [0.7]]}
  (path / "best.json").write_text(json.dumps(best))
  assert "no difference is shown here" in _text(path).said


def test_what_is_not_shown_is_said(page, uniform):
  assert "one search with one seed" in page.said
  assert "Scores are those of shared weights" in page.said
  assert "No random search was run beside this one" in page.said
  other = _text(uniform).said
  assert "No random baseline was run" in other
  assert "random search itself" in other
  assert "predicts nothing" in other


def test_a_recurrent_cell_is_scored_by_its_perplexity(recurrent):
  page, run = _page(recurrent), runs.read(recurrent)
  best = PERPLEXITY.show(run.pool.scores[:, -1][run.winner])
  assert f"perplexity with shared weights {best}" in page.said
  assert f"{run.cells.network.parameters:,}" in page.cells
  assert "+2.25 (lower is better)" in page.said
  assert "One cell has no spread" in page.said
  assert EVIL in page.said


@pytest.fixture(scope="module")
def finalists(nao, home):
  """The search with three finalists, whose order training turned around."""
  path = shutil.copytree(nao, home / "finalists")
  best, run = json.loads((path / "best.json").read_text()), runs.read(nao)

  def entry(rank, value, row, place):
    return {
      "rank": rank,
      "place": place,
      "row": row,
      "tokens": run.pool.tokens[row or 0].tolist(),
      "text": "",
      "validation_accuracy": value,
      "curve": [0.25, value] if value else [],
    }

  first, second, third = run.pool.ranked(ROUNDS)[:3].tolist()
  best["finalists"] = {
    "searched": [
      entry(1, 0.875, third, 3),
      entry(3, 0.8125, second, 2),
      entry(4, 0.625, first, 1),
    ],
    "random": [entry(2, 0.8125, None, None), entry(5, None, None, None)],
  }
  (path / "best.json").write_text(json.dumps(best))
  return path


def test_finalists_are_shown_with_both_ranks(finalists):
  page, run = _text(finalists), runs.read(finalists)
  row = run.finalists["searched"][0]["row"]
  score = ACCURACY.show(run.pool.scores[row, ROUNDS])
  assert ("1", "searched", "3", score, "0.8750") in page.rows(5)
  none = "\N{EN DASH}"
  assert ("2", "random", none, none, "0.8125") in page.rows(5)
  assert ("5", "random", none, none, "diverged") in page.rows(5)
  # Better than the one that diverged thrice, than the other one and a half
  # times, as one is as good.
  assert "Of 6 pairs" in page.said
  assert "was better in 4.5, ties" in page.said
  assert "of training: -1.00 over 3 cells" in page.said


def test_the_winner_is_the_first_finalist(finalists):
  page, run = _text(finalists), runs.read(finalists)
  assert run.winner == run.pool.ranked(ROUNDS)[2]
  assert f"Number {run.winner} of the pool, place 3 of" in page.said
  assert "first of 3 finalists" in page.said
  assert run.cells.space.text(run.pool.tokens[run.winner]) in page.said


def test_damaged_finalists_are_left_out_and_said_so(finalists, tmp_path):
  path = shutil.copytree(finalists, tmp_path / "run")
  best = json.loads((path / "best.json").read_text())
  best["finalists"]["searched"][0]["row"] = 10**6
  (path / "best.json").write_text(json.dumps(best))
  page = _text(path)
  assert "finalists is damaged" in page.said
  assert "The winner" in page.said


def _without(path, tmp_path, *names):
  copy = shutil.copytree(path, tmp_path / "copy")
  for name in names:
    (copy / name).unlink()
  return copy


def test_a_search_that_was_stopped_has_a_report(nao, tmp_path):
  page = _page(_without(nao, tmp_path, "best.json"))
  assert "not ended: 3 of 3 rounds are scored" in page.said
  assert "The best so far" in page.said
  assert "Parameters and multiply-adds depend" in page.said


def test_a_stopped_comparison_is_shown_as_far_as_it_is(nao, tmp_path):
  path = _without(nao, tmp_path, "best.json")
  done = {"test_accuracy": {"searched": [[0.25, 0.75]], "random": []}}
  (path / "final.json").write_text(json.dumps(done))
  page = _text(path)
  assert "These trainings have not ended" in page.said
  assert ("searched", "1", "2", "0.5000") in page.rows(4)


def test_a_search_that_has_just_begun_has_a_report(tmp_path):
  with SearchJournal(tmp_path / "run", _settings("nao"), ROUNDS):
    page = _page(tmp_path / "run")  # While the search holds the directory.
  assert "No round has ended yet" in page.said
  assert "0 of 3 rounds" in page.said


def test_a_search_that_was_stopped_after_its_first_round_has_a_report(
  nao, tmp_path
):
  path = _without(nao, tmp_path, "best.json")
  lines = (path / "history.jsonl").read_text().splitlines(keepends=True)
  (path / "history.jsonl").write_text("".join(lines[:1]))
  with contextlib.closing(sqlite3.connect(path / "pool.sqlite")) as database:
    database.execute("delete from scores where round > 0")
    database.execute("delete from architectures where origin > 1")
    database.commit()
  page = _page(path)
  assert "1 of 3 rounds" in page.said
  assert "measured gain" not in page.text  # Nothing proposed has a score yet.
  assert "It has no parent." in page.said


def test_architectures_in_triples_are_shown_as_in_pairs(tmp_path):
  network = NetworkConfig(ops="large", nodes=2, channels=4)
  settings = _settings("random", network=network, encoding="triples")
  space = cnn.space(2, "large", "triples")
  path = _search(tmp_path / "run", settings, Uniform(space), space)
  run = runs.read(path)
  ((text,),) = _query(
    path, f"select tokens from architectures where id = {run.winner}"
  )
  tokens = np.array([int(token) for token in text.split()])
  assert len(tokens) == 3 * 8
  assert cnn.to_text(tokens, "triples") in _text(path).said


def test_a_last_line_that_is_being_written_does_not_count(nao, tmp_path):
  path = _without(nao, tmp_path, "best.json")
  text = (path / "history.jsonl").read_text()
  (path / "history.jsonl").write_text(text[:-9])
  assert len(runs.read(path).history) == ROUNDS
  assert "time so far" in _text(path).said


def test_damaged_arrays_are_left_out_and_said_so(nao, tmp_path):
  path = _without(nao, tmp_path)
  file = path / "rounds" / "0001.npz"
  file.write_bytes(file.read_bytes()[:300])
  page = _page(path)
  assert "rounds/0001.npz is damaged and left out" in page.said
  assert page.tags.count("svg") < 15


def test_arrays_of_an_earlier_time_are_left_out(nao, tmp_path):
  path = _without(nao, tmp_path)
  lines = (path / "history.jsonl").read_text().splitlines(keepends=True)
  (path / "history.jsonl").write_text("".join(lines[:1]))
  assert list(runs.read(path).arrays) == [0]


def test_reading_leaves_everything_as_it_is(nao):
  def contents():
    return {
      file: file.read_bytes()
      for file in nao.rglob("*")
      if file.is_file() and file.name != "report.html"
    }

  before = contents()
  search_page.write(nao)
  assert contents() == before


def test_the_same_directory_gives_the_same_page(nao):
  first, second = (search_page.write(nao).read_bytes() for _ in range(2))
  assert first == second


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("config.json", None, "`workdir=.*: no run there"),
    ("config.json", "{", "config.json: damaged"),
    (
      "config.json",
      '{"settings": {"seed": 0}}',
      "`workdir=.*: holds no search .* search_cnn",
    ),
    ("pool.sqlite", "x" * 5000, "pool.sqlite: cannot be read .* start the"),
    ("pool.sqlite", "", "pool.sqlite: cannot be read .no such table"),
    ("history.jsonl", "[]\n", "history.jsonl: line 1 is damaged"),
  ],
)
def test_what_is_no_search_is_refused_in_a_line(
  nao, tmp_path, name, text, message
):
  path = _without(nao, tmp_path, name)
  if text is not None:
    (path / name).write_text(text)
  with pytest.raises(UserError, match=message) as caught:
    search_page.write(path)
  assert "\n" not in str(caught.value)


def test_tokens_that_are_no_architecture_are_refused(nao, tmp_path):
  path = _without(nao, tmp_path)
  with contextlib.closing(sqlite3.connect(path / "pool.sqlite")) as database:
    database.execute("update architectures set tokens = '9' where id = 3")
    database.commit()
  with pytest.raises(UserError, match=r"pool.sqlite: row 3: 1 tokens"):
    search_page.write(path)


def test_a_report_that_fails_leaves_the_result_alone(nao, tmp_path, caplog):
  path = _without(nao, tmp_path)
  before = (path / "best.json").read_bytes()
  (path / "pool.sqlite").write_text("x" * 5000)
  search_page.try_to_write(path, known.of)
  assert (path / "best.json").read_bytes() == before
  assert "experiments.report --workdir=" in caplog.text


class Lost(Exception):
  """Stands for a lost machine."""


class Mortal(SearchJournal):
  """A workdir whose machine is lost before round 1 is saved."""

  def end_round(self, state, report):
    if report["round"] == 1:
      raise Lost
    super().end_round(state, report)


@pytest.mark.parametrize(("which", "strategy"), [("nao", NAO), ("plus", PLUS)])
def test_a_resumed_search_leaves_the_same_arrays(
  which, strategy, request, tmp_path
):
  whole, path = request.getfixturevalue(which), tmp_path / "run"
  settings = runs.read(whole).settings
  with pytest.raises(Lost):
    _search(path, settings, strategy, journal=Mortal)
  _search(path, settings, strategy)
  for round_ in range(ROUNDS):
    name = f"rounds/{round_:04d}.npz"
    assert (path / name).read_bytes() == (whole / name).read_bytes()
  lines = (path / "history.jsonl").read_text().splitlines()
  assert [json.loads(line)["round"] for line in lines] == [0, 1, 2]


def test_a_plane_is_that_of_the_principal_components():
  rng = np.random.default_rng(0)
  members, proposals = rng.normal(size=(20, 6)), rng.normal(size=(3, 6))
  found, pca = project(members, proposals), PCA(2).fit(members)
  np.testing.assert_allclose(
    np.abs(found.members), np.abs(pca.transform(members)), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    np.abs(found.proposals), np.abs(pca.transform(proposals)), rtol=1e-4
  )
  np.testing.assert_allclose(
    found.share, pca.explained_variance_ratio_, rtol=1e-5
  )


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (2, 2)])
def test_a_plane_is_there_for_whatever_is_embedded(shape):
  found = project(np.ones(shape), np.zeros((0, shape[1])))
  assert found.members.shape == (shape[0], 2)
  assert found.proposals.shape == (0, 2)
  assert not found.members.any()
  assert not found.share.any()


@pytest.fixture(scope="module")
def other(home):
  """A search like that of `uniform` but for the seed."""
  settings, ends = _settings("random", 1), {"test_accuracy": {}}
  return _search(home / "other", settings, Uniform(SPACE), **ends)


@pytest.fixture(scope="module")
def browser():
  with browsers.started() as browser:
    yield browser


@pytest.fixture(scope="module", params=["one search", "recurrent", "several"])
def file(request, nao, uniform, other, recurrent, home):
  """A page, as it is on disk."""
  if request.param == "one search":
    return search_page.write(nao, [uniform, other])
  if request.param == "recurrent":
    return search_page.write(recurrent)
  return comparison_page.write([nao, uniform, other], home / "several.html")


@pytest.fixture(scope="module")
def opened(browser, file):
  """The page in a browser, and all that it said or asked for."""
  events, window = [], browser.new_page()
  for name in ("console", "pageerror", "request", "dialog", "websocket"):
    window.on(name, lambda event, name=name: events.append((name, event)))
  window.goto(file.as_uri())
  yield window, events
  window.close()


def test_a_browser_opens_a_page_and_nothing_else(opened, file):
  window, events = opened
  window.emulate_media(media="print")
  assert window.pdf().startswith(b"%PDF")
  window.emulate_media(media="screen")
  ((name, request),) = events
  assert (name, request.url) == ("request", file.as_uri())


# Where figures are on the page, and whether anything is drawn in them.
_FIGURES = """() => [...document.querySelectorAll("figure svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  return {
    shown: svg.checkVisibility(), width: box.width, height: box.height,
    left: box.left, right: box.right,
    drawn: [...svg.querySelectorAll("path, use, text")].some(
      part => part.getBoundingClientRect().width > 0),
  };
})"""
_TEXT_SIZES = """() => [...document.querySelectorAll("figure svg text")].map(
  text => text.getBoundingClientRect().height)"""


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_visible(opened, file, width):
  window, _ = opened
  window.set_viewport_size({"width": width, "height": 900})
  figures = window.evaluate(_FIGURES)
  assert len(figures) == file.read_text().count("<svg")
  for figure in figures:
    assert figure["shown"]
    assert figure["drawn"]
    assert figure["width"] > 150
    assert figure["height"] > 100
    assert 0 <= figure["left"] < figure["right"] <= width
  # Nobody has to scroll the page sideways; wide tables scroll by themselves.
  assert window.evaluate("document.documentElement.scrollWidth") == width
  assert min(window.evaluate(_TEXT_SIZES)) > 5


def test_a_page_is_dark_where_the_system_is(opened):
  window, _ = opened
  colours = {}
  for scheme in ("light", "dark"):
    window.emulate_media(color_scheme=scheme)
    for part in ("body", "figure svg text"):
      colours[scheme, part] = window.evaluate(
        """part => {
          const style = getComputedStyle(document.querySelector(part));
          const colour = part == "body" ? style.backgroundColor : style.fill;
          return colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
        }""",
        part,
      )
  assert min(colours["light", "body"]) > 200 > max(colours["dark", "body"])
  assert max(colours["light", "figure svg text"]) < 100
  assert min(colours["dark", "figure svg text"]) > 150


def test_random_searches_stand_beside_another_one(nao, uniform, other):
  run = runs.read(nao)
  random = baseline.read(run, [uniform, other])
  page = search_page.of(run, random)
  (section,) = [x for x in page.sections if x.title == "Scores by round"]
  said = " ".join(section.texts)
  assert (
    "Random search beside it, seed 0, 1: the best of the last round so far"
    in said
  )
  assert "No random search was run" not in said
  assert "more than the strategy and the seed" not in said
  assert len(section.plots) == 3
  for plot in section.plots[:2]:  # A round of theirs takes no time.
    labels = plot.figure.legends[0].get_texts()
    assert "best of random search, 2 runs" in [x.get_text() for x in labels]
    assert "the range of the random searches" in plot.caption


def test_one_random_search_has_no_spread(nao, uniform):
  run = runs.read(nao)
  texts = baseline.about(run, baseline.read(run, [uniform]))
  assert any("One random search has no spread" in text for text in texts)


def test_a_band_is_from_the_lowest_best_to_the_highest(uniform, other):
  searches = [
    learning_curves.rounds(runs.read(path)) for path in (uniform, other)
  ]
  found = learning_curves.band(
    searches, learning_curves.AXES["round"], learning_curves.best_of
  )
  best = [
    [value for (value,) in _query(path, "select max(score) from scores"
      " group by round order by round")]
    for path in (uniform, other)
  ]  # fmt: skip
  np.testing.assert_array_equal(found.x, range(ROUNDS + 1))
  np.testing.assert_allclose(found.low, np.min(best, 0), rtol=1e-6)
  np.testing.assert_allclose(found.high, np.max(best, 0), rtol=1e-6)
  np.testing.assert_allclose(found.mean, np.mean(best, 0), rtol=1e-6)
  assert found.count == 2


def _rounds(*places):
  """Rounds that end at these seconds, with a score of a hundredth of them."""
  return [
    learning_curves.Round(
      number, np.array([(at or 0) / 100]), np.zeros(1, bool), number, at
    )
    for number, at in enumerate(places)
  ]


def test_a_band_is_only_where_all_searches_are():
  at = learning_curves.AXES["minutes"]
  found = learning_curves.band(
    [_rounds(60, 180), _rounds(120, 240)], at, learning_curves.best_of
  )
  np.testing.assert_allclose(found.x, [2, 3])
  np.testing.assert_allclose(found.low, found.high)  # One line, two parts.
  apart = [_rounds(60, 120), _rounds(180, 240)]
  assert learning_curves.band(apart, at, learning_curves.best_of) is None
  assert (
    learning_curves.band(
      [_rounds(60), _rounds(None)], at, learning_curves.best_of
    )
    is None
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"strategy": "nao"}, "a search with `strategy=nao`; give"),
    ({"dataset": "another"}, "dataset is 'another' there and"),
    ({"evaluator": "scratch"}, "evaluator is 'scratch' there and"),
    ({}, "no round has ended there yet"),
  ],
)
def test_what_is_no_baseline_is_refused(nao, tmp_path, changes, message):
  settings = _settings("random") | changes
  with SearchJournal(tmp_path / "run", settings, ROUNDS):
    pass
  with pytest.raises(UserError, match=f"`random=.*: .*{message}"):
    search_page.write(nao, [tmp_path / "run"])


def test_other_settings_of_a_baseline_are_said(nao, uniform):
  run, (random,) = runs.read(nao), baseline.read(runs.read(nao), [uniform])
  random.settings["search.pool_size"] = 99
  random.settings["fit.epochs"] = 99  # Random search fits nothing.
  text = baseline.about(run, [random])[-1]
  assert text.endswith("the strategy and the seed: search.pool_size.")


@pytest.mark.parametrize(("which", "sign"), [("nao", 1), ("recurrent", -1)])
def test_shared_weights_are_compared_with_training_alone(which, sign, request):
  run = runs.read(request.getfixturevalue(which))
  # The best of the pool is the best alone, and so on down, but for a tie.
  cells = [[60 + sign * value] for value in (9, 8, 8, 7)]
  few = dataclasses.replace(run, compared={"searched": cells[:2]})
  assert analysis.scratch_ranking(few) is None
  run = dataclasses.replace(run, compared={"searched": cells})
  found = analysis.scratch_ranking(run)
  ranked = run.pool.ranked(ROUNDS)[:4]
  np.testing.assert_array_equal(
    found.of.predicted, run.pool.scores[ranked, ROUNDS]
  )
  assert found.measures["Kendall's tau"].value > 0.5
  said = " ".join(" ".join(x.texts) for x in search_page.of(run).sections)
  assert "over the 4 found cells: Kendall's tau 0." in said


def test_the_page_says_where_the_time_went(nao, page):
  found = runs.read(nao).seconds["fit controller"]
  seconds, compiled = (f"{value:,.1f}" for value in found)
  assert ("fit controller", seconds, compiled) in page.rows(3)
  assert "fewer than three cells have both" in page.said


def test_searches_are_shown_side_by_side(nao, uniform, other, tmp_path):
  output = tmp_path / "compared.html"
  comparison_page.write([nao, uniform, other], output)
  page = Reader(output.read_text())
  for path, letter in zip((nao, uniform, other), "ABC", strict=True):
    assert f"{letter}: {path.name}" in page.said
    assert str(path) in page.cells
  assert ("strategy", "nao", "random", "random") in page.rows(4)
  best = [
    learning_curves.rounds(runs.read(x))[-1].scores.max()
    for x in (uniform, other)
  ]
  mean, deviation = np.mean(best), np.std(best, ddof=1)
  assert ("B, C", "random", f"{mean:.4f}", f"{deviation:.4f}") in page.rows(4)
  assert page.tags.count("svg") == 3 + 3 * 2
  assert "<script" not in page.text
  assert "None of them is a random search" not in page.said


def test_searches_that_do_not_measure_the_same_are_told_apart(
  uniform, home, tmp_path
):
  settings = _settings("random", dataset="another", evaluator="scratch")
  path = _search(tmp_path / "scratch", settings, Uniform(SPACE))
  comparison_page.write([uniform, path], tmp_path / "x.html")
  said = Reader((tmp_path / "x.html").read_text()).said
  assert "They differ in dataset" in said
  assert "They differ in evaluator" in said
  assert "Not ended: B" in said
  assert "how much a search varies by chance is not known" in said


def test_a_comparison_that_makes_no_sense_is_refused(nao, recurrent, tmp_path):
  output = tmp_path / "x.html"
  with pytest.raises(UserError, match=r"`paths=.*: 1 directories"):
    comparison_page.write([nao], output)
  with pytest.raises(UserError, match=r"`paths=.* recurrent cells, and"):
    comparison_page.write([nao, recurrent], output)
  with pytest.raises(UserError, match=r"`output=.*cannot be written"):
    comparison_page.write([nao, nao], tmp_path / "no" / "x.html")
  assert not output.exists()


def _driver(*flags):
  return subprocess.run(
    [sys.executable, "-m", "experiments.report", *flags],
    capture_output=True,
    text=True,
  )


def test_the_driver_writes_the_report(nao, tmp_path):
  path = _without(nao, tmp_path)
  process = _driver(f"--workdir={path}")
  assert process.returncode == 0, process.stderr
  assert str(path / "report.html") in process.stdout
  Reader((path / "report.html").read_text())


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--workdir=nowhere"], "--workdir=nowhere: no run there"),
    (
      ["--compare=nowhere,b", "--output=c"],
      "error: --compare=nowhere: no run there",
    ),
    (["--compare=a,b"], "--output: the file to write"),
    (
      ["--compare=a,b", "--output=c", "--random=d"],
      "--random: needs --workdir",
    ),
  ],
)
def test_the_driver_says_what_is_wrong_in_a_line(flags, message):
  process = _driver(*flags)
  assert process.returncode == 2
  (line,) = [x for x in process.stderr.splitlines() if x.startswith("error")]
  assert message in line
  assert "Traceback" not in process.stderr


_TEXT = strategies.text(
  strategies.characters(exclude_categories=("C",)), min_size=1
)


@given(_TEXT, _TEXT)
def test_any_text_stays_text(title, cell):
  table = Table(["a"], [[cell]], cell)
  page = Page(
    title,
    cell,
    [Tile(cell, cell, cell)],
    [Section(cell, [cell], tables=[table])],
  )
  text = render(page)
  assert Reader(text).tags == Reader(render(_plain(page))).tags
  assert cell in Reader(text).cells


def _plain(page):
  """Makes the page without the text."""
  table = Table(["a"], [["x"]], "x")
  section = Section("x", ["x"], tables=[table])
  return Page("x", "x", [Tile("x", "x", "x")], [section])
