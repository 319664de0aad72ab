"""Benchmark tables: what is read, and what is refused."""

import pathlib
import pickle
import struct
import tracemalloc

import jax
import numpy as np
import pytest

from nao_jax.data import tables
from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table
from nao_jax.spaces import nasbench201, nasbench_graph


@pytest.fixture(scope="module")
def arrays():
  """Arrays of a complete archive, in an order of its own."""
  space = nasbench201.space()
  count = len(space.functions.of_sequence)
  order = np.random.default_rng(0).permutation(count)
  tokens = space.functions.tokens(order)
  names = list(nasbench201.OPS)[::-1]
  ops = 4 - (tokens - nasbench201.to_tokens(np.zeros(6)))
  return {
    "ops": ops.astype(np.int8),
    "op_names": np.array(names),
    "shapes_valid": (order / 100).astype(np.float32),
  }


@pytest.fixture
def archive(arrays, tmp_path):
  def save(**changes):
    path = tmp_path / "table.npz"
    kept = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(path, **kept)
    return str(path)

  return save


def test_a_function_has_the_score_of_its_first_sequence(archive):
  column = tables.load(archive(), "shapes", "valid")
  functions = column.space.functions
  expected = (functions.representative / 100).astype(np.float32)
  np.testing.assert_array_equal(column.scores, expected)


def test_a_table_scores_sequences_of_one_function_alike(archive):
  column = tables.load(archive(), "shapes", "valid")
  table = Table(column.space, column.scores)
  tokens = np.asarray(column.space.sample(jax.random.key(1), 100))
  _, scores = table.score(
    table.init(jax.random.key(0)), jax.random.key(0), tokens, 0, print
  )
  twins = column.space.canonical(tokens)
  np.testing.assert_array_equal(scores, table.lookup(twins))
  assert scores.dtype == np.float32
  assert table.best == column.scores.max()


def test_what_was_not_measured_has_the_worst_score():
  space = nasbench_graph.space()
  scores = np.arange(len(space.functions.representative), dtype=np.float32)
  scores[[0, 7]] = np.nan
  tokens = space.functions.tokens(space.functions.representative[[7, 9]])
  assert Table(space, scores).lookup(tokens).tolist() == [1, 9]


def test_columns_of_one_table_belong_to_one_row(data_folder):
  path = pathlib.Path(data_folder) / "nasbench201.npz"
  column = tables.load(str(path), "cifar10", "test200")
  assert column.scores.max() == pytest.approx(94.373, abs=1e-3)
  assert tables.load(str(path), "cifar100", "test200").scores.max() == (
    pytest.approx(73.513, abs=1e-3)
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"ops": None}, "'ops' must be .* found: none"),
    ({"ops": np.zeros((4, 5), np.int8)}, r"found: \(4, 5\)"),
    ({"ops": np.zeros((4, 6))}, "found: float64 from 0 to 0$"),
    ({"ops": np.full((4, 6), "7")}, "found: <U1$"),
    ({"ops": np.zeros((4, 6), [("op", int)])}, r"found: \[\('op', '<i8'\)\]$"),
    ({"ops": np.zeros((4, 6), "V3")}, r"found: \|V3$"),
    ({"ops": np.full((4, 6), 5)}, "found: int64 from 5 to 5, first in row 1"),
    ({"ops": np.eye(6, dtype=int)[[0, 1, 0]]}, "rows 1 and 3 .* the same arch"),
    ({"ops": np.zeros((1, 6), int), "shapes_valid": None}, "are missing"),
    ({"op_names": np.array(["a", "b"])}, "found: a, b"),
    (
      {"shapes_valid": np.full(15625, np.nan, np.float32)},
      "6466 of 6466 functions have no score",
    ),
    ({"shapes_valid": None}, "no column 'shapes_valid'"),
    ({"op_names": np.array(["a", {}], object)}, "not a NumPy archive"),
  ],
)
def test_an_archive_of_another_form_is_refused(archive, changes, message):
  path = archive(**changes)
  with pytest.raises(UserError, match=message):
    tables.load(path, "shapes", "valid")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04."])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
  path = tmp_path / "broken.npz"
  path.write_bytes(content)
  with pytest.raises(UserError, match=r"broken\.npz") as caught:
    tables.load(str(path), "shapes", "valid")
  assert "pickle" not in str(caught.value)


