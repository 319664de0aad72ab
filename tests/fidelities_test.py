"""Fidelities of tables: budgets, promotions, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.evaluators.fidelities import Fidelities
from nao_jax.evaluators.table import Table
from nao_jax.settings import validate
from nao_jax.spaces import nasbench201
from nao_jax.strategies.proxies import Proxy
from nao_jax.studies import comparison
from nao_jax.studies.comparison import CompareConfig

SPACE = nasbench201.space()
COUNT = len(SPACE.functions.representative)
TOKENS = SPACE.functions.tokens(SPACE.functions.representative[:6])
CHEAP = np.array([1.0, 5.0, 3.0, 4.0, 2.0, 0.0])
DEAR = np.array([60.0, 20.0, 40.0, 30.0, 50.0, 10.0])


def _table(scores):
  return Table(SPACE, np.pad(scores, (0, COUNT - 6)))


@pytest.fixture
def two():
  """Row 1 is promoted after three evaluations, row 3 after five."""
  return Fidelities((_table(CHEAP), _table(DEAR)), ((3, 1), (5, 1)))


def test_the_best_so_far_are_promoted_and_rank_above_all_others(two):
  def score(count):
    return two.score((), jax.random.key(0), TOKENS[:count], 0, print)[1]

  np.testing.assert_array_equal(score(2), CHEAP[:2])
  # Others keep their distances, below the worst that was promoted.
  np.testing.assert_allclose(score(4), [17, 20, 19, 20], rtol=1e-6)
  np.testing.assert_allclose(score(6), [18, 20, 20, 30, 19, 17], rtol=1e-6)
  assert np.flatnonzero(score(4) >= 20).tolist() == [1]


def test_the_incumbent_is_the_best_of_the_last_fidelity(two):
  rows, values, _ = two.incumbents(TOKENS)
  assert rows.tolist() == [0, 1, 1, 1, 3, 3]
  assert values.tolist() == [1, 5, 20, 20, 30, 30]


def test_signals_help_to_choose_what_is_promoted(two):
  """Row 2 has the second score of three, and by far the largest signal."""

  def signal(tokens):
    return [{1: -1.0, 2: 9.0}.get(row, 0.0) for row in SPACE.number(tokens)]

  rows = SPACE.number(TOKENS)
  assert rows.tolist() == [0, 1, 2, 3, 4, 5]
  helped = dataclasses.replace(two, proxies=(Proxy("made", signal),))
  assert two.incumbents(TOKENS[:3])[0].tolist() == [0, 1, 1]
  assert helped.incumbents(TOKENS[:3])[0].tolist() == [0, 1, 2]
  scores = helped.score((), jax.random.key(0), TOKENS[:3], 0, print)[1]
  assert scores.argmax() == 2


def test_a_third_fidelity_takes_the_best_of_the_second():
  third = _table(np.arange(6.0))
  plan = ((2, 1), (4, 1), (4, 2))
  three = Fidelities((_table(CHEAP), _table(DEAR), third), plan)
  rows, values, final = three.incumbents(TOKENS)
  # Of rows 1 and 3, which reached the second, row 3 is the better one there.
  assert rows.tolist() == [0, 1, 1, 3, 3, 3]
  assert values[-1] == 3
  assert final.tolist() == [False, False, False, True, True, True]


def _config(**changes):
  return CompareConfig(
    dataset="x",
    report="dear",
    trials=2,
    **{"fidelities": "cheap:2,dear:20", "epochs_budget": 100} | changes,
  )


def test_no_trial_trains_more_epochs_than_its_budget():
  for share in (0.1, 0.5, 0.9):
    for budget in (60, 100, 1192):
      config = _config(promoted_share=share, epochs_budget=budget)
      spent = 2 * config.evaluations + 20 * len(config.promotions)
      assert budget - 2 < spent <= budget
      last, _ = config.promotions[-1]
      assert last == config.evaluations


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  ops = np.int8(list(np.ndindex(*[5] * 6)))
  rng = np.random.default_rng(0)
  dear = rng.normal(size=len(ops)).astype(np.float32)
  cheap = dear + rng.normal(size=len(ops)).astype(np.float32)
  file = tmp_path_factory.mktemp("fidelities") / "table.npz"
  np.savez(file, ops=ops, x_cheap=cheap, x_dear=dear)
  return str(file)


def test_a_comparison_reports_what_was_promoted(path, tmp_path):
  config = _config(table=path)
  file = tmp_path / "found.json"
  curves = comparison.run(config, ["random"], file=file, threads=1)["random"]
  # Two promotions; 60 epochs are left for the first fidelity.
  assert config.evaluations == 30
  assert curves.signal.shape == (2, 30)
  np.testing.assert_array_equal(curves.signal[:, -1], curves.report[:, -1])
  again = comparison.run(config, ["random"], file=file)["random"]
  np.testing.assert_array_equal(again.report, curves.report)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"fidelities": "dear:20,cheap:2"}, "`fidelities=dear:20,cheap:2`: give"),
    ({"fidelities": "cheap:2"}, "two or more"),
    ({"fidelities": "cheap:2,dear"}, "give pairs"),
    ({"signal": "cheap"}, "`signal=cheap`: with `fidelities`"),
    ({"budget": 50}, "`budget=50`: .* `epochs_budget`"),
    ({"fidelities": "cheap:2,dearer:20"}, "`fidelities=dearer`: .* no column"),
    ({"epochs_budget": 30}, "5 evaluations at the first fidelity: allowed: 10"),
  ],
)
def test_fidelities_that_cannot_be_are_refused_by_name(path, changes, message):
  with pytest.raises(UserError, match=message):
    comparison.check(_config(table=path, **changes), ["random"])


def test_epochs_need_fidelities():
  base = CompareConfig()
  with pytest.raises(UserError, match=r"promoted_share=0\.1`: acts only"):
    validate(dataclasses.replace(base, promoted_share=0.1), base)
