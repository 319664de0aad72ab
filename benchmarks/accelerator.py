"""Checks and measures everything on a machine with a GPU or TPU.

python -m benchmarks.accelerator --json=FILE [--minutes=8]

Each part runs in processes of its own, for at most half of the time that is
left, and its result or error is written as it ends. The same command again runs
the parts that are missing or failed. It needs no network. The parts, in this
order:

  device          devices, versions, rates of products and copies
  reference       numbers of the official code, with float32 products
  reference_fast  the same with the products that the device takes by itself
  search          a small search on made-up images of CIFAR-10's size, twice:
                  both must come to the same bits
  resumed         the same search, killed and resumed: the same bits
  two_devices     the supernet's step and score on two devices, if there are two
  throughput      all works of benchmarks.throughput, compiled anew
  supernet, published, and both with _bfloat16
                  a step of the preset `cifar10` and of the recipe
                  `naonet_a_128_cifar10` at the largest batch that fits

--tiny makes everything small, for a trial on a CPU.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import flags
import numpy as np

from benchmarks import results
from experiments import driver
from nao_jax.errors import UserError, in_a_line

_JSON = flags.DEFINE_string("json", None, "File of results.", required=True)
_MINUTES = flags.DEFINE_float(
  "minutes", 8.0, "Time for all parts together.", lower_bound=0.1
)
_ONLY = flags.DEFINE_list("only", None, "Parts to run; all by default.")
_TINY = flags.DEFINE_boolean("tiny", False, "Make everything small.")

_ROOT = pathlib.Path(__file__).parents[1]
_REFERENCE = _ROOT / "benchmarks" / "reference"
_WORKS = (
  *("supernet_train", "supernet_score", "controller_fit", "propose"),
  *("rnn_supernet_train", "rnn_supernet_score", "scratch_train"),
)
_TINY_SIZES = (
  *("--channels=4", "--cells_per_stage=1", "--nodes=2", "--streams=2"),
  *("--steps=3", "--width=8", "--batch=4", "--repeats=1"),
  *("--published_channels=4", "--published_cells=1"),
)
_SEARCH = (
  *("--preset=cifar10", "--dataset=noise", "--validation_fraction=.25"),
  *("--pool_size=6", "--rounds=1", "--new_per_round=3", "--top_k=3"),
  *("--epochs=4", "--batch=32", "--controller_epochs=2", "--final_cells=0"),
  *("--finalists=2", "--finalist_epochs=1", "--finalist_channels=8"),
  *("--finalist_cells_per_stage=1", "--finalist_batch=32"),
  "--checkpoint_minutes=0",
)
_TINY_SEARCH = ("--channels=4", "--cells_per_stage=1", "--nodes=2")


class Place(NamedTuple):
  """Folder and time of a part.

  Attributes:
    folder: a folder for the files of all parts.
    until: the time at which the part ends, on the clock `time.monotonic`.
  """

  folder: pathlib.Path
  until: float

  def run(
    self, *command: str, also: tuple[int, ...] = (), **environment
  ) -> str:
    """Runs a module of this project; returns what it printed.

    Args:
      *command: the module and its arguments.
      also: exit statuses beside 0 that are no failure.
      **environment: variables to set.

    Raises:
      UserError: it failed, or there is no time left.
    """
    process = self.start(*command, **environment)
    try:
      left = max(self.until - time.monotonic(), 0)
      output, errors = process.communicate(timeout=left)
    except subprocess.TimeoutExpired:
      process.kill()
      process.communicate()
      raise UserError(f"{command[0]}: no time left") from None
    if process.returncode not in (0, *also):
      last = " ".join((errors or output).strip().splitlines()[-5:])
      raise UserError(f"{command[0]}: exit status {process.returncode}: {last}")
    return output

  def start(self, *command: str, **environment: str) -> subprocess.Popen:
    """Starts a module of this project."""
    return subprocess.Popen(
      [sys.executable, "-m", *command],
      cwd=_ROOT,
      env=os.environ | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def search(self, workdir: str) -> list[str]:
    """Returns the command of the small search; makes its images."""
    if not (self.folder / "noise").exists():
      file = self.folder / "noise.npz"
      np.savez(file, **_images())
      data = f"--npz={file}", f"--data_dir={self.folder}"
      self.run("experiments.prepare_images", "--name=noise", *data)
    return [
      *("experiments.search_cnn", *_SEARCH),
      *(_TINY_SEARCH if _TINY.value else ()),
      f"--data_dir={self.folder}",
      f"--workdir={self.folder / workdir}",
      f"--compilation_cache={self.folder / 'programs'}",
    ]

  def best(self, workdir: str) -> dict:
    """Returns the result of a search, which is run if it has not been."""
    file = self.folder / workdir / "best.json"
    if not file.exists():
      self.run(*self.search(workdir))
    return json.loads(file.read_text(encoding="utf-8"))


def _images() -> dict[str, np.ndarray]:
  """Returns images of noise, with a bright row at the place of their class."""
  noise, arrays = np.random.RandomState(0), {}
  for part, count in (("train", 256), ("test", 64)):
    labels = np.arange(count) % 10
    images = noise.randint(0, 128, (count, 32, 32, 3), np.uint8)
    images[np.arange(count), 3 * labels] += 128
    arrays |= {f"{part}_images": images, f"{part}_labels": labels}
  return arrays


def device(place: Place) -> dict:
  """Describes the devices."""
  return json.loads(place.run("benchmarks.machine").splitlines()[-1])


def reference(place: Place, precision: str, fails: bool) -> dict:
  """Compares with the official code's numbers.

  Args:
    place: folder and time.
    precision: precision of products.
    fails: whether a miss is an error, or a finding.
  """
  output = place.run(
    *("tests.reference_cases", str(_REFERENCE)),
    also=(3,),  # Cases that miss.
    JAX_DEFAULT_MATMUL_PRECISION=precision,
  )
  found = dict(re.findall(r"^(\S+)  (largest error .*)$", output, re.M))
  missed = [name for name, verdict in found.items() if "ok" not in verdict]
  return found | ({"error": f"missed: {missed}"} if fails and missed else {})


def search(place: Place) -> dict:
  """Searches twice, the second time with compiled programs."""
  times = [time.monotonic()]
  for workdir in ("search", "again"):
    best = place.best(workdir)
    times.append(time.monotonic())
  return {
    "first_seconds": times[1] - times[0],
    "second_seconds": times[2] - times[1],
    "text": best["text"],
  } | _compared(place, "again")


def resumed(place: Place) -> dict:
  """Searches, killed at its first checkpoint and started again."""
  place.best("search")
  process = place.start(*place.search("resumed"))
  checkpoints = place.folder / "resumed" / "checkpoints"
  while process.poll() is None and time.monotonic() < place.until:
    if any(path.name.isdigit() for path in checkpoints.glob("*")):
      break
    time.sleep(0.05)
  killed = process.poll() is None
  process.kill()
  process.communicate()
  if not killed:
    return {"error": "it ended before it could be killed"}
  place.best("resumed")
  return {"killed": True} | _compared(place, "resumed")


def _compared(place, workdir: str) -> dict:
  one, other = place.best("search"), place.best(workdir)
  changed = [name for name in one if one[name] != other.get(name)]
  return {"error": f"other values of {changed}"} if changed else {}


def measured(place: Place, works: tuple[str, ...], *given: str) -> dict:
  """Returns the figures of works, also of some of them with the error."""
  file = place.folder / "figures.json"
  file.unlink(missing_ok=True)
  sizes = _TINY_SIZES if _TINY.value else ("--repeats=5",)
  command = "benchmarks.throughput", f"--only={','.join(works)}"
  failure = {}
  try:
    place.run(*command, *sizes, *given, f"--json={file}")
  except UserError as error:
    failure = {"error": str(error)}
  found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
  return found.get("figures", {}) | failure


def largest(place: Place, work: str, *given: str) -> dict:
  """Measures a step of a work at the largest batch that fits."""
  most = f"--largest_batch={8 if _TINY.value else 4096}"
  return measured(place, (work,), most, *given)


# In this order: a function of a `Place`, and its other arguments.
PARTS = {
  "device": (device,),
  "reference": (reference, "float32", True),
  "reference_fast": (reference, "default", False),
  "search": (search,),
  "resumed": (resumed,),
  "two_devices": (measured, _WORKS[:2], "--devices=2"),
  "throughput": (measured, _WORKS, "--compilation_cache=off"),
  "supernet": (largest, "supernet_train"),
  "supernet_bfloat16": (largest, "supernet_train", "--bfloat16"),
  "published": (largest, "published_train"),
  "published_bfloat16": (largest, "published_train", "--bfloat16"),
}


def main(_):
  """Runs the parts; prints and writes the result of each."""
  names = _ONLY.value or list(PARTS)
  if unknown := set(names) - set(PARTS):
    raise UserError(f"--only={unknown.pop()}: allowed: {', '.join(PARTS)}")
  end = time.monotonic() + 60 * _MINUTES.value
  content = results.read(_JSON.value, {"tiny": _TINY.value})
  content |= results.measured_here("benchmarks.accelerator")
  done = content.setdefault("parts", {})
  folder = pathlib.Path(tempfile.mkdtemp())
  for name in names:
    if name in done and "error" not in done[name]:
      continue
    if name == "two_devices" and done.get("device", {}).get("count") == 1:
      continue
    start = time.monotonic()
    try:
      part, *given = PARTS[name]
      found = part(Place(folder, (start + max(start, end)) / 2), *given)
    except (UserError, OSError, ValueError) as error:
      found = {"error": in_a_line(error)}
    seconds = time.monotonic() - start
    done[name] = {"part_seconds": seconds, **found}
    results.write(_JSON.value, content)
    print(f"{name}, {seconds:.0f} s: {json.dumps(found)}", flush=True)
  shutil.rmtree(folder)
  if failed := [name for name in names if "error" in done.get(name, {})]:
    raise UserError(f"{', '.join(failed)}: failed; the same command runs them")


if __name__ == "__main__":
  driver.run(main)
