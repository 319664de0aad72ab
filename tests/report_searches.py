"""Searches for tests of reports, and a parser of the pages."""

import contextlib
import dataclasses
from html.parser import HTMLParser
import json
import shutil
import sqlite3

import jax
import numpy as np
import pytest

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.report import run as runs
from nao_jax.report import search_page
from nao_jax.report.page import render
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.search.journal import SearchJournal
from nao_jax.settings import flatten
from nao_jax.spaces import cnn, rnn
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from nao_jax.strategies.uniform import Uniform
from nao_jax.tasks import text_presets
from nao_jax.tasks.image_config import SearchCnnConfig

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


def settings_of(strategy, seed=0, **changes):
  config = SearchCnnConfig(
    dataset=EVIL,
    strategy=strategy,
    seed=seed,
    network=NetworkConfig(nodes=2, cells_per_stage=1, channels=4),
    search=SEARCH,
  )
  return flatten(dataclasses.replace(config, **changes)) | {"arch": []}


def search(path, settings, strategy, space=SPACE, evaluator=None, **ends):
  """Runs a real search; returns its directory."""
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


@pytest.fixture(scope="session")
def searches(tmp_path_factory):
  return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="session")
def nao(searches):
  settings = settings_of("nao")
  ends = {"test_accuracy": FINAL, "image": [8, 8, 1]}
  return search(searches / "nao", settings, NAO, **ends)


@pytest.fixture(scope="session")
def plus(searches):
  return search(searches / "plus", settings_of("nao_plus"), PLUS)


@pytest.fixture(scope="session")
def uniform(searches):
  settings, ends = settings_of("random"), {"test_accuracy": {}}
  return search(searches / "uniform", settings, Uniform(SPACE), **ends)


@pytest.fixture(scope="session")
def other(searches):
  """A search like that of `uniform` but for the seed."""
  settings, ends = settings_of("random", 1), {"test_accuracy": {}}
  return search(searches / "other", settings, Uniform(SPACE), **ends)


@pytest.fixture(scope="session")
def recurrent(searches):
  config = text_presets.SearchRnnConfig(
    text=EVIL,
    strategy="random",
    network=LanguageModelConfig(nodes=3, width=8, vocabulary=50),
    search=SEARCH,
  )
  space, settings = rnn.space(3), flatten(config) | {"arch": []}
  ends = {"test_perplexity": {"searched": [[60.5]], "random": [[58.25]]}}
  path = searches / "recurrent"
  return search(path, settings, Uniform(space), space, Losses(), **ends)


@pytest.fixture(scope="session")
def finalists(nao, searches):
  """The search `nao` with three finalists whose order training reversed."""
  path = shutil.copytree(nao, searches / "finalists")
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
  def shown(self):
    return " ".join(" ".join(self.words).split())

  def rows(self, width):
    """The cells as rows of so many, of all tables together."""
    return list(zip(*(self.cells[at:] for at in range(width)), strict=False))


def page_of(path):
  return Reader(search_page.write(path).read_text())


def text_of(path):
  """The page without its plots, which take most of the time."""
  page = search_page.of(runs.read(path))
  sections = [dataclasses.replace(part, plots=[]) for part in page.sections]
  return Reader(render(dataclasses.replace(page, sections=sections)))


@pytest.fixture(scope="session")
def page(nao):
  return page_of(nao)


def query(path, text):
  with contextlib.closing(sqlite3.connect(path / "pool.sqlite")) as database:
    return database.execute(text).fetchall()


def without(path, tmp_path, *names):
  copy = shutil.copytree(path, tmp_path / "copy")
  for name in names:
    (copy / name).unlink()
  return copy
