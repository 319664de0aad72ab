"""Speed of the parts of a search on this machine, beside its lower bound.

python -m benchmarks.throughput [--only=supernet_train,propose] [--json=FILE]

Every figure is the median of repeated calls after a warm-up, with the fastest
and the slowest beside it. The floor is the counted work (see
benchmarks/counting.py) over the machine's measured rates; beside it is the
ratio of the median to the floor. Memory is the program's: arguments, results
and temporary buffers. `compile` compiles the program of `supernet_train` in two
processes, one after the other, that share an empty compilation cache.
`published_train` and, for NAS-Bench-201, `edge_supernet_train` and
`edge_supernet_score` are measured only if they are named.

--largest_batch=N takes the largest power of two up to N that fits the device as
the batch: two programs are compiled, and memory is taken to grow with the batch
as a whole.
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

from absl import flags
import jax

from benchmarks import edge_works, machine, published, results, work
from benchmarks.machine import Machine
from benchmarks.work import Sizes, Work
from experiments import driver, settings
from nao_jax.errors import UserError, in_a_line
from nao_jax.runs import streams
from nao_jax.training import memory_check

_ONLY = flags.DEFINE_list("only", None, "Names to measure; all by default.")
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Counted calls.", lower_bound=1)
_LARGEST = flags.DEFINE_integer(
  "largest_batch", None, "Largest batch to try.", lower_bound=1
)
settings.define(Sizes, {})

_NAMED = (
  published.published_train,
  edge_works.edge_supernet_train,
  edge_works.edge_supernet_score,
)
_WORKS = {make.__name__: make for make in (*work.ALL, *_NAMED)}
_COMPILE = "compile"
_NAMES = [*(make.__name__ for make in work.ALL), _COMPILE]
# Share of a device's memory that a program may take.
_SHARE = 0.9


def measure(work: Work, repeats: int, rates: Machine) -> dict:
  """Compiles, warms up, and times some calls."""
  start = time.perf_counter()
  program = work.program.lower(*work.arguments).compile()
  compiled = time.perf_counter() - start
  arguments, seconds = work.arguments, []
  for number in range(1 + repeats):
    start = time.perf_counter()
    result = jax.block_until_ready(program(*arguments))
    seconds.append(time.perf_counter() - start)
    arguments = work.after(number + 1, arguments, result)
  median = statistics.median(seconds[1:])
  floor = rates.floor(work.needed)
  return {
    "seconds": median,
    "fastest": min(seconds[1:]),
    "slowest": max(seconds[1:]),
    "compile": compiled,
    "rate": work.amount / median,
    "unit": work.unit,
    "operations": work.needed.operations,
    "bytes": work.needed.bytes,
    "floor": floor,
    "above_floor": median / floor,
    "memory": _bytes(program),
  }


def _bytes(program) -> int:
  """Returns the bytes of arguments, results and temporary buffers."""
  memory = program.memory_analysis()
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def largest_batch(
  make: Callable[[Sizes], Work], sizes: Sizes, most: int
) -> int:
  """Returns the largest power of two that fits the first device as a batch.

  Args:
    make: makes the work.
    sizes: its sizes, of which the batch is replaced.
    most: upper limit.
  """
  batch = min(32, most)
  small = make(dataclasses.replace(sizes, batch=batch))
  each = _bytes(small.program.lower(*small.arguments).compile()) / batch
  room = _SHARE * (memory_check.room(sizes.devices) or 0)
  while 2 * batch <= most and 2 * batch * each <= room:
    batch *= 2
  return batch


def _figures(name: str, sizes: Sizes, rates: Machine) -> dict:
  """Measures one work; its figures, or the error that it ended with."""
  make = _WORKS[name]
  try:
    if _LARGEST.value:
      batch = largest_batch(make, sizes, _LARGEST.value)
      sizes = dataclasses.replace(sizes, batch=batch)
    found = measure(make(sizes), _REPEATS.value, rates)
  except Exception as error:  # The others are worth their figures.
    traceback.print_exc()
    return {"error": in_a_line(error)}
  return found | {"batch": sizes.batch}


def compile_twice(name: str) -> dict:
  """Returns the seconds of compilation in a first and in a second process."""
  with tempfile.TemporaryDirectory() as folder:
    cache, figures = pathlib.Path(folder, "cache"), pathlib.Path(folder, "json")
    command = [sys.executable, "-m", "benchmarks.throughput", f"--only={name}"]
    command += [*settings.given(Sizes), "--repeats=1", f"--json={figures}"]
    command.append(f"--compilation_cache={cache}")
    seconds = []
    for _ in range(2):
      subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
      found = json.loads(figures.read_text(encoding="utf-8"))
      seconds.append(found["figures"][name]["compile"])
  return {"first": seconds[0], "second": seconds[1]}


def _row(name: str, found: dict) -> dict[str, str]:
  return {
    "work": name,
    "ms": f"{1e3 * found['seconds']:.1f}",
    "fastest": f"{1e3 * found['fastest']:.1f}",
    "slowest": f"{1e3 * found['slowest']:.1f}",
    "rate": f"{found['rate']:.0f} {found['unit']}/s",
    "floor ms": f"{1e3 * found['floor']:.1f}",
    "batch": str(found["batch"]),
    "above": f"{found['above_floor']:.1f}x",
    "compile s": f"{found['compile']:.1f}",
    "memory MB": f"{found['memory'] / 1e6:.0f}",
  }


def main(_):
  """Measures, prints a table, writes JSON."""
  names, allowed = _ONLY.value or _NAMES, [*_WORKS, _COMPILE]
  for name in names:
    if name not in allowed:
      raise UserError(f"--only={name}: unknown; allowed: {', '.join(allowed)}")
  sizes = settings.choose({"sizes": Sizes()}, "sizes", {})
  rates, figures = machine.measure(), {}
  for name in names:
    if name == _COMPILE:
      figures[name] = compile_twice(work.supernet_train.__name__)
    else:
      figures[name] = _figures(name, sizes, rates)
    if _JSON.value:
      content = {"machine": rates._asdict(), "figures": figures}
      results.write(_JSON.value, content)
  rows = [_row(name, x) for name, x in figures.items() if "rate" in x]
  streams.show(
    rows,
    f"{jax.local_device_count()} device(s), {rates.operations / 1e9:.0f}"
    f" GFLOP/s, {rates.bytes / 1e9:.1f} GB/s",
    wide=140,
  )
  if _COMPILE in figures:
    first, second = figures[_COMPILE].values()
    print(f"compile: {first:.1f} s, in a second process {second:.1f} s")
  if failed := [name for name in figures if "error" in figures[name]]:
    raise UserError(f"{', '.join(failed)}: see the errors above")


if __name__ == "__main__":
  driver.run(main)
