"""Reads the official files of NAS-Bench-101 (Ying et al., ICML 2019).

They are `nasbench_only108.tfrecord` and `nasbench_full.tfrecord`: TFRecord
files with a training in each record, as JSON: a hash of the cell, the epochs,
the matrix of edges as 0 and 1 row by row, the operations of the vertices, and
measurements as a protocol buffer (`model_metrics.proto`). Neither TensorFlow
nor its formats' packages are needed.

A table has slots for the 21 edges of 7 vertices and for 5 operations. The first
vertex is the input, the last one the output. In a smaller cell the vertices
before the output that it lacks have no edges, and conv3x3-bn-relu. Cells are
told apart by their hash, which is the same for any order of the vertices. A
cell is listed in the order of its first record, so that the table is
incomplete.

Shapes: A architectures, R records of a batch.
"""

import array
import base64
from collections.abc import Callable, Iterator, Sequence
import json
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

from nao_jax.data import table_files
from nao_jax.errors import UserError
from nao_jax.runs import paths

VERTICES = 7
OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
_EDGES = np.triu_indices(VERTICES, 1)
_SLOTS = {
  f"edge {source} to {target}": [0, 1]
  for source, target in zip(*_EDGES, strict=True)
} | {f"vertex {vertex}": list(OPS) for vertex in range(1, VERTICES - 1)}
_KINDS = ("valid", "test", "seconds")
_A_BATCH = 4096
# Far above the length of a record, and below what a damaged length may be.
_LONGEST = 2**15


class _Training(NamedTuple):
  """A record; accuracies are shares, and the time is in seconds."""

  digest: str
  cell: tuple[str, str]
  epochs: int
  parameters: int
  measured: tuple[float, float, float]


def read(
  path: str,
  progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> table_files.Contents:
  """Averages all trainings of each architecture.

  Args:
    path: the file.
    progress: called with the phase, the bytes read, and their total.

  Returns:
    The table. Its columns are `parameters` and, for each number of epochs in
    the file, `valid108` and `test108`, accuracies in per cent at the end of the
    training, and `seconds108`, the training's time.

  Raises:
    UserError: the file cannot be read, is of another form or is damaged, or a
      cell has two hashes; the message names the record, from 1.
  """
  place = f"`nasbench101={path}`"
  rows: dict[str, int] = {}
  firsts, found = [], array.array("d")
  try:
    with paths.expanded(path).open("rb") as file:
      size = file.seek(0, 2)
      file.seek(0)
      for number, record in _records(file, place):
        training = _training(record, f"{place}: record {number}")
        row = rows.setdefault(training.digest, len(rows))
        if row == len(firsts):
          firsts.append((number, training.cell, training.parameters))
        found.extend((row, training.epochs, *training.measured))
        if number % _A_BATCH == 1:
          progress("read trainings", file.tell(), size)
  except OSError as error:
    raise UserError(f"{place}: cannot be read ({error})") from error
  if not rows:
    raise UserError(f"{place}: has no record")
  progress("read trainings", size, size)
  numbers, cells, counts = zip(*firsts, strict=True)
  places = np.array([_places(*cell) for cell in cells])
  values = np.frombuffer(found).reshape(-1, 2 + len(_KINDS))
  columns = _columns(values, len(rows)) | {"parameters": np.float64(counts)}
  header = {
    "space": "NAS-Bench-101",
    "slots": _SLOTS,
    "columns": {name: _described(name) for name in columns},
  }
  return table_files.contents(
    header, [*places.T], columns, place, lambda row: f"record {numbers[row]}"
  )


def _columns(values: np.ndarray, count: int) -> dict[str, np.ndarray]:
  """Returns the means over trainings, float64 [A] by name.

  `values` are the row, the epochs and the measurements of each training.
  """
  columns = {}
  for epochs in np.unique(values[:, 1]).tolist():
    own = values[values[:, 1] == epochs]
    rows = own[:, 0].astype(np.int64)
    trainings = np.bincount(rows, minlength=count)
    for at, kind in enumerate(_KINDS, 2):
      total = np.bincount(rows, own[:, at], count)
      with np.errstate(invalid="ignore"):
        mean = total / trainings  # NaN where there is none.
      columns[f"{kind}{int(epochs)}"] = (
        mean if kind == "seconds" else 100 * mean
      )
  return columns


def _described(name: str) -> dict[str, str]:
  if name.startswith("seconds"):
    return {"unit": "s", "better": "lower"}
  if name == "parameters":
    return {"better": "lower"}
  return {"unit": "%", "better": "higher"}


def _places(adjacency: str, operations: str) -> list[int]:
  """Returns the place of the choice of each slot."""
  ops = operations.split(",")
  count = len(ops)
  # The output is the last of seven vertices.
  at = [*range(count - 1), VERTICES - 1]
  matrix = np.zeros((VERTICES, VERTICES), int)
  matrix[np.ix_(at, at)] = np.reshape([*map(int, adjacency)], (count, count))
  missing = [0] * (VERTICES - count)
  inner = [OPS.index(op) for op in ops[1:-1]] + missing
  return matrix[_EDGES].tolist() + inner


def _training(record: bytes, place: str) -> _Training:
  """Parses a record; raises UserError if it is something else."""
  try:
    digest, epochs, adjacency, operations, metrics = json.loads(record)
    if not isinstance(digest, str):
      raise ValueError(f"hash {digest!r}")
    _check_cell(adjacency, operations.split(","))
    fields = [*_fields(base64.b64decode(metrics, validate=True))]
    # The first two are of the start and of half of the training.
    last = dict(_fields([value for key, value in fields if key == 1][2]))
    measured = tuple(float(last[key]) for key in (4, 5, 2))
    if not np.isfinite(measured).all() or int(epochs) < 1:
      raise ValueError(f"{epochs} epochs, measured {measured}")
    parameters = int(dict(fields)[2])
  except (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RecursionError),
  ) as error:
    raise UserError(
      f"{place}: not a training of NAS-Bench-101 ({error!r})"
    ) from error
  cell = adjacency, operations
  return _Training(digest, cell, int(epochs), parameters, measured)


