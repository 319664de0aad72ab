"""Searches against random cells, paired by seed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import paired, tables
from nao_jax.evaluators.table import Table
from nao_jax.spaces import nasbench201
from tests import pages


def _best(searched, random, finalists=None):
  """Builds best.json of such trainings, [cells, R] each."""
  best = {"test_accuracy": {"searched": searched, "random": random}}
  if finalists is not None:
    best["finalists"] = {
      group: [{"validation_accuracy": value} for value in values]
      for group, values in zip(paired.GROUPS, finalists, strict=True)
    }
  return best


def test_a_cell_counts_once_however_often_it_was_trained():
  (first, mean) = paired.pairs(
    [_best([[0.9, 0.7], [0.6, 0.6]], [[0.5, 0.5], [0.7, 0.7]])], "accuracy"
  )
  assert first.searched == pytest.approx([0.8])
  assert first.random == pytest.approx([0.5])
  assert mean.searched == pytest.approx([0.7])
  assert mean.random == pytest.approx([0.6])


def test_what_diverged_has_no_part_in_a_mean():
  pairs = paired.pairs(
    [
      _best([[0.9, None]], [[0.5, 0.7]]),
      _best([[None, None]], [[0.5, 0.5]]),
      _best([[0.8, 0.8]], [[0.9, 0.9]]),
    ],
    "accuracy",
  )
  what, *shown, higher = paired.row(pairs[1]).values()
  assert what == "comparison, test accuracy: mean"
  # .9 and .8 against .6 and .9: the second search has nothing to compare.
  assert shown == ["0.8500 (0.0500)", "0.7500 (0.1500)", "0.1000 (0.2000)"]
  assert higher == "1 of 2"


def test_values_that_differ_by_rounding_are_equal():
  pair = paired.Pair("", np.array([0.1 + 0.2]), np.array([0.3]))
  assert paired.row(pair)["searched is higher"] == "0 of 1, equal 1"


def test_finalists_are_compared_where_all_searches_have_them():
  best = _best([[0.9]], [[0.8]], [[0.7, 0.5], [0.6, 0.2]])
  first, mean, *rest = paired.pairs([best, best], "accuracy")
  assert first.searched.tolist() == [0.7, 0.7]
  assert first.random.tolist() == [0.6, 0.6]
  assert mean.searched == pytest.approx([0.6, 0.6])
  assert mean.random == pytest.approx([0.4, 0.4])
  assert len(rest) == 2
  assert len(paired.pairs([best, _best([[0.9]], [[0.8]])], "accuracy")) == 2


def test_true_scores_are_those_of_the_finalists():
  space = nasbench201.space()
  truth = Table(space, np.arange(len(space.functions.representative)))
  best, worse = (
    space.functions.tokens(space.functions.representative[[number]])[0]
    for number in (6000, 100)
  )
  found = _best([[0.9]], [[0.8]], [[0.7, 0.5], [0.6, 0.2]])
  for group, tokens in zip(
    paired.GROUPS, ([best] * 2, [worse] * 2), strict=True
  ):
    for entry, own in zip(found["finalists"][group], tokens, strict=True):
      entry["tokens"] = own.tolist()
  pairs = {pair.what: pair for pair in paired.pairs([found], "accuracy", truth)}
  first = pairs["finalists, true score: the first"]
  assert first.searched.tolist() == [6000]
  assert first.random.tolist() == [100]


# Searches that take no time, and know their seeds.
SCRIPT = """
import runpy
from nao_jax import experiment

def run(task, config, *, workdir):
  print(f"{config.strategy} {config.seed} in {workdir}")
  worth = 0.5 + config.seed / 10
  return {"test_accuracy": {"searched": [[worth]], "random": [[0.5]]}}

experiment.run = run
runpy.run_module("benchmarks.search_against_random", run_name="__main__")
"""


def test_the_driver_searches_with_each_seed_and_keeps_all_figures(tmp_path):
  file = tmp_path / "found.json"
  flags = ["--seeds=3", "--strategy=nao", f"--workdir={tmp_path}/runs"]
  ended = subprocess.run(
    [sys.executable, "-c", SCRIPT, *flags, f"--json={file}"],
    cwd=pages.ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  for seed in range(3):
    assert f"nao {seed} in {tmp_path}/runs/seed_{seed}\n" in ended.stdout
  content = json.loads(file.read_text())
  values = content["values"]["comparison, test accuracy: mean"]
  assert values["searched"] == pytest.approx([0.5, 0.6, 0.7])
  assert content["command"].endswith("--seeds=3 --strategy=nao")
  assert "equal 1" in tables.section(content)
  assert str(tmp_path) not in file.read_text()
