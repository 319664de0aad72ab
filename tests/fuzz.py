"""Feeds bytes to every reader of foreign files, guided by coverage.

python -m tests.fuzz --seconds=60 --json=FILE

Needs the package atheris. Each reader gets so many seconds in a process of its
own, which starts from whole files. Anything but a result or a UserError, a read
of more than 5 seconds, more than 4 GB, and a file or folder that Python opens
for writing, makes, renames, links or removes outside of the reader's own folder
end the process; the bytes then are in a file that is named, for a test. Seconds
are those of the processor, so that a busy machine does not count.
"""

import argparse
import bz2
import collections
from collections.abc import Callable
import contextlib
import io
import json
import logging
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple
import urllib.parse
import zipfile

from benchmarks import results
from nao_jax.errors import UserError

# Of one input: seconds, and megabytes of the process.
_MOST_SECONDS, _MOST_MEGABYTES = 5, 4096


class Reader(NamedTuple):
  """A reader of foreign bytes.

  Attributes:
    files: whole files, from which inputs are made.
    read: takes a folder and the bytes; may raise UserError.
  """

  files: list[bytes]
  read: Callable[[pathlib.Path, bytes], object]


def readers(home: pathlib.Path) -> dict[str, Reader]:
  """Returns the readers by name.

  Args:
    home: a folder for what whole files are made of.
  """
  return _tables() | _slots(home) | _images(home) | _texts() | _runs(home)


def _file(name: str, read: Callable[[pathlib.Path], object]):
  """Adapts a reader of a file of this name."""

  def run(folder: pathlib.Path, content: bytes) -> object:
    file = folder / name
    file.write_bytes(content)
    return read(file)

  return run


def _tables() -> dict[str, Reader]:
  from nao_jax.data import nasbench101, nats_bench, tables
  from nao_jax.spaces import cnn
  from nao_jax.tasks import image_costs
  from tests.bad_input import LIKE_A_TABLE, packed
  from tests.data_nasbench101_test import RECORDS

  def table(file):
    tables._read.cache_clear()
    tables.load(str(file), "shapes", "valid")

  rows = pickle.dumps({1: {"perf": 0.5, "valid_perf": 0.25}}, 2)
  results = bz2.compress(pickle.dumps({"meta_archs": ["|none~0|"]}))
  lines = [
    f"{c},{op},2" for c in image_costs._CELLS for op in cnn.OP_SETS["small"]
  ]
  costs = "\n".join(["cell,op,milliseconds", "network,,1.5", *lines]).encode()
  return {
    "table": Reader([packed(LIKE_A_TABLE)], _file("x.npz", table)),
    "graph": Reader([rows], _file("x.bench", tables.read_graph)),
    "nats": Reader(
      [results],
      _file("meta.pickle.pbz2", lambda file: nats_bench._meta(file.parent)),
    ),
    "nasbench101": Reader(
      [record[12:-4] for record in RECORDS],
      lambda _, content: nasbench101._training(content, "here"),
    ),
    "latency": Reader(
      [costs], _file("x.csv", lambda x: image_costs.read_table(str(x), "small"))
    ),
  }


def _slots(home: pathlib.Path) -> dict[str, Reader]:
  from nao_jax.data import tables
  from tests import table_files_test as whole

  def table(file):
    tables._read.cache_clear()
    tables.load(str(file), "", "accuracy", "limit")

  written = (whole._npz(home), whole._csv(home), whole._json(home))
  files = [*map(pathlib.Path, written)]
  return {
    f"slots {x.suffix}": Reader([x.read_bytes()], _file(f"x{x.suffix}", table))
    for x in files
  }


def _images(home: pathlib.Path) -> dict[str, Reader]:
  from nao_jax.data import listed, pixels, sources
  from nao_jax.data.split import Split
  from tests import tiny_images
  from tests.bad_files_test import _look
  from tests.bad_input import packed

  image = tiny_images.arrays()["train_images"][0]
  formats = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
  files = [tiny_images.encode(image, name) for name in formats]
  saved = home / "saved"
  tiny_images.save_arrow(saved, files[:1] * 4, [0, 0, 1, 1], ("x", "y"))
  arrow = sorted(saved.glob("*.arrow"))[-1]

  def from_csv(folder, content):
    (folder / "a.png").write_bytes(files[0])
    (folder / "x.csv").write_bytes(content)
    _look(listed.from_csv(folder / "x.csv", Split(0.5)))

  def from_arrow(name, folder, content):
    for path in saved.iterdir():
      (folder / path.name).write_bytes(path.read_bytes())
    (folder / name).write_bytes(content)
    _look(listed.from_arrow(folder, Split(0.5)))

  def from_arrays(file):
    _look(sources.from_npz(file))

  def pixels_of(folder, content):
    pixels.look(content, "here")
    pixels.decode(content, "here", size=8)

  csv = b"path,label\na.png,x\na.png,x\na.png,y\na.png,y\n"
  whole = [tiny_images.arrays(), tiny_images.encoded_as_png()]
  found = {
    "pixels": Reader(files, pixels_of),
    "csv": Reader([csv], from_csv),
    "npz": Reader([*map(packed, whole)], _file("x.npz", from_arrays)),
  }
  for name in (arrow.name, "dataset_info.json", "state.json"):
    found[f"arrow {name}"] = Reader(
      [(saved / name).read_bytes()],
      lambda folder, content, name=name: from_arrow(name, folder, content),
    )
  return found