def _check_cell(adjacency: str, ops: list[str]) -> None:
  """Raises ValueError for what is no cell of the space."""
  count = len(ops)
  if not 2 <= count <= VERTICES or (ops[0], ops[-1]) != ("input", "output"):
    raise ValueError(f"vertices {', '.join(ops)}")
  if unknown := {*ops[1:-1]} - {*OPS}:
    raise ValueError(f"operation {min(unknown)!r}")
  if len(adjacency) != count**2 or {*adjacency} - {*"01"}:
    raise ValueError(f"edges {adjacency!r} of {count} vertices")
  if any("1" in adjacency[row * count :][: row + 1] for row in range(count)):
    raise ValueError(f"edges {adjacency!r} that lead back")


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
  """Yields (number, value) of the fields of a protocol buffer's message.

  A damaged one raises ValueError.
  """
  at = 0
  while at < len(message):
    key, at = _varint(message, at)
    kind = key & 7
    if kind == 0:
      value, at = _varint(message, at)
      yield key >> 3, value
      continue
    if kind not in (1, 2, 5):
      raise ValueError(f"kind {kind} of a field")
    length = 8 if kind == 1 else 4
    if kind == 2:
      length, at = _varint(message, at)
    value = message[at : at + length]
    if len(value) < length:
      raise ValueError("a field is cut off")
    at += length
    yield key >> 3, struct.unpack("<d", value)[0] if kind == 1 else value


def _varint(message: bytes, at: int) -> tuple[int, int]:
  """Returns a whole number of 7 bits a byte, and the place after it."""
  value = 0
  for shift in range(0, 64, 7):
    if at >= len(message):
      break
    value |= (message[at] & 127) << shift
    at += 1
    if message[at - 1] < 128:
      return value, at
  raise ValueError("a number is cut off")


def _records(file: BinaryIO, place: str) -> Iterator[tuple[int, bytes]]:
  """Yields the number, from 1, and the content of each record of a TFRecord.

  Each is a length of 8 bytes, its checksum, the content and its checksum.

  Raises:
    UserError: the file is another one, or damaged.
  """
  number, ended = 0, False
  while not ended:
    heads, contents = [], []
    while len(contents) < _A_BATCH:
      head = file.read(12)
      if ended := not head:
        break
      length = int.from_bytes(head[:8], "little")
      content = file.read(length + 4) if length <= _LONGEST else b""
      heads.append(head)
      contents.append(content)
      if ended := len(content) < length + 4:
        contents[-1] = b""
        break
    if not contents:
      return
    sound = _sound(heads) & _sound(contents)
    for good, content in zip(sound.tolist(), contents, strict=True):
      number += 1
      if not good:
        raise UserError(
          f"{place}: record {number} is damaged or cut off; give an official "
          "file, such as nasbench_only108.tfrecord"
        )
      yield number, content[:-4]


def _sound(parts: Sequence[bytes]) -> np.ndarray:
  """Returns whether parts end with their checksum, bool [R].

  The checksum is TFRecord's, a masked CRC-32C; bytes of the same place are
  taken together, as a loop over all bytes takes minutes.
  """
  lengths = np.array([len(part) - 4 for part in parts], np.int64)
  longest = max(lengths, default=0)
  rows = b"".join(part[:-4].ljust(longest, b"\0") for part in parts)
  columns = np.frombuffer(rows, np.uint8).reshape(len(parts), -1).T
  total = np.full(len(parts), 0xFFFFFFFF, np.uint32)
  for at, column in enumerate(columns):
    new = _CRC[(total ^ column) & 255] ^ (total >> np.uint32(8))
    total = np.where(at < lengths, new, total)
  total = ~total
  masked = (total >> np.uint32(15)) | (total << np.uint32(17))
  masked += np.uint32(0xA282EAD8)
  ends = [int.from_bytes(part[-4:], "little") for part in parts]
  return (masked == np.array(ends, np.uint32)) & (lengths >= 0)


def _crc_of_bytes() -> np.ndarray:
  """Returns the CRC-32C of each byte, uint32 [256]."""
  found = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    found = np.where(
      found & 1, (found >> 1) ^ np.uint32(0x82F63B78), found >> 1
    )
  return found


_CRC = _crc_of_bytes()
