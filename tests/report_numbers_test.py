"""Numbers of reports, compared with the files of the searches."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from nao_jax import pool as pools
from nao_jax.metrics import ACCURACY, PERPLEXITY
from nao_jax.networks.cost import cost
from nao_jax.report import analysis, formatting, pool_sections
from nao_jax.report import run as runs
from nao_jax.settings import unflatten
from nao_jax.spaces import cnn
from nao_jax.tasks.image_finals import ImageFinalConfig
from tests.report_searches import EVIL, ROUNDS, SEARCH, page_of, query, text_of


def test_scores_on_the_page_are_those_of_the_database(nao, page):
  rows = [row[:4] for row in page.rows(4)]
  for round_ in range(ROUNDS + 1):
    (found,) = query(
      nao,
      "select count(*), max(score), avg(score) from scores"
      f" where round = {round_}",
    )
    count, best, mean = found
    assert (str(round_), str(count), f"{best:.4f}", f"{mean:.4f}") in rows
  ((scored,),) = query(nao, "select count(distinct architecture) from scores")
  assert f"architectures scored {scored}" in page.shown


def test_the_quality_of_the_predictor_is_that_of_the_history(nao, page):
  # Without the intervals, which stand in brackets where there are enough.
  rows = [tuple(x.partition(" (")[0] for x in row) for row in page.rows(5)]
  for line in (nao / "history.jsonl").read_text().splitlines()[:-1]:
    row = json.loads(line)
    assert (
      str(row["round"]),
      "held out",
      str(row["held_out"]),
      f"{row['pairwise_accuracy']:.3f}",
      f"{row['kendall_tau']:.3f}",
    ) in rows


@pytest.mark.parametrize("which", ["nao", "plus"])
def test_proposals_are_predicted_before_they_are_scored(which, request):
  path = request.getfixturevalue(which)
  found = {
    one.round: one
    for one in analysis.predictions(runs.read(path))
    if one.group == "proposals"
  }
  assert sorted(found) == list(range(ROUNDS))
  page = text_of(path)
  for round_, one in found.items():
    scores = query(
      path,
      "select score from scores join architectures on id = architecture"
      f" where round = {round_ + 1} and origin = {round_ + 1} order by id",
    )
    np.testing.assert_allclose(one.scores, np.ravel(scores), rtol=1e-6)
    tau = stats.kendalltau(one.predicted, np.ravel(scores)).statistic
    assert re.search(rf"{np.nan_to_num(tau):.3f} \(", page.text)


def test_an_ensemble_holds_each_member_out_of_one_controller(plus):
  page = page_of(plus)
  assert "Each member is held out of one controller" in page.shown
  assert "held out" in page.cells
  assert "fitted" not in page.cells
  assert "Gradient steps" in page.shown


def test_measured_gains_are_over_the_seed_in_the_same_round(nao):
  steps = analysis.steps(runs.read(nao))
  for step in steps:
    gains = query(
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
  assert chain[0].origin == "a random draw"
  parents = dict(query(nao, "select id, parent from architectures"))
  rows = [one.row for one in chain]
  assert [parents[row] for row in rows] == [None, *rows[:-1]]


def test_a_parent_that_does_not_exist_ends_the_chain(nao):
  pool = runs.read(nao).pool
  row = len(pool.tokens) - 1
  for wrong in (row, row + 7):
    parents = np.where(np.arange(len(pool.parents)) == row, wrong, -1)
    (one,) = analysis.ancestors(pool._replace(parents=parents), row)
    assert one.parent is None


def test_an_ancestor_is_compared_with_its_parent_in_its_own_first_round():
  """Scores of different rounds do not measure the same thing."""
  none = np.nan
  pool = pools.of_table(
    np.array([[1, 1], [1, 2], [2, 2]], np.int32),
    np.array([0, 1, 2], np.int32),  # Origins.
    np.array([-1, 0, 1], np.int32),  # Parents.
    np.array([0, 3, 4], np.float32),  # Sizes of steps.
    np.ones(3, bool),
    np.array(
      [[0.1, 0.2, 0.3], [none, 0.5, 0.6], [none, none, 0.9]], np.float32
    ),
  )
  first, second, third = analysis.ancestors(pool, 2)
  assert [one.row for one in (first, second, third)] == [0, 1, 2]
  assert first.parent is None
  np.testing.assert_allclose(
    [second.first, second.parent, second.last], [0.5, 0.2, 0.6]
  )
  np.testing.assert_allclose(
    [third.first, third.parent, third.last], [0.9, 0.6, 0.9]
  )
  assert [one.changed for one in (second, third)] == [1, 1]


def test_shares_of_ops_are_counted_by_rank(nao):
  run = runs.read(nao)
  found, rest = analysis.op_shares(run)
  members = run.members(ROUNDS)
  scores = run.pool.scores[members, ROUNDS]
  best = members[np.argsort(-scores, kind="stable")[: found.count]]
  ops = cnn.to_cells(run.pool.tokens[best])[..., 1::2].ravel()
  expected = np.bincount(ops, minlength=5) / len(ops)
  np.testing.assert_allclose(found.mean, expected)
  np.testing.assert_allclose([found.mean.sum(), rest.mean.sum()], 1)
  assert found.count + rest.count == SEARCH.pool_size


def test_costs_are_those_of_the_winner(nao, page):
  run = runs.read(nao)
  tokens = run.pool.tokens[run.winner]
  final = unflatten(ImageFinalConfig, run.settings, "final.")
  own = run.cells.network
  for network in (own, final.network(own)):
    found = cost(network, tokens, 8, 1)
    assert f"{found.parameters:,}" in page.cells
    assert f"{found.multiply_adds:,}" in page.cells


def test_the_front_of_scores_and_costs_is_listed_by_cost(nao):
  run = runs.read(nao)
  members = run.members(ROUNDS)
  costs = np.random.default_rng(0).permutation(len(members)) * 100.0
  last = run.history[-1] | {"cost": "parameters", "limit": 500.0}
  section = pool_sections.costs(
    dataclasses.replace(
      run,
      arrays=run.arrays | {ROUNDS: {"member_cost": costs}},
      history=[*run.history[:-1], last],
    )
  )
  front, best = [], -np.inf
  for at in np.argsort(costs):
    score = run.pool.scores[members[at], ROUNDS]
    if score > best:
      front.append([str(members[at]), f"{costs[at]:,.6g}", f"{score:.4f}"])
      best = score
  assert section.tables[0].rows == front
  assert "The limit of the search was 500." in section.texts[0]
  assert pool_sections.costs(run) is None


def test_the_page_says_where_the_time_went(nao, page):
  found = runs.read(nao).seconds["fit controller"]
  seconds, compiled = (f"{value:,.1f}" for value in found)
  assert ("fit controller", seconds, compiled) in page.rows(3)


def test_the_comparison_shows_spread_and_diverged_trainings(page):
  values = np.array([0.9, 0.8, 0.7])
  expected = f"{values.mean():.4f}", f"{values.std(ddof=1):.4f}", "1"
  assert ("searched", "2", "3", *expected) in page.rows(6)
  # 0.85 and 0.7 against 0.55 twice: two standard errors are 0.15.
  assert "+0.2250" in page.shown
  assert "+0.0750 to +0.3750" in page.shown
  assert "in this one search" in page.shown


def test_a_difference_within_the_errors_is_no_difference(nao, tmp_path):
  path = shutil.copytree(nao, tmp_path / "run")
  best = json.loads((path / "best.json").read_text())
  best["test_accuracy"] = {"searched": [[0.9], [0.5]], "random": [[0.6], [0.7]]}
  (path / "best.json").write_text(json.dumps(best))
  assert "no evidence of a difference" in text_of(path).shown


def test_a_recurrent_cell_is_scored_by_its_perplexity(recurrent):
  page, run = page_of(recurrent), runs.read(recurrent)
  best = PERPLEXITY.show(run.pool.scores[:, -1][run.winner])
  assert f"perplexity with shared weights {best}" in page.shown
  assert f"{run.cells.network.parameters:,}" in page.cells
  assert "+2.25 (lower is better)" in page.shown
  assert "fewer than two cells in a group the uncertainty" in page.shown
  assert EVIL in page.shown


def test_finalists_are_shown_with_both_ranks(finalists):
  page, run = text_of(finalists), runs.read(finalists)
  row = run.finalists["searched"][0].row
  score = ACCURACY.show(run.pool.scores[row, ROUNDS])
  assert ("1", "searched", "3", score, "0.8750") in page.rows(5)
  none = "\N{EN DASH}"
  assert ("2", "random", none, none, "0.8125") in page.rows(5)
  assert ("5", "random", none, none, "diverged") in page.rows(5)
  # Better than the one that diverged thrice, than the other one and a half
  # times, as one is as good.
  assert "better than a random one in 4.5 of 6 pairs (ties" in page.shown
  assert "after training is -1.00 over 3 cells" in page.shown


def test_stages_of_finalists_are_shown_side_by_side(finalists, tmp_path):
  """All were trained for 2 epochs, and the best of each group for 8."""
  path = shutil.copytree(finalists, tmp_path / "run")
  best = json.loads((path / "best.json").read_text())
  for entries in best["finalists"].values():
    for number, entry in enumerate(entries):
      value = entry["validation_accuracy"]
      entry["stages"] = [[2, value], [8, 0.5]][: 1 if number else 2]
  (path / "best.json").write_text(json.dumps(best))
  page = text_of(path)
  none = "\N{EN DASH}"
  shown = [row[-2:] for row in page.rows(6)]
  assert ("0.8750", "0.5000") in shown
  assert ("0.6250", none) in shown
  assert (
    "The best 1 of them was trained again from scratch, for 8" in page.shown
  )
  # First trainings are compared, which all have.
  assert "better than a random one in 4.5 of 6 pairs (ties" in page.shown


def test_items_are_spread_evenly_from_the_first_to_the_last():
  assert formatting.spread_out([3, 1, 2], 2) == [3, 2]
  assert formatting.spread_out([3, 1, 2], 20) == [3, 1, 2]
  assert formatting.spread_out(list(range(9)), 5) == [0, 2, 4, 6, 8]


def test_the_winner_is_the_first_finalist(finalists):
  page, run = text_of(finalists), runs.read(finalists)
  assert run.winner == run.pool.ranked(ROUNDS)[2]
  assert f"architecture {run.winner} of the pool, ranked 3 of" in page.shown
  assert "first of 3 finalists" in page.shown
  assert run.cells.space.text(run.pool.tokens[run.winner]) in page.shown
