"""Official files of NAS-Bench-101, as the test writes them."""

import base64
import json
import struct

import jax
import numpy as np
import pytest

from nao_jax.data import nasbench101, tables
from nao_jax.errors import UserError
from nao_jax.studies import comparison
from nao_jax.studies.comparison import CompareConfig
from tests import driver_flags

CONV1, CONV3, POOL = "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"
# The cell of the benchmark's own example, and the two smallest.
LARGE = (
  "0111010" + "0000001" * 2 + "0000100" + "0000001" * 2 + "0" * 7,
  ["input", CONV1, CONV3, CONV3, CONV3, POOL, "output"],
)
SMALL = ("010001000", ["input", POOL, "output"])
SMALLEST = ("0100", ["input", "output"])


def _checksum(content: bytes) -> bytes:
  """TFRecord's, bit by bit."""
  crc = 0xFFFFFFFF
  for byte in content:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
  return masked.to_bytes(4, "little")


def _framed(content: bytes) -> bytes:
  length = len(content).to_bytes(8, "little")
  return length + _checksum(length) + content + _checksum(content)


def _varint(value: int) -> bytes:
  low, rest = value & 127, value >> 7
  return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value) -> bytes:
  if isinstance(value, float):
    return _varint(8 * number + 1) + struct.pack("<d", value)
  if isinstance(value, int):
    return _varint(8 * number) + _varint(value)
  return _varint(8 * number + 2) + _varint(len(value)) + value


def _metrics(valid: float, test: float, seconds: float, evaluations=3) -> bytes:
  """A protocol buffer; evaluations before the last one are of other numbers."""
  message = b""
  for number in range(evaluations):
    share = number / 2
    values = (108 * share, seconds * share, 1.0, valid * share, test * share)
    fields = [_field(at, value) for at, value in enumerate(values, 1)]
    message += _field(1, b"".join(fields) + _field(6, b"/a/checkpoint"))
  return message + _field(2, 2_000_000) + _field(3, 9.0)


def _training(cell, epochs, metrics, digest=None) -> bytes:
  adjacency, ops = cell
  encoded = base64.b64encode(metrics).decode()
  if digest is None:
    digest = " ".join([adjacency, *ops])
  record = [digest, epochs, adjacency, ",".join(ops), encoded]
  return _framed(json.dumps(record).encode())


RECORDS = [
  _training(LARGE, 108, _metrics(0.93, 0.92, 2000.0)),
  _training(SMALL, 108, _metrics(0.5, 0.4, 100.0)),
  _training(LARGE, 108, _metrics(0.95, 0.94, 4000.0)),
  _training(LARGE, 4, _metrics(0.6, 0.5, 80.0)),
  _training(SMALLEST, 108, _metrics(0.25, 0.125, 50.0)),
]


def _file(path, content: bytes) -> str:
  file = path / "some.tfrecord"
  file.write_bytes(content)
  return str(file)


def test_the_checksum_is_the_published_one():
  # The check value of CRC-32C.
  crc = nasbench101._CRC
  total = np.uint32(0xFFFFFFFF)
  for byte in b"123456789":
    total = crc[(total ^ byte) & 255] ^ (total >> 8)
  assert ~np.uint32(total) == 0xE3069283


def test_trainings_of_a_cell_are_averaged(tmp_path):
  table = nasbench101.read(_file(tmp_path, b"".join(RECORDS)))
  expected = {
    "valid108": [94, 50, 25],
    "test108": [93, 40, 12.5],
    "seconds108": [3000, 100, 50],
    "valid4": [60, np.nan, np.nan],
    "test4": [50, np.nan, np.nan],
    "seconds4": [80, np.nan, np.nan],
    "parameters": [2e6] * 3,
  }
  assert table.columns.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(table.columns[name], values)
  assert table.lower("seconds108")
  assert not table.lower("valid108")


def test_one_hash_is_one_cell_in_its_first_writing(tmp_path):
  # Two vertices beside each other, in both orders.
  edges = "0110" + "0001" * 2 + "0000"
  cells = [
    (edges, ["input", *inner, "output"])
    for inner in ([CONV1, POOL], [POOL, CONV1])
  ]
  shares = [(0, 0.5), (1, 0.6), (1, 0.7)]
  records = [
    _training(cells[n], 108, _metrics(valid, valid / 2, 10 * valid), "one")
    for n, valid in shares
  ]
  records.insert(1, _training(SMALL, 108, _metrics(0.1, 0.1, 1.0)))
  table = nasbench101.read(_file(tmp_path, b"".join(records)))
  for name, values in {
    "valid108": [60, 10],
    "test108": [30, 10],
    "seconds108": [6, 1],
    "parameters": [2e6] * 2,
  }.items():
    np.testing.assert_allclose(table.columns[name], values)
  cell = table.space.read(table.space.rows.tokens[0])
  assert (cell["vertex 1"], cell["vertex 2"]) == (CONV1, POOL)


