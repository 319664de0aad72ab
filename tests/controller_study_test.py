"""A controller alone, on a table."""

import dataclasses

import numpy as np
import pytest

from nao_jax.controller import metrics
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.errors import UserError
from nao_jax.spaces import nasbench201
from nao_jax.strategies.nao import NaoConfig
from nao_jax.studies import controller_study
from nao_jax.studies.controller_study import StudyConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """A score that is easy to predict: how many edges convolve."""
  space = nasbench201.space()
  index = np.arange(len(space.functions.of_sequence))
  ops = space.functions.tokens(index) - nasbench201.to_tokens(np.zeros(6))
  path = tmp_path_factory.mktemp("table") / "edges.npz"
  scores = (ops == 3).sum(-1) + (ops == 2).sum(-1) / 2
  np.savez(path, ops=ops, edges_valid=scores.astype(np.float32))
  return StudyConfig(
    table=str(path),
    dataset="edges",
    members=100,
    measured=80,
    best=10,
    controller=ControllerConfig(
      embedding=8, hidden=24, mlp_layers=1, mlp_width=16, mlp_dropout=0.0
    ),
    fit=FitConfig(epochs=150, batch=25, learning_rate=1e-2),
    nao=NaoConfig(top_k=20, step_size=2, max_step_size=6),
  )


@pytest.fixture(scope="module")
def found(config):
  return controller_study.run(config)


def test_what_is_easy_is_predicted_on_others(found):
  assert found["ranking"]["pairwise_accuracy"]["value"] > 0.8
  assert found["ranking"]["spearman"]["value"] > 0.7


def test_every_measure_lies_in_its_interval(found):
  for part in found["ranking"].values():
    low, high = part["interval"]
    assert low <= part["value"] <= high
    assert high - low < 0.7


def test_members_are_rebuilt_better_than_chance(found):
  for part in found["reconstruction"].values():
    assert part["tokens"] > 0.4  # Chance is a fifth.
    assert part["exact"] <= part["equivalent"] <= 1


def test_every_step_size_is_reported(found):
  assert [row["step_size"] for row in found["steps"]] == [2, 4, 6]
  gains = [row["predicted_gain"] for row in found["steps"]]
  assert gains[0] > 0
  for row in found["steps"]:
    assert 0 <= row["new"] <= 1
    assert 0 <= row["changed"] <= 1


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"members": 0}, "`members=0`"),
    ({"measured": 1}, "`measured=1`"),
    ({"members": 6400}, "the table has 6466 functions"),
    ({"best": 0}, "`best=0`"),
    ({"signal": "cost"}, "`signal=cost`"),
  ],
)
def test_what_cannot_work_is_refused(changes, message, config):
  with pytest.raises(UserError, match=message):
    controller_study.check(dataclasses.replace(config, **changes))


def test_precision_is_the_share_of_the_best_that_was_found():
  scores = np.array([5, 4, 3, 2, 1.0])
  assert metrics.precision_at(2, scores, scores) == 1
  assert metrics.precision_at(2, -scores, scores) == 0
  assert metrics.precision_at(2, np.array([9, 0, 8, 0, 0]), scores) == 0.5
  assert metrics.precision_at(9, -scores, scores) == 1
  ties = np.array([1, 1, 1, 0.0])
  assert metrics.precision_at(1, np.array([0, 0, 9, 0]), ties) == 1


def test_an_interval_covers_the_true_value_most_of_the_time():
  rng = np.random.default_rng(0)
  covered = 0
  for _ in range(100):
    sample = rng.normal(size=50)
    low, high = metrics.interval(
      lambda x, _: float(x.mean()), sample, sample, rng, draws=200
    )
    covered += low <= 0 <= high
  assert 85 <= covered <= 99