def test_a_single_array_is_refused(tmp_path):
  np.save(tmp_path / "scores.npy", np.zeros(3))
  with pytest.raises(UserError, match="savez writes one"):
    tables.load(str(tmp_path / "scores.npy"), "shapes", "valid")


def test_a_missing_file_is_named():
  with pytest.raises(UserError, match=r"`table=/nowhere\.npz`: no such file"):
    tables.load("/nowhere.npz", "shapes", "valid")


def test_the_packaged_benchmark_agrees_with_its_own_keys():
  pytest.importorskip("nas_bench_graph")
  column = tables.load(tables.GRAPH, "cora", "test")
  # The example that the benchmark's page gives, in two orders.
  numbers = [
    column.space.functions.number(np.array(nasbench_graph.to_tokens(*network)))
    for network in (
      ([0, 1, 2, 1], ["gcn", "gin", "fc", "cheb"]),
      ([0, 1, 1, 2], ["gcn", "gin", "cheb", "fc"]),
    )
  ]
  assert numbers[0] == numbers[1]
  assert 0 < column.scores[numbers[0]] < 100
  assert np.isnan(column.scores).sum() == 1


class Evil:
  def __reduce__(self):
    return print, ("executed",)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (pickle.dumps({0: Evil()}), "it would call builtins.print"),
    (pickle.dumps([1, 2]), "not a table of architectures"),
    (pickle.dumps({0: {"perf": 1.0}}), "not a table of architectures"),
    (pickle.dumps({"a": {"perf": 1.0, "valid_perf": 1.0}}), "not a table of"),
    (b"", "not a table of numbers"),
    (pickle.dumps({0: {"perf": np.float16(1)}}), "a number of type 'f2'"),
  ],
)
def test_a_damaged_benchmark_is_refused_and_never_executed(
  content, message, tmp_path, capsys
):
  path = tmp_path / "cora.bench"
  path.write_bytes(content)
  with pytest.raises(UserError, match=message):
    tables.read_graph(path)
  assert capsys.readouterr().out == ""


def test_a_large_number_of_an_object_needs_no_memory(tmp_path):
  path = tmp_path / "cora.bench"
  # An empty dictionary as object 20,000,000.
  path.write_bytes(b"\x80\x02}r" + struct.pack("<I", 20_000_000) + b".")
  tracemalloc.start()
  try:
    assert tables.read_graph(path) == {}
    assert tracemalloc.get_traced_memory()[1] < 1e6
  finally:
    tracemalloc.stop()


def test_a_long_array_that_is_not_there_needs_no_memory(tmp_path):
  """A fuzzer found it."""
  path = tmp_path / "cora.bench"
  path.write_bytes(b"\x80\x05\x96" + struct.pack("<Q", 10**8) + b".")
  tracemalloc.start()
  try:
    with pytest.raises(UserError):
      tables.read_graph(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
  finally:
    tracemalloc.stop()


def test_numbers_of_numpy_are_read_as_they_are(tmp_path):
  path = tmp_path / "cora.bench"
  row = {"perf": np.float64(0.25), "valid_perf": 0.5}
  path.write_bytes(pickle.dumps({3: row}))
  assert tables.read_graph(path) == {3: {"perf": 0.25, "valid_perf": 0.5}}
  assert struct.unpack("<d", np.float64(0.25).tobytes()) == (0.25,)


@pytest.mark.parametrize(
  ("dataset", "signal", "message"),
  [
    ("mnist", "valid", "`dataset=mnist`: nas-bench-graph has .*cora"),
    ("proteins", "valid", "`dataset=proteins"),
    ("cora", "valid12", "`signal=valid12`: nas-bench-graph has valid and test"),
  ],
)
def test_unknown_columns_of_the_packaged_benchmark_are_named(
  dataset, signal, message
):
  pytest.importorskip("nas_bench_graph")
  with pytest.raises(UserError, match=message):
    tables.load(tables.GRAPH, dataset, signal)