def test_small_cells_lack_the_vertices_before_the_output(tmp_path):
  space = nasbench101.read(_file(tmp_path, b"".join(RECORDS))).space
  large, small, smallest = (space.read(row) for row in space.rows.tokens)
  edges = [
    {name.removeprefix("edge ") for name, value in cell.items() if value == 1}
    for cell in (large, small, smallest)
  ]
  assert edges[0] == {
    *("0 to 1", "0 to 2", "0 to 3", "0 to 5", "3 to 4"),
    *("1 to 6", "2 to 6", "4 to 6", "5 to 6"),
  }
  assert edges[1:] == [{"0 to 1", "1 to 6"}, {"0 to 6"}]
  ops = [[cell[f"vertex {n}"] for n in range(1, 6)] for cell in (large, small)]
  assert ops == [LARGE[1][1:-1], [POOL, *[CONV3] * 4]]


def test_the_driver_makes_a_table_to_search(tmp_path, monkeypatch):
  """Cells of one operation each, whose order the scores tell."""
  cells = [
    (f"0{a}0{b}" + "001" + f"{c}" + "0" * 8, ["input", op, other, "output"])
    for a in "01"
    for b in "01"
    for c in "1"
    for op in (CONV1, CONV3, POOL)
    for other in (CONV1, CONV3, POOL)
  ]
  records = [
    _training(cell, 108, _metrics(0.5 + n / 100, 0.4, 9.0))
    for n, cell in enumerate(cells)
  ]
  file, output = _file(tmp_path, b"".join(records)), tmp_path / "table.npz"
  with driver_flags.loaded("prepare_table") as module:
    line = [f"--nasbench101={file}", f"--output={output}"]
    driver_flags.flags.FLAGS(["driver", *line])
    module.main([])
  column = tables.load(str(output), "", "valid108")
  assert not column.complete
  assert column.title == "valid108, %"
  config = CompareConfig(
    table=str(output), signal="valid108", report="test108", budget=12, trials=1
  )
  found = comparison.run(config, ["evolution"], threads=1)["evolution"]
  assert found.signal.max() <= 50 + len(cells)
  rows = np.asarray(column.space.sample(jax.random.key(0), 9))
  assert (column.space.number(rows) >= 0).all()


def _changed(record: int, at: int) -> bytes:
  """The file with one bit of one record changed."""
  records = list(RECORDS)
  content = bytearray(records[record])
  content[at] ^= 16
  records[record] = bytes(content)
  return b"".join(records)


def _wrong(**changes) -> bytes:
  """The file with a further record, of something else."""
  cell = changes.get("cell", SMALL)
  metrics = changes.get("metrics", _metrics(0.5, 0.5, 1.0))
  epochs, digest = changes.get("epochs", 108), changes.get("digest")
  return RECORDS[0] + _training(cell, epochs, metrics, digest)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "has no record"),
    (b"PK\3\4 an archive", "record 1 is damaged or cut off"),
    (b"".join(RECORDS)[:-1], "record 5 is damaged or cut off"),
    (RECORDS[0] + RECORDS[1][:5], "record 2 is damaged or cut off"),
    (_changed(1, 3), "record 2 is damaged or cut off"),
    (_changed(2, 9), "record 3 is damaged or cut off"),
    (_changed(3, 40), "record 4 is damaged or cut off"),
    (_changed(4, -1), "record 5 is damaged or cut off"),
    (RECORDS[0] + _framed(b"{}"), "record 2: not a training of NAS-Bench-101"),
    (RECORDS[0] + _framed(b"[" * 5000), "record 2: not a training"),
    (_wrong(metrics=_metrics(0.5, 0.5, 1.0, 2)), "record 2: not a training"),
    (_wrong(metrics=_metrics(0.5, 0.5, 1.0)[:-3]), "a field is cut off"),
    (_wrong(metrics=b"\xff" * 20), "a number is cut off"),
    (_wrong(metrics=b"\x0b"), "kind 3 of a field"),
    (_wrong(metrics=_metrics(np.nan, 0.5, 1.0)), "measured .*nan"),
    (_wrong(digest=["a"]), r"hash \['a'\]"),
    (_wrong(cell=LARGE, digest="b"), "record 1 and record 2 are the same"),
    (_wrong(epochs=0), "0 epochs"),
    (_wrong(epochs=1e999), "record 2: not a training"),
    (_wrong(cell=(SMALL[0], ["input", "lstm", "output"])), "'lstm'"),
    (_wrong(cell=("0100", SMALL[1])), "edges '0100' of 3 vertices"),
    (_wrong(cell=("010001001", SMALL[1])), "that lead back"),
    (_wrong(cell=("0" * 64, ["input", *[POOL] * 6, "output"])), "vertices"),
  ],
)
def test_what_is_no_official_file_is_refused(content, message, tmp_path):
  with pytest.raises(UserError, match=message) as caught:
    nasbench101.read(_file(tmp_path, content))
  assert str(caught.value).startswith("`nasbench101=")


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UserError, match="cannot be read"):
    nasbench101.read(str(tmp_path / "missing"))
