"""Reports of searches that run or were stopped, and of damaged files."""

import contextlib
import json
import shutil
import sqlite3

import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.report import run as runs
from nao_jax.report import search_page
from nao_jax.search.journal import SearchJournal
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import Uniform
from nao_jax.tasks import known
from tests.report_searches import (
  NAO,
  PLUS,
  ROUNDS,
  page_of,
  query,
  search,
  settings_of,
  text_of,
  without,
)
from tests.stand_ins import Killed


def test_damaged_finalists_are_left_out_and_listed(finalists, tmp_path):
  path = shutil.copytree(finalists, tmp_path / "run")
  best = json.loads((path / "best.json").read_text())
  best["finalists"]["searched"][0]["row"] = 10**6
  (path / "best.json").write_text(json.dumps(best))
  page = text_of(path)
  assert "finalists is damaged" in page.shown
  assert "The winner" in page.shown


def test_a_search_that_was_stopped_has_a_report(nao, tmp_path):
  page = page_of(without(nao, tmp_path, "best.json"))
  assert "not ended: 3 of 3 rounds are scored" in page.shown
  assert "The best so far" in page.shown
  assert "Parameters and multiply-adds, if known, are shown" in page.shown


def test_a_stopped_comparison_is_shown_as_far_as_it_is(nao, tmp_path):
  path = without(nao, tmp_path, "best.json")
  done = {"test_accuracy": {"searched": [[0.25, 0.75]], "random": []}}
  (path / "final.json").write_text(json.dumps(done))
  page = text_of(path)
  assert "These trainings have not ended" in page.shown
  assert ("searched", "1", "2", "0.5000") in page.rows(4)


def test_a_search_without_a_round_has_a_report(tmp_path):
  with SearchJournal(tmp_path / "run", settings_of("nao"), ROUNDS):
    page = page_of(tmp_path / "run")  # While the search holds the directory.
  assert "No round has ended yet" in page.shown
  assert "0 of 3 rounds" in page.shown


def test_a_search_that_was_stopped_after_its_first_round_has_a_report(
  nao, tmp_path
):
  path = without(nao, tmp_path, "best.json")
  lines = (path / "history.jsonl").read_text().splitlines(keepends=True)
  (path / "history.jsonl").write_text("".join(lines[:1]))
  with contextlib.closing(sqlite3.connect(path / "pool.sqlite")) as database:
    database.execute("delete from scores where round > 0")
    database.execute("delete from architectures where origin > 1")
    database.commit()
  page = page_of(path)
  assert "1 of 3 rounds" in page.shown
  assert "measured gain" not in page.text  # Nothing proposed has a score yet.
  assert "It has no parent." in page.shown


def test_architectures_in_triples_are_shown_as_in_pairs(tmp_path):
  network = NetworkConfig(ops="large", nodes=2, channels=4)
  settings = settings_of("random", network=network, encoding="triples")
  space = cnn.space(2, "large", "triples")
  path = search(tmp_path / "run", settings, Uniform(space), space)
  run = runs.read(path)
  ((text,),) = query(
    path, f"select tokens from architectures where id = {run.winner}"
  )
  tokens = np.array([int(token) for token in text.split()])
  assert len(tokens) == 3 * 8
  assert cnn.to_text(tokens, "triples") in text_of(path).shown


def test_a_last_line_that_is_being_written_does_not_count(nao, tmp_path):
  path = without(nao, tmp_path, "best.json")
  text = (path / "history.jsonl").read_text()
  (path / "history.jsonl").write_text(text[:-9])
  assert len(runs.read(path).history) == ROUNDS
  assert "time so far" in text_of(path).shown


def test_damaged_arrays_are_left_out_and_listed(nao, tmp_path):
  path = without(nao, tmp_path)
  file = path / "rounds" / "0001.npz"
  file.write_bytes(file.read_bytes()[:300])
  page = page_of(path)
  assert "rounds/0001.npz is damaged and left out" in page.shown
  assert page.tags.count("svg") < 15


def test_arrays_of_an_earlier_time_are_left_out(nao, tmp_path):
  path = without(nao, tmp_path)
  lines = (path / "history.jsonl").read_text().splitlines(keepends=True)
  (path / "history.jsonl").write_text("".join(lines[:1]))
  assert list(runs.read(path).arrays) == [0]


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
    ("pool.sqlite", "x" * 5000, "pool.sqlite: cannot be read .* move it away"),
    ("pool.sqlite", "", "pool.sqlite: cannot be read .no such table"),
    ("history.jsonl", "[]\n", "history.jsonl: line 1: not a report"),
  ],
)
def test_what_is_no_search_is_refused_in_a_line(
  nao, tmp_path, name, text, message
):
  path = without(nao, tmp_path, name)
  if text is not None:
    (path / name).write_text(text)
  with pytest.raises(UserError, match=message) as caught:
    search_page.write(path)
  assert "\n" not in str(caught.value)


def test_tokens_that_are_no_architecture_are_refused(nao, tmp_path):
  path = without(nao, tmp_path)
  with contextlib.closing(sqlite3.connect(path / "pool.sqlite")) as database:
    database.execute("update architectures set tokens = '9' where id = 3")
    database.commit()
  with pytest.raises(UserError, match=r"pool.sqlite: row 3: 1 tokens"):
    search_page.write(path)


def test_a_report_that_fails_leaves_the_result_alone(nao, tmp_path, caplog):
  path = without(nao, tmp_path)
  before = (path / "best.json").read_bytes()
  (path / "pool.sqlite").write_text("x" * 5000)
  search_page.try_to_write(path, known.of)
  assert (path / "best.json").read_bytes() == before
  assert "experiments.report --workdir=" in caplog.text


class Mortal(SearchJournal):
  """A workdir whose machine is lost before round 1 is saved."""

  def end_round(self, state, report):
    if report["round"] == 1:
      raise Killed
    super().end_round(state, report)


@pytest.mark.parametrize(("which", "strategy"), [("nao", NAO), ("plus", PLUS)])
def test_a_resumed_search_leaves_the_same_arrays(
  which, strategy, request, tmp_path
):
  whole, path = request.getfixturevalue(which), tmp_path / "run"
  settings = runs.read(whole).settings
  with pytest.raises(Killed):
    search(path, settings, strategy, journal=Mortal)
  search(path, settings, strategy)
  for round_ in range(ROUNDS):
    name = f"rounds/{round_:04d}.npz"
    assert (path / name).read_bytes() == (whole / name).read_bytes()
  lines = (path / "history.jsonl").read_text().splitlines()
  assert [json.loads(line)["round"] for line in lines] == [0, 1, 2]
