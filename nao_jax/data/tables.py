"""Benchmark tables: measured scores of every architecture of a space.

Three kinds are read, none by executing anything: NumPy archives in the form of
NAS-Bench-201 (`ops` and columns named `<dataset>_<signal>`; nats_bench.py makes
one from the official files), the files of the package nas-bench-graph, which
are pickles of numbers, and files of any space of slots (table_files.py).

Shapes: F functions of a space.
"""

import functools
import importlib.util
import os
import pathlib
from typing import NamedTuple

import numpy as np

from nao_jax.data import digest, restricted_unpickler, table_files
from nao_jax.data.archives import Archive, reading
from nao_jax.errors import UserError
from nao_jax.runs import formats, paths
from nao_jax.spaces import nasbench201, nasbench_graph
from nao_jax.spaces.known import Known
from nao_jax.spaces.space import Space

# The value of `table` for the benchmark in a package.
GRAPH = "nas-bench-graph"
_GRAPH_SIGNALS = {"valid": "valid_perf", "test": "perf"}
# Names and units are the benchmark's: millions, and seconds.
_GRAPH_COSTS = {"params": "para", "latency": "latency"}


class Column(NamedTuple):
  """One measurement of all architectures.

  Attributes:
    space: the space of the architectures.
    scores: float32 [F], in per cent, or a cost in its own unit; NaN for
      functions without a measurement. Scores of which lower ones are better are
      negated.
    title: the column in words.
    sign: -1 for negated scores, else 1.
  """

  space: Space
  scores: np.ndarray
  title: str
  sign: int = 1

  @property
  def complete(self) -> bool:
    """True if all architectures that a table of slots may have were measured.

    The benchmarks in forms of their own count as complete.
    """
    if not isinstance(self.space, Known):
      return True
    return self.space.complete and not np.isnan(self.scores).any()


def load(
  table: str, dataset: str, signal: str, where: str = "signal"
) -> Column:
  """Loads one column of a table.

  Args:
    table: `nas-bench-graph`, or the path of an .npz, .csv or .json file.
    dataset: the data set that the architectures were trained on; it is not
      needed where a file of slots has a column named `signal`.
    signal: the measurement, in per cent; or a cost: any column of a file, and
      for `nas-bench-graph` `params` (millions) and `latency` (seconds).
    where: the setting that named the signal, for messages.

  Raises:
    UserError: the table, data set or signal does not exist, or the file is not
      a table of a known space.
  """
  if table == GRAPH:
    return _load_graph(dataset, signal, where)
  return _load_archive(table, dataset, signal, where)


def _load_archive(path, dataset, signal, where) -> Column:
  path = paths.expanded(path)
  # A changed file is read again, though its name is the same.
  stamp = tuple(digest.stamp(path)) if os.path.exists(path) else None
  columns = _read(os.fspath(path), stamp)
  name = f"{dataset}_{signal}"
  if isinstance(columns, table_files.Contents):
    return _of_slots(path, columns, name, signal, where)
  if name not in columns:
    known = ", ".join(sorted(columns)) or "none"
    raise UserError(
      f"`{where}={signal}`: {path} has no column {name!r} "
      f"(`dataset={dataset}`); its columns are {known}"
    )
  _check_finite(path, name, columns[name])
  return Column(nasbench201.space(), columns[name], f"{dataset} {signal}")


def _of_slots(path, table, name, signal, where) -> Column:
  """Returns a column of a file of slots, by either of its names."""
  name = signal if signal in table.columns else name
  if name not in table.columns:
    raise UserError(
      f"`{where}={signal}`: {path} has no column {signal!r}; its columns are "
      f"{', '.join(sorted(table.columns))}"
    )
  sign = -1 if where != "limit" and table.lower(name) else 1
  with np.errstate(over="ignore"):
    scores = (sign * table.columns[name]).astype(np.float32)
  for row in np.flatnonzero(np.isinf(scores))[:1]:
    raise UserError(
      f"`table={path}`: column {name!r} of "
      f"{table.space.text(table.space.rows.tokens[row])} is too large"
    )
  if np.isnan(scores).all():
    raise UserError(f"`table={path}`: column {name!r} has no number")
  return Column(table.space, scores, table.title(name), sign)