def _texts() -> dict[str, Reader]:
  from nao_jax.data import text
  from nao_jax.spaces import cnn, nasbench201, published, rnn
  from tests.bad_input import CELLS_PAIR, WHOLE_TEXT

  def one_part(folder, content):
    for name, whole in WHOLE_TEXT.items():
      (folder / name).write_bytes(content if "train" in name else whole)
    text.load(str(folder))

  def architecture(folder, content):
    written = content.decode(errors="replace").replace("\0", "")
    for resolve in (cnn.resolve, rnn.resolve, nasbench201.parse):
      with contextlib.suppress(UserError):
        resolve(written)

  packed = io.BytesIO()
  with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in WHOLE_TEXT.items():
      archive.writestr(name, content)
  known = [*published.CONVOLUTIONAL, *published.RECURRENT]
  cell = b"|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|none~2|"
  return {
    "text": Reader([b"a b\n", b"a b\r\nb <unk>\r\n"], one_part),
    "zip": Reader(
      [packed.getvalue()], _file("x.zip", lambda file: text.load(str(file)))
    ),
    "tokens": Reader([*(x.text.encode() for x in known), cell], architecture),
    "best.json": Reader(
      [json.dumps(CELLS_PAIR).encode()],
      _file("best.json", lambda file: cnn.resolve(str(file))),
    ),
  }


def _runs(home: pathlib.Path) -> dict[str, Reader]:
  import numpy as np

  from nao_jax import pool as pools
  from nao_jax.report import watching
  from nao_jax.runs import checkpoint, config_file, json_file
  from nao_jax.runs.trials import Trial, Trials
  from nao_jax.search import pool_file
  from nao_jax.spaces import rnn
  from tests.bad_input import CONFIG, HISTORY

  space = rnn.space(1)
  columns = [np.int32([0]), np.int32([-1]), np.float32([0]), np.array([True])]
  pool = pools.of_table(np.int32([[1, 2]]), *columns, np.float32([[0.5]]))
  pool_file.PoolFile(home / "pool.sqlite").write(pool)
  Trials(home / "trials.sqlite", "x", {}).add([1, 2], Trial(0.5, (0.5,)))
  state = {"x": np.arange(6.0)}
  checkpoint.save(home / "checkpoints", state)

  def trials(file):
    Trials(file, "x", {}).get([1, 2])

  def restored(name):
    def read(folder, content):
      shutil.copytree(home / "checkpoints", folder / "checkpoints")
      (folder / "checkpoints" / "1" / "files.sha256").unlink()
      (folder / "checkpoints" / "1" / name).write_bytes(content)
      checkpoint.restore(folder / "checkpoints", state)

    return Reader([(home / "checkpoints" / "1" / name).read_bytes()], read)

  def status(file):
    (file.parent / "config.json").write_text(json.dumps(CONFIG))
    watching.render(watching.snapshot(file.parent))

  lines = b"".join(json.dumps(row).encode() + b"\n" for row in HISTORY)
  update = {"state": "running", "time": 1.5, "done": 1, "total": 2,
            "seconds": {"train": [1.0, 0.5]}, "left": None}  # fmt: skip
  return {
    "config.json": Reader(
      [json.dumps(CONFIG).encode()],
      _file("config.json", lambda x: config_file.read_settings(x.parent)),
    ),
    "history.jsonl": Reader(
      [lines],
      _file("x", lambda x: json_file.read_lines(x, wanted="x", advice="y")),
    ),
    "status.json": Reader(
      [json.dumps(update).encode()], _file("status.json", status)
    ),
    "pool.sqlite": Reader(
      [(home / "pool.sqlite").read_bytes()],
      _file("pool.sqlite", lambda file: pool_file.read(file, space)),
    ),
    "trials.sqlite": Reader(
      [(home / "trials.sqlite").read_bytes()], _file("trials.sqlite", trials)
    ),
    "checkpoint": restored("default/manifest.ocdbt"),
  }


