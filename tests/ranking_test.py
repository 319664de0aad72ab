"""Agreement of shared scores with true ones."""

import functools
import json
import pathlib

import numpy as np
import pytest

from nao_jax.data import nats_bench
from nao_jax.data.images import Examples, ImageData
from nao_jax.errors import UserError
from nao_jax.spaces import nasbench201
from nao_jax.studies import ranking
from tests import drivers

TRUTH = np.random.default_rng(0).normal(90, 5, 200)


def test_scores_in_the_true_order_agree_everywhere():
  found = ranking.agreement(np.exp(TRUTH / 10), TRUTH)
  assert list(found.kendall.values()) == pytest.approx([1, 1, 1])
  assert list(found.spearman.values()) == pytest.approx([1, 1, 1])
  assert found.first == found.top_best == TRUTH.max()
  assert found.top_mean == pytest.approx(np.sort(TRUTH)[-10:].mean())


def test_a_part_ignores_what_happens_outside_it():
  good = np.median(TRUTH) <= TRUTH
  # Good ones are told from bad ones, but their order is reversed.
  found = ranking.agreement(np.where(good, 1000 - TRUTH, TRUTH), TRUTH)
  assert found.kendall["better half"] == pytest.approx(-1)
  assert found.kendall["best tenth"] == pytest.approx(-1)
  assert found.kendall["all"] > 0


def test_equal_scores_have_no_order():
  found = ranking.agreement(np.zeros(200), TRUTH)
  assert np.isnan(list(found.kendall.values())).all()
  assert found.first == TRUTH[0]


def test_an_interval_holds_the_mean_in_nineteen_of_twenty_samples():
  rng = np.random.default_rng(1)
  held = []
  for _ in range(2000):
    mean, half = ranking.interval(rng.normal(3, 2, 4))
    held.append(abs(mean - 3) <= half)
  assert np.mean(held) == pytest.approx(0.95, abs=0.02)
  assert np.isnan(ranking.interval([1.0])[1])


def test_published_supernets_agree_as_published(data_folder):
  folder = pathlib.Path(data_folder)
  truth = np.load(folder / "nasbench201.npz")
  published = np.load(folder / "nasbench201_supernets.npz")
  np.testing.assert_array_equal(truth["ops"], published["ops"])
  for name, taus, mean in (
    ("oneshot", (0.485, -0.05, -0.23), 91.19),
    ("fewshot", (0.551, 0.16, -0.08), 92.60),
  ):
    scores, true = published[f"cifar10_{name}"], truth["cifar10_test200"]
    found = ranking.agreement(scores, true)
    assert list(found.kendall.values()) == pytest.approx(taus, abs=0.006)
    assert found.top_mean == pytest.approx(mean, abs=0.04)


def _data(count):
  images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
  part = Examples(images, np.arange(count, dtype=np.int32))
  return ImageData("made", count, part, part, part, None, None)


def test_the_benchmarks_split_is_followed_in_its_order(tmp_path):
  file = tmp_path / "split.txt"
  file.write_text('{"train": ["int", ["3", "0"]], "valid": ["int", ["1"]]}')
  found = nats_bench.split(_data(4), str(file))
  assert found.train.labels.tolist() == [3, 0]
  assert found.validation.images.ravel().tolist() == [1]
  assert len(found.test.labels) == 4


@pytest.mark.parametrize(
  ("text", "named"),
  [
    ("{}", '"train"'),
    ('{"train": ["int", ["a"]], "valid": ["int", ["1"]]}', '"train"'),
    ('{"train": ["int", ["0"]], "valid": ["int", ["4"]]}', "0 to 3"),
    ('{"train": ["int", ["-1"]], "valid": ["int", ["1"]]}', "0 to 3"),
    ("[]", "split"),
  ],
)
def test_a_split_of_other_images_is_refused(tmp_path, text, named):
  file = tmp_path / "split.txt"
  file.write_text(text)
  with pytest.raises(UserError, match=named):
    nats_bench.split(_data(4), str(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """A table of all cells, whose scores are numbers of convolutions."""
  functions = nasbench201.space().functions
  count = len(functions.of_sequence)
  ops = nasbench201.to_ops(functions.tokens(np.arange(count)))
  convolutions = np.isin(ops, (2, 3)).sum(1) + ops[:, 0] / 10
  path = tmp_path_factory.mktemp("table") / "table.npz"
  np.savez(
    path, ops=ops.astype(np.int8), made_true=convolutions.astype(np.float32)
  )
  return path


@pytest.fixture
def run(table, digits_folder, tmp_path):
  """A function that compares supernets on digits, with further flags."""
  flags = {
    "table": table,
    "column": "made:true",
    "preset": "digits",
    "space": "nasbench201",
    "channels": 2,
    "epochs": 4,
    "pool_size": 24,
    "candidates": 12,
    "every": 2,
    "data_dir": digits_folder,
    "workdir": tmp_path / "runs",
    "json": tmp_path / "found.json",
  }
  given = [f"--{name}={value}" for name, value in flags.items()]
  return functools.partial(drivers.run, "benchmarks.shared_ranking", *given)


def test_supernets_are_compared_with_a_table_and_go_on(run, table, tmp_path):
  given = [
    f"--published={table}:made:true",
    f"--picture={tmp_path}/ranks.png",
    "--variant=plain:",
    "--variant=larger first: sampling=parameters sgd.learning_rate=0.05",
  ]
  first = run("--seeds=1", *given)
  assert first.returncode == 0, first.stderr
  before = json.loads((tmp_path / "found.json").read_text())
  assert set(before["shared"]) == {"plain, seed 0", "larger first, seed 0"}
  again = run("--seeds=2", *given)
  assert again.returncode == 0, again.stderr
  found = json.loads((tmp_path / "found.json").read_text())
  assert len(found["shared"]) == 4
  for name, scores in before["shared"].items():
    assert found["shared"][name] == scores
  for scores in found["shared"].values():
    assert list(scores) == ["2", "4"]
    assert np.shape(scores["4"]) == (12,)
  assert "larger first, seed 1 train supernet: 0 of" in again.stderr
  assert "plain, seed 0" not in again.stderr
  other = run("--seeds=1", "--variant=plain: train.batch=32")
  assert other.returncode == 2
  assert "--variant=plain: --json=" in other.stderr
  rows = {row[0]: row[1:] for row in found["rows"]}
  assert rows["published: true"][0] == "1.000"
  assert found["columns"][-1] == "Kendall, parameters"
  assert (tmp_path / "ranks.png").stat().st_size > 10_000


@pytest.mark.parametrize(
  ("flag", "named"),
  [
    ("--variant=a: sgd.speed=1", "sgd.speed"),
    ("--every=3", "--every=3"),
    ("--space=nao", "--space=nasbench201"),
  ],
)
def test_a_comparison_that_cannot_be_is_refused(run, flag, named):
  ended = run(flag)
  assert ended.returncode == 2
  assert named in ended.stderr.splitlines()[-1]
  assert "Traceback" not in ended.stderr