@functools.lru_cache(maxsize=2)
def _read(
  path: str, stamp: tuple | None
) -> table_files.Contents | dict[str, np.ndarray]:
  """Reads a file of slots, or the columns of NAS-Bench-201, float32 [F].

  The cache is keyed by `stamp`.
  """
  del stamp
  if not os.path.exists(path):
    raise UserError(
      f"`table={path}`: no such file; give {GRAPH}, a .npz file in the form of "
      "NAS-Bench-201, or a .npz, .csv or .json file of slots"
    )
  if path.endswith((".csv", ".json")):
    return table_files.read(path)
  with reading(path, "table") as file:
    archive = Archive(path, "table", file)
    if "format" in archive.names:
      found = archive["format"]
      found = found.item() if found.size == 1 else found.shape
      formats.check(found, formats.TABLE, f"`table={path}`")
    if "header" in archive.names:
      return table_files.read_archive(archive)
    arrays = {name: archive[name] for name in archive.names}
  arrays.pop("format", None)
  ops = arrays.pop("ops", None)
  names = arrays.pop("op_names", np.array(nasbench201.OPS))
  rows = _rows(path, nasbench201.space(), ops, names)
  # A number that is too large becomes infinite, and is refused when it is used.
  with np.errstate(over="ignore"):
    return {
      name: column[rows].astype(np.float32)
      for name, column in arrays.items()
      if column.shape == (len(ops),) and column.dtype.kind == "f"
    }


def _rows(path, space: Space, ops, names) -> np.ndarray:
  """Returns the row of each function's first sequence, [F]."""
  _check_ops(path, ops)
  order = _order(path, names)
  tokens = nasbench201.to_tokens(order[ops])
  numbers = space.functions.index(tokens)
  _, first, number = np.unique(numbers, return_index=True, return_inverse=True)
  for row in np.flatnonzero(first[number] != np.arange(len(ops)))[:1]:
    raise UserError(
      f"`table={path}`: rows {first[number[row]] + 1} and {row + 1} of 'ops' "
      f"are the same architecture, {nasbench201.to_text(tokens[row])}; keep "
      "one of them"
    )
  where = np.full(len(space.functions.of_sequence), -1)
  where[numbers] = np.arange(len(ops))
  missing = np.flatnonzero(where < 0)
  if len(missing):
    example = nasbench201.to_text(space.functions.tokens(missing[0]))
    raise UserError(
      f"`table={path}`: {len(missing)} of {len(where)} architectures are "
      f"missing, such as {example}"
    )
  return where[space.functions.representative]


def _check_ops(path, ops: np.ndarray | None) -> None:
  edges, most = len(nasbench201.EDGES), len(nasbench201.OPS) - 1
  if ops is None or ops.ndim != 2 or ops.shape[1] != edges:
    found = "none" if ops is None else ops.shape
    raise UserError(
      f"`table={path}`: 'ops' must be [architectures, {edges}]; found: {found}"
    )
  found = ops.dtype
  if ops.size and ops.dtype.kind in "iuf":
    found = f"{ops.dtype} from {ops.min():g} to {ops.max():g}"
  # Values of other types, such as structures, cannot be looked for.
  whole = ops.dtype.kind in "iu"
  unknown = whole and ~np.isin(ops, np.arange(most + 1)).all(1)
  if not whole or unknown.any():
    where = f", first in row {unknown.argmax() + 1}" if whole else ""
    raise UserError(
      f"`table={path}`: 'ops' must be integers from 0 to {most}; found: "
      f"{found}{where}"
    )


def _order(path, names: np.ndarray) -> np.ndarray:
  """Returns the numbers, in the space, of the table's operations, [5]."""
  known = nasbench201.OPS
  found = [str(name) for name in names.ravel()[: len(known) + 1]]
  if names.ndim != 1 or sorted(found) != sorted(known):
    raise UserError(
      f"`table={path}`: 'op_names' must be {', '.join(known)}; found: "
      f"{', '.join(found)}"
    )
  return np.array([known.index(name) for name in found])


