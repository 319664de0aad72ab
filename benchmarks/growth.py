"""Growth of the host's work in a round with the size of the pool.

python -m benchmarks.growth [--sizes=100,1000,10000]

Prints CPU milliseconds, the minimum of some repeats, and the exponent of a
power law through all sizes but the first.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import pathlib
import sqlite3
import tempfile
import time

from absl import flags
import jax
import numpy as np

from benchmarks.counting import exponent
from experiments import driver
from nao_jax import pool as pools
from nao_jax.controller import metrics
from nao_jax.errors import UserError
from nao_jax.pool import Pool
from nao_jax.runs import streams
from nao_jax.runs.trials import Trial, Trials, digest
from nao_jax.search.pool_file import PoolFile
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, proposal
from nao_jax.strategies.local import Local

_SIZES = flags.DEFINE_list(
  "sizes", ["100", "1000", "10000", "100000"], "Architectures in the pool."
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Of each.", lower_bound=1)

Work = tuple[str, Callable[[], object]]


def works(count: int, folder: str) -> Iterator[Work]:
  """Yields the work of a round with a pool of `count` architectures."""
  space, rng = cnn.space(), np.random.default_rng(0)
  tokens = np.asarray(space.sample(jax.random.key(0), count))
  scores = rng.random(count).astype(np.float32)
  pool = pools.start(tokens[:0], tokens, rounds=1 + _REPEATS.value)
  pool = pools.record(pool, scores, 0)
  fresh = proposal(tokens[: count // 2])
  file = pathlib.Path(folder, f"{count}.sqlite")
  held, later = PoolFile(file), iter(_later(pool, rng))
  seen = Observations(tokens, scores, set(space.keys(tokens)))
  local, key = Local(space), jax.random.key(1)
  climb, _ = local.tell(local.init(key), key, seen, None, None)
  yield "names of all", lambda: set(space.keys(tokens))
  yield (
    "replace the worst half",
    lambda: pools.replace_worst(pool, fresh, 0, pool.members, seen.order),
  )
  yield "ranking metrics", lambda: metrics.ranking(rng.random(count), scores)
  yield "pool.sqlite, written anew", lambda: PoolFile(file).write(pool)
  held.write(pool)
  yield "pool.sqlite, a round later", lambda: held.write(next(later))
  yield "Local.tell", lambda: local.tell(climb, key, seen, None, None)
  yield "Local.ask", lambda: local.ask(climb, key, seen, 1)
  trials = _trials(space, tokens, folder)
  yield "look up 100 trials", lambda: [trials.get(row) for row in tokens[:100]]
  one, others = Trial(0.5, (0.5,) * 25), iter(_others(space, count))
  yield (
    "add 100 trials",
    lambda: [trials.add(next(others), one) for _ in range(100)],
  )


def _later(pool: Pool, rng: np.random.Generator) -> list[Pool]:
  """Returns the pools of the next rounds: 100 members are new, all scored."""
  found = []
  for round_ in range(_REPEATS.value):
    order = rng.permutation(len(pool.members))
    fresh = proposal(pool.tokens[:100])
    pool = pools.replace_worst(pool, fresh, round_, pool.members, order)
    scores = rng.random(len(pool.members)).astype(np.float32)
    pool = pools.record(pool, scores, round_ + 1)
    found.append(pool)
  return found


def _trials(space: Space, tokens: np.ndarray, folder: str) -> Trials:
  """Writes a file with a trial for each architecture, in one transaction."""
  trials = Trials(pathlib.Path(folder, f"trials-{len(tokens)}"), space.name, {})
  curve = json.dumps([0.5] * 25)
  with contextlib.closing(sqlite3.connect(trials.path)) as database, database:
    database.executemany(
      "insert or ignore into trials values (?, ?, ?, 0.5, ?, 0)",
      (
        (space.name, " ".join(map(str, row)), digest({}), curve)
        for row in tokens.tolist()
      ),
    )
  return trials


def _others(space: Space, count: int) -> np.ndarray:
  """Samples enough architectures for all repeats of adding a hundred."""
  key = jax.random.fold_in(jax.random.key(2), count)
  return np.asarray(space.sample(key, 100 * _REPEATS.value))


def _seconds(call: Callable[[], object], repeats: int) -> float:
  found = []
  for _ in range(repeats):
    start = time.process_time()
    call()
    found.append(time.process_time() - start)
  return min(found)


def main(_):
  """Measures and prints a table."""
  if len(_SIZES.value) < 3 or not all(x.isdigit() for x in _SIZES.value):
    raise UserError(
      f"--sizes={','.join(_SIZES.value)}: give three numbers or more"
    )
  sizes = [int(size) for size in _SIZES.value]
  found: dict[str, list[float]] = {}
  with tempfile.TemporaryDirectory() as folder:
    for size in sizes:
      for name, call in works(size, folder):
        found.setdefault(name, []).append(_seconds(call, _REPEATS.value))
  rows = [
    {"work": name}
    | {str(x): f"{1e3 * s:.2f}" for x, s in zip(sizes, seconds, strict=True)}
    | {"exponent": f"{exponent(sizes[1:], seconds[1:]):.2f}"}
    for name, seconds in found.items()
  ]
  streams.show(rows, "CPU milliseconds")


if __name__ == "__main__":
  driver.run(main)