def _only_inside(folder: pathlib.Path) -> None:
  """Ends the process where Python changes a file outside a folder."""

  def check(event: str, arguments: tuple) -> None:
    for path in _changed(event, arguments):
      path = os.path.abspath(path)
      if not f"{path}{os.sep}".startswith((f"{folder}{os.sep}", "/dev/")):
        print(f"{event} outside: {path}", file=sys.stderr, flush=True)
        os._exit(1)

  sys.addaudithook(check)


def _changed(event: str, arguments: tuple) -> list[str]:
  """Returns the paths that an event of `sys.addaudithook` changes."""
  match event, arguments:
    case "open", (str() | bytes() as path, _, flags):
      writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
      found = [(path, -1)] if writes else []
    case "sqlite3.connect", (path,):
      path = os.fsdecode(path)
      if path.startswith("file:"):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
      found = [(path, -1)]
    case "os.rename" | "os.link", (path, other, at, to):
      found = [(path, at), (other, to)]
    case "os.symlink", (_, path, at):
      found = [(path, at)]
    case "os.mkdir" | "os.chmod", (path, _, at):
      found = [(path, at)]
    case "os.remove" | "os.rmdir", (path, at):
      found = [(path, at)]
    case "os.truncate" | "os.utime" | "os.chown", (path, *_):
      found = [(path, -1)]
    case _:
      return []
  return [
    os.path.join(
      os.readlink(f"/proc/self/fd/{at}") if at >= 0 else "", os.fsdecode(path)
    )
    for path, at in found
    if not isinstance(path, int)
  ]


def _fuzz(name: str, seconds: int, folder: pathlib.Path) -> None:
  """Feeds one reader; never returns."""
  import atheris

  with atheris.instrument_imports(include=["nao_jax", "zipfile", "csv"]):
    reader = readers(folder / "home")[name]
  logging.disable()
  seeds, own = folder / "seeds", folder / "own"
  seeds.mkdir()
  for number, content in enumerate(reader.files):
    (seeds / str(number)).write_bytes(content)
    # A reader that refuses whole files is none.
    own.mkdir()
    reader.read(own, content)
    shutil.rmtree(own)

  def one(content: bytes) -> None:
    own.mkdir()
    start = time.process_time()
    try:
      with contextlib.suppress(UserError):
        reader.read(own, content)
    finally:
      shutil.rmtree(own)
    assert time.process_time() - start < _MOST_SECONDS, "a slow read"

  atheris.Setup(
    [
      sys.argv[0],
      f"-max_total_time={seconds}",
      # A read that never returns; a busy machine takes longer than it should.
      f"-timeout={60 * _MOST_SECONDS}",
      f"-rss_limit_mb={_MOST_MEGABYTES}",
      "-max_len=65536",
      f"-artifact_prefix={folder}/found-",
      str(seeds),
    ],
    one,
  )
  _only_inside(own)
  atheris.Fuzz()


def main() -> None:
  """Feeds all readers, one after the other, and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seconds", type=int, default=30, help="of each reader")
  parser.add_argument("--only", default="", help="part of readers' names")
  parser.add_argument("--json", help="file for the numbers")
  parser.add_argument("--reader", help=argparse.SUPPRESS)
  given = parser.parse_args()
  place = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
  (place / "home").mkdir()
  if given.reader:
    _fuzz(given.reader, given.seconds, place)
  rows = []
  for name in (x for x in readers(place / "home") if given.only in x):
    command = [sys.executable, "-m", "tests.fuzz", f"--reader={name}"]
    done = subprocess.run(
      [*command, f"--seconds={given.seconds}"], capture_output=True, text=True
    )
    counts = re.findall(r"^#(\d+)", done.stderr, re.M)
    inputs = max(map(int, counts), default=0)
    rows.append([name, inputs, done.returncode == 0])
    print(f"{name:28}{inputs:>10}  {'' if rows[-1][2] else 'FAILED'}")
    if not rows[-1][2]:
      print(done.stderr[-3000:], flush=True)
  shutil.rmtree(place)
  total = collections.Counter(ok for *_, ok in rows)
  print(f"{sum(n for _, n, _ in rows):,} inputs, {total[False]} failures")
  if given.json:
    names = ("reader", "inputs", "without a fault")
    found = {"rows": [dict(zip(names, row, strict=True)) for row in rows]}
    results.write(given.json, results.measured_here("tests.fuzz") | found)
  sys.exit(bool(total[False]))


if __name__ == "__main__":
  main()