def _check_finite(path, name, column) -> None:
  bad = np.flatnonzero(~np.isfinite(column))
  if len(bad):
    raise UserError(
      f"`table={path}`: column {name!r}: {len(bad)} of {len(column)} functions "
      f"have no score; one of them has {column[bad[0]]}"
    )


def _load_graph(dataset, signal, where) -> Column:
  columns = {
    "limit": _GRAPH_COSTS,
    "proxies": _GRAPH_COSTS | _GRAPH_SIGNALS,
  }.get(where, _GRAPH_SIGNALS)
  if signal not in columns:
    raise UserError(f"`{where}={signal}`: {GRAPH} has {' and '.join(columns)}")
  factor = 1 if signal in _GRAPH_COSTS else 100
  path = _graph_file(dataset)
  space = nasbench_graph.space()
  scores = np.full(len(space.functions.representative), np.nan, np.float32)
  for key, row in read_graph(path).items():
    number = space.functions.number(_graph_tokens(path, key))
    scores[number] = factor * _number(row.get(columns[signal]))
  # There is one function that cannot be trained.
  if np.isnan(scores).sum() > 1:
    raise UserError(
      f"{path}: {np.isnan(scores).sum()} of {len(scores)} architectures are "
      f"missing; `dataset={dataset}` has another space, or the file is damaged"
    )
  return Column(space, scores, f"{dataset} {signal}")


def _graph_file(dataset: str) -> pathlib.Path:
  # The package itself is not imported: only its files are needed.
  found = importlib.util.find_spec("nas_bench_graph")
  if found is None:
    raise UserError(
      f"`table={GRAPH}`: needs the package nas-bench-graph; pip install "
      "'nao_jax[tables]'"
    )
  folder = pathlib.Path(found.origin).parent / "light"
  # The data set proteins has fewer operations.
  names = sorted(f.stem for f in folder.glob("*.bench") if f.stem != "proteins")
  if dataset not in names:
    raise UserError(f"`dataset={dataset}`: {GRAPH} has {', '.join(names)}")
  return folder / f"{dataset}.bench"


def _graph_tokens(path, key: int) -> np.ndarray:
  link, *ops = [int(digit) for digit in f"{abs(key):05}"]
  most = len(nasbench_graph.OPS) - 1
  if key < 0 or len(ops) != nasbench_graph.NODES or max(ops) > most:
    raise UserError(f"{path}: {key!r} is not an architecture's number")
  names = [nasbench_graph.OPS[op] for op in ops]
  return np.array(nasbench_graph.to_tokens(_GRAPH_LINKS[link], names))


# The links, by the first digit of an architecture's number.
_GRAPH_LINKS = (
  (0, 0, 0, 0),
  (0, 0, 0, 1),
  (0, 0, 1, 1),
  (0, 0, 1, 2),
  (0, 0, 1, 3),
  (0, 1, 1, 1),
  (0, 1, 1, 2),
  (0, 1, 2, 2),
  (0, 1, 2, 3),
  (0, 0, 0, 0),
)


def read_graph(path: pathlib.Path) -> dict[int, dict[str, float]]:
  """Reads a file of NAS-Bench-Graph: measurements by an architecture's number.

  Raises:
    UserError: the file holds anything but numbers, or is damaged.
  """
  try:
    with path.open("rb") as file:
      found = restricted_unpickler.load(file)
  except Exception as error:  # Damaged pickles raise nearly anything.
    raise UserError(f"{path}: not a table of numbers: {error}") from error
  if not isinstance(found, dict) or not all(
    isinstance(key, int) and isinstance(row, dict) and _has_scores(row)
    for key, row in found.items()
  ):
    raise UserError(f"{path}: not a table of architectures and their scores")
  return found


def _has_scores(row: dict) -> bool:
  names = _GRAPH_SIGNALS.values()
  return all(isinstance(row.get(name), (int, float)) for name in names)


def _number(value) -> float:
  return value if isinstance(value, (int, float)) else np.nan
