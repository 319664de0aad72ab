"""The official files of NAS-Bench-201: what is read, and what is refused."""

import bz2
import pickle

import nats_bench as official
import numpy as np
import pytest

from nao_jax.data import nats_bench
from nao_jax.errors import UserError
from nao_jax.spaces import nasbench201

TEXTS = (
  "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|",
  "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
)
PARTS = {
  "cifar10-valid": ("x-valid", "ori-test"),
  "cifar10": ("ori-test",),
  "cifar100": ("x-valid", "x-test", "ori-test"),
}
SEEDS = (777, 888)


def _accuracy(number, epochs, dataset, part, seed):
  return float(
    10 * number + epochs + len(dataset) + len(part) / 10 + seed / 1000
  )


def _results(number, epochs, datasets):
  """Builds the benchmark's entry of an architecture with two trainings."""
  held = official.ArchResults(number, TEXTS[number])
  last = epochs - 1
  for dataset in datasets:
    for seed in SEEDS:
      accuracies = {
        f"{part}@{last}": np.float64(
          _accuracy(number, epochs, dataset, part, seed)
        )
        for part in PARTS[dataset]
      }
      one = official.ResultsCount(
        dataset, None, {last: 99.0}, {last: 0.1}, np.float64(0.07), 10.0,
        {"arch_str": TEXTS[number]}, seed, epochs, [0.01],
      )  # fmt: skip
      one.eval_names = list(PARTS[dataset])
      one.eval_acc1es = accuracies
      one.eval_losses = dict.fromkeys(accuracies, 1.0)
      held.update(dataset, seed, one)
  return held.state_dict()


def _write(path, content):
  with bz2.open(path, "wb") as file:
    pickle.dump(content, file)


@pytest.fixture
def folder(tmp_path):
  _write(tmp_path / "meta.pickle.pbz2", {"meta_archs": list(TEXTS)})
  for number in range(len(TEXTS)):
    # Of the second one a data set is missing.
    datasets = [name for name in PARTS if not number or name != "cifar100"]
    trainings = {str(e): _results(number, e, datasets) for e in (12, 200)}
    _write(tmp_path / f"{number:06d}.pickle.pbz2", trainings)
  return tmp_path


def test_a_column_has_the_last_epochs_mean_over_trainings(folder):
  arrays = nats_bench.read(str(folder))
  for name, epochs, dataset, part in (
    ("cifar10_valid12", 12, "cifar10-valid", "x-valid"),
    ("cifar10_test200", 200, "cifar10", "ori-test"),
  ):
    expected = [
      np.mean([_accuracy(n, epochs, dataset, part, seed) for seed in SEEDS])
      for n in range(len(TEXTS))
    ]
    np.testing.assert_allclose(arrays[name], expected, rtol=1e-6)


def test_operations_are_those_of_the_published_notation(folder):
  arrays = nats_bench.read(str(folder))
  assert arrays["op_names"].tolist() == list(nasbench201.OPS)
  texts = map(nasbench201.to_text, nasbench201.to_tokens(arrays["ops"]))
  assert tuple(texts) == TEXTS


def test_a_column_that_some_architecture_lacks_is_left_out(folder):
  names = nats_bench.read(str(folder)).keys()
  assert not any("cifar100" in name or "imagenet16" in name for name in names)


def test_progress_ends_at_the_number_of_architectures(folder):
  calls = []
  nats_bench.read(str(folder), lambda phase, *at: calls.append(at))
  assert calls == [(0, 2), (1, 2), (2, 2)]


class _Evil:
  def __reduce__(self):
    # Not print itself, in whose place Ray puts a function of its own.
    return exec, ("print('executed')",)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("meta", {"meta_archs": _Evil()}, "would call builtins.exec"),
    ("meta", {"other": 1}, "no list `meta_archs`"),
    ("meta", {"meta_archs": ["|no~0|"]}, "architecture |no~0|"),
    ("000001", {"12": _Evil()}, "000001.pickle.pbz2: not a pickle of data"),
    ("000001", {"12": 5}, "000001.pickle.pbz2: not results of NATS-Bench"),
    ("000001", None, "000001.pickle.pbz2: no such file"),
  ],
)
def test_a_damaged_file_is_named_and_nothing_is_executed(
  folder, capsys, name, content, message
):
  file = folder / f"{name}.pickle.pbz2"
  if content is None:
    file.unlink()
  else:
    _write(file, content)
  with pytest.raises(UserError) as caught:
    nats_bench.read(str(folder))
  assert message in str(caught.value)
  assert "executed" not in capsys.readouterr().out


def test_a_file_that_is_no_archive_is_named(folder):
  (folder / "000000.pickle.pbz2").write_bytes(b"not bz2")
  with pytest.raises(UserError, match=r"000000\.pickle\.pbz2"):
    nats_bench.read(str(folder))
