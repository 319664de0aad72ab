"""Strategies against each other on a table."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import nasbench201
from nao_jax.strategies.uniform import Uniform
from nao_jax.studies import comparison, measured, setups
from nao_jax.studies import curves as curves_
from nao_jax.studies.comparison import CompareConfig
from nao_jax.studies.curves import Curves, summary

CHEAP = ("random", "evolution", "local")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """A table on which the score is how many edges convolve, and a little."""
  space = nasbench201.space()
  index = np.arange(len(space.functions.of_sequence))
  ops = space.functions.tokens(index) - nasbench201.to_tokens(np.zeros(6))
  score = (ops == 3).sum(-1) + index / 1e5
  path = tmp_path_factory.mktemp("table") / "edges.npz"
  np.savez(
    path,
    ops=ops,
    edges_valid=score.astype(np.float32),
    edges_test=(100 - score).astype(np.float32),
  )
  return CompareConfig(
    table=str(path),
    dataset="edges",
    signal="valid",
    report="test",
    budget=60,
    trials=6,
  )


@pytest.fixture(scope="module")
def found(config, tmp_path_factory):
  """The file, and the curves."""
  file = tmp_path_factory.mktemp("compared") / "found.json"
  return file, comparison.run(config, CHEAP, file=file)


def test_curves_hold_the_best_so_far_and_what_is_reported_of_it(found):
  for own in found[1].values():
    assert own.signal.shape == own.report.shape == (6, 60)
    assert (np.diff(own.signal) >= 0).all()
    # Here one measurement is the other, turned around.
    np.testing.assert_allclose(own.report, 100 - own.signal, rtol=1e-6)


def test_no_trial_evaluates_more_than_the_budget(found):
  for own in found[1].values():
    assert (own.evaluations <= 60).all()
    assert (own.evaluations[own.found == 0] == 60).all()
    stopped = own.found > 0
    assert (own.found[stopped] == own.evaluations[stopped]).all()


def test_trials_of_one_seed_start_with_the_same_pool(found):
  random, local = (found[1][name].signal for name in ("random", "local"))
  np.testing.assert_array_equal(random[:, :10], local[:, :10])


def test_local_search_beats_random_search_where_the_way_is_smooth(found):
  random, local = (found[1][name].signal[:, -1] for name in ("random", "local"))
  assert (local > random).all()


def test_the_same_comparison_again_runs_nothing(found, config, monkeypatch):
  file, before = found
  monkeypatch.setattr(comparison, "_trial", None)
  again = comparison.run(config, CHEAP, file=file)
  for name, own in again.items():
    for field in dataclasses.fields(own):
      one, other = (getattr(x, field.name) for x in (own, before[name]))
      np.testing.assert_array_equal(one, other)


def test_trials_do_not_depend_on_the_threads(config, found):
  alone = comparison.run(config, ("evolution",), threads=1)["evolution"]
  np.testing.assert_array_equal(alone.signal, found[1]["evolution"].signal)


def test_a_strategy_that_has_changed_runs_again(found, config, monkeypatch):
  changed = lambda space: setups.Setup(Uniform(space), pool=20)  # noqa: E731
  monkeypatch.setitem(setups.SETUPS, "random", changed)
  again = comparison.run(config, CHEAP[:1], file=_copy(found[0]))["random"]
  assert (again.signal[:, 10:20] != found[1]["random"].signal[:, 10:20]).any()


def _copy(file):
  copy = file.with_name("copy.json")
  shutil.copy(file, copy)
  return copy


def test_a_file_of_other_settings_is_left_alone(found, config):
  other = dataclasses.replace(config, seed=5)
  with pytest.raises(UserError, match=r"^`file=\S*`: holds another comparison"):
    comparison.run(other, CHEAP, file=found[0])


@pytest.mark.parametrize("signal", ["valid", "test"])
def test_a_file_of_other_scores_is_left_alone(found, config, signal, tmp_path):
  with np.load(config.table) as table:
    arrays = dict(table)
  arrays[f"edges_{signal}"][-1] += 1
  # The name stays, as for who mended the table.
  kept = shutil.copy(config.table, tmp_path / "kept.npz")
  np.savez(config.table, **arrays)
  try:
    with pytest.raises(UserError, match=r"^`file=\S*`: .* on other scores"):
      comparison.run(config, CHEAP, file=found[0])
  finally:
    shutil.copy(kept, config.table)
  comparison.run(config, CHEAP, file=found[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3}'])
def test_a_file_that_is_none_of_ours_is_refused(text, config, tmp_path):
  file = tmp_path / "other.json"
  file.write_text(text)
  with pytest.raises(UserError, match=r"other\.json"):
    comparison.run(config, CHEAP, file=file)


def test_the_file_has_the_figures_of_the_summary(found):
  held = json.loads(found[0].read_text())
  assert held["summary"] == json.loads(json.dumps(summary(found[1])))


def test_a_summary_is_what_numpy_says():
  rng = np.random.default_rng(0)
  signal = np.maximum.accumulate(rng.normal(size=(5, 20)), 1)
  own = Curves(signal, -signal, np.full(5, 20), np.array([3, 0, 7, 0, 9]), 1.0)
  late = np.array([20, 20, 7, 20, 20])
  other = dataclasses.replace(own, signal=signal - 1, found=late)
  figures = summary({"own": own, "other": other})["own"]
  assert figures["to_optimum"]["mean"] == pytest.approx(
    (3 + 20 + 7 + 20 + 9) / 5
  )
  assert figures["to_optimum"]["found"] == pytest.approx(0.6)
  assert figures["to_optimum"]["median"] == 9
  row = figures["curve"][1]
  assert row["evaluations"] == 20
  assert row["signal"]["mean"] == pytest.approx(signal[:, 19].mean())
  error = signal[:, 19].std(ddof=1) / np.sqrt(5)
  assert row["signal"]["standard_error"] == pytest.approx(error)
  against = figures["against"]["other"]
  assert against["signal"]["difference"] == pytest.approx(1)
  assert against["to_optimum"]["difference"] == pytest.approx(-28 / 5)


def test_a_paired_difference_that_is_chance_is_not_marked(capsys):
  rng = np.random.default_rng(0)
  signal = rng.normal(size=(30, 20))
  curves = {
    name: Curves(
      np.maximum.accumulate(signal + shift, 1),
      signal,
      np.full(30, 20),
      np.zeros(30, int),
      0.0,
    )
    for name, shift in (
      ("plain", 0),
      ("noisy", rng.normal(size=(30, 1))),
      ("better", 2 + rng.normal(size=(30, 1))),
    )
  }
  curves_.show(curves, "valid", "test")
  lines = capsys.readouterr().out.splitlines()
  pairs = {
    tuple(part.strip() for part in line.split("│")[1:3]): line
    for line in lines
    if ("│" in line and "better" in line) or "noisy" in line
  }
  assert "*" not in pairs["plain", "noisy"]
  assert "*" in pairs["plain", "better"]


def test_the_plot_names_every_strategy(found, tmp_path):
  curves_.draw(found[1], tmp_path / "plot.json", "edges valid", "edges test")
  assert (tmp_path / "plot.png").stat().st_size > 10_000
  drawing = (tmp_path / "plot.svg").read_text()
  assert "<svg" in drawing


@pytest.mark.parametrize(
  ("changes", "strategies", "message"),
  [
    ({"budget": 9}, CHEAP, "`budget=9`: allowed: 10 or more"),
    ({"budget": 7000}, CHEAP, "`budget=7000`"),
    ({"trials": 0}, CHEAP, "`trials=0`"),
    ({"seed": -1}, CHEAP, "`seed=-1`"),
    ({}, ("random", "best"), "`strategies=random,best`: allowed: nao"),
    ({}, (), "`strategies="),
    ({}, ("random", "random"), "occurs twice"),
    ({"report": "cost"}, CHEAP, "`report=cost`: .* has no column 'edges_cost'"),
  ],
)
def test_what_cannot_work_is_refused(changes, strategies, message, config):
  with pytest.raises(UserError, match=message):
    comparison.check(dataclasses.replace(config, **changes), strategies)


def test_every_setup_makes_the_budget():
  space = nasbench201.space()
  for setup in (make(space) for make in setups.SETUPS.values()):
    sizes = setup.search(200)
    made = sizes.pool_size + sizes.rounds * sizes.new_per_round
    assert 200 <= made < 200 + setup.batch
    assert sizes.extend


@pytest.fixture(scope="module")
def limited(config, tmp_path_factory):
  """The settings with a column of costs: 3x3 convolutions plus one."""
  table = dict(np.load(config.table))
  costs = np.float32((table["ops"] == 3).sum(-1) + 1)
  path = tmp_path_factory.mktemp("limited") / "edges.npz"
  np.savez(path, **table, edges_size=costs)
  return dataclasses.replace(config, table=str(path), limit="size:3", trials=2)


def test_under_a_limit_the_best_is_the_best_of_what_it_allows(
  limited, tmp_path
):
  found = comparison.run(limited, CHEAP, file=tmp_path / "found.json")
  allowed = np.load(limited.table)
  best = allowed["edges_valid"][allowed["edges_size"] <= 3].max()
  for own in found.values():
    assert own.signal.max() <= best
  # Two edges that convolve, as many as the limit leaves.
  assert (found["local"].signal[:, -1] > 2).all()


@pytest.mark.parametrize(
  ("limit", "message"),
  [("weight:3", "limit"), ("size:0.5", "limit"), ("valid:-1", "limit")],
)
def test_a_limit_that_a_table_cannot_keep_is_named(
  limited, limit, message, tmp_path
):
  config = dataclasses.replace(limited, limit=limit)
  with pytest.raises(UserError, match=message):
    comparison.run(config, CHEAP, file=tmp_path / "found.json")


def test_signals_choose_the_first_architectures_of_all_strategies(config):
  """The signal is the score: its best ten of a hundred are evaluated first."""
  helped = dataclasses.replace(config, proxies=config.signal, trials=2)
  curves = comparison.run(helped, ("random", "local"))
  one, two = (own.signal[:, :10] for own in curves.values())
  np.testing.assert_array_equal(one, two)
  signal, _, _ = comparison.check(config, CHEAP[:1])
  assert (one[:, 0] > np.quantile(signal.scores, 0.9)).all()


def test_exact_counts_of_nasbench201_are_signals(config):
  space = comparison.check(config, CHEAP[:1])[0].space
  settings = types.SimpleNamespace(proxies="parameters,multiply_adds")
  found = measured.proxies(settings, space)
  tokens = nasbench201.to_tokens(np.array([[3] * 6, [0] * 6]))
  values = [proxy.values(space, tokens).tolist() for proxy in found]
  assert values[0] == [1_531_546, 73_306]
  assert values[1][0] > values[1][1]


@pytest.mark.parametrize("names", ["size", "valid,-valid", "valid,,test"])
def test_a_signal_that_is_not_there_or_twice_is_refused(config, names):
  wrong = dataclasses.replace(config, proxies=names)
  with pytest.raises(UserError, match=f"`proxies={names}`"):
    comparison.run(wrong, CHEAP[:1])


def test_trials_of_a_signal_that_has_changed_are_not_taken(config, tmp_path):
  """Its column has the same name, but other numbers."""
  with np.load(config.table) as archive:
    columns = dict(archive)
  table, file = tmp_path / "table.npz", tmp_path / "found.json"
  changed = {"table": str(table), "proxies": "size", "trials": 1}
  config = dataclasses.replace(config, **changed)
  np.savez(table, **columns, edges_size=columns["edges_valid"])
  comparison.run(config, ["random"], file=file)
  np.savez(table, **columns, edges_size=columns["edges_test"])
  with pytest.raises(UserError, match="on other scores"):
    comparison.run(config, ["random"], file=file)
