"""Reports beside random searches, pages of several searches, the driver."""

import functools

import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.report import (
  baseline,
  comparison_page,
  learning_curves,
  pool_sections,
  search_page,
)
from nao_jax.report import run as runs
from nao_jax.search.journal import SearchJournal
from nao_jax.strategies.uniform import Uniform
from tests import drivers
from tests.report_searches import (
  ROUNDS,
  SPACE,
  Reader,
  query,
  search,
  settings_of,
  without,
)


def test_random_searches_stand_beside_another_one(nao, uniform, other):
  run = runs.read(nao)
  random = baseline.read(run, [uniform, other])
  page = search_page.of(run, random)
  (section,) = [x for x in page.sections if x.title == "Scores by round"]
  shown = " ".join(section.texts)
  assert "random search with seeds 0, 1, which draws as many" in shown
  assert "The green band is the range of the random searches" in shown
  assert "No random search was run" not in shown
  assert "in more than strategy and seed" not in shown
  assert len(section.plots) == 3
  for plot in section.plots[:2]:  # A round of theirs takes no time.
    labels = plot.figure.legends[0].get_texts()
    assert "best of random search, 2 runs" in [x.get_text() for x in labels]


def test_one_random_search_has_no_spread(nao, uniform):
  run = runs.read(nao)
  section = pool_sections.scores(run, baseline.read(run, [uniform]))
  assert any("One random search shows no spread" in x for x in section.texts)


def test_a_band_is_from_the_lowest_best_to_the_highest(uniform, other):
  searches = [
    learning_curves.rounds(runs.read(path)) for path in (uniform, other)
  ]
  found = learning_curves.band(searches, learning_curves.AXES["round"])
  best = [
    [value for (value,) in query(path, "select max(score) from scores"
      " group by round order by round")]
    for path in (uniform, other)
  ]  # fmt: skip
  np.testing.assert_array_equal(found.x, range(ROUNDS + 1))
  np.testing.assert_allclose(found.low, np.min(best, 0), rtol=1e-6)
  np.testing.assert_allclose(found.high, np.max(best, 0), rtol=1e-6)
  np.testing.assert_allclose(found.mean, np.mean(best, 0), rtol=1e-6)


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
  found = learning_curves.band([_rounds(60, 180), _rounds(120, 240)], at)
  np.testing.assert_allclose(found.x, [2, 3])
  np.testing.assert_allclose(found.low, found.high)  # One line, two parts.
  apart = [_rounds(60, 120), _rounds(180, 240)]
  assert learning_curves.band(apart, at) is None
  assert learning_curves.band([_rounds(60), _rounds(None)], at) is None


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"strategy": "nao"}, "a search with `strategy=nao`; give"),
    ({"dataset": "another"}, "dataset is 'another' there and"),
    ({"evaluator": "scratch"}, "evaluator is 'scratch' there and"),
    ({}, "no round has ended there yet"),
  ],
)
def test_searches_that_are_no_baseline_are_refused(
  nao, tmp_path, changes, message
):
  settings = settings_of("random") | changes
  with SearchJournal(tmp_path / "run", settings, ROUNDS):
    pass
  with pytest.raises(UserError, match=f"`random=.*: .*{message}"):
    search_page.write(nao, [tmp_path / "run"])


def test_other_settings_of_a_baseline_are_listed(nao, uniform):
  run, (random,) = runs.read(nao), baseline.read(runs.read(nao), [uniform])
  random.settings["search.pool_size"] = 99
  random.settings["fit.epochs"] = 99  # Random search fits nothing.
  text = " ".join(pool_sections.scores(run, [random]).texts)
  assert "in more than strategy and seed: search.pool_size." in text


def test_searches_are_shown_side_by_side(nao, uniform, other, tmp_path):
  output = tmp_path / "new" / "folder" / "compared.html"
  comparison_page.write([nao, uniform, other], output)
  page = Reader(output.read_text())
  for path, letter in zip((nao, uniform, other), "ABC", strict=True):
    assert f"{letter}: {path.name}" in page.shown
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
  assert "None of them is a random search" not in page.shown


def test_searches_that_do_not_measure_the_same_are_named(
  uniform, searches, tmp_path
):
  settings = settings_of("random", dataset="another", evaluator="scratch")
  path = search(tmp_path / "scratch", settings, Uniform(SPACE))
  comparison_page.write([uniform, path], tmp_path / "x.html")
  shown = Reader((tmp_path / "x.html").read_text()).shown
  assert "The searches differ in dataset" in shown
  assert "The searches differ in evaluator" in shown
  assert "These searches have not ended: B" in shown
  assert "the variation between seeds is unknown" in shown


def test_a_comparison_that_makes_no_sense_is_refused(nao, recurrent, tmp_path):
  output = tmp_path / "x.html"
  with pytest.raises(UserError, match=r"`paths=.*: 1 directories"):
    comparison_page.write([nao], output)
  with pytest.raises(UserError, match=r"`paths=.* recurrent cells, and"):
    comparison_page.write([nao, recurrent], output)
  with pytest.raises(UserError, match=r"`output=.*cannot be written"):
    comparison_page.write([nao, nao], nao / "pool.sqlite" / "x.html")
  assert not output.exists()


_driver = functools.partial(drivers.run, "experiments.report")


def test_the_driver_writes_the_report(nao, tmp_path):
  path = without(nao, tmp_path)
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
