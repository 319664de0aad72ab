"""How busy many workers are with and without `--asynchronous`, simulated.

python -m benchmarks.asynchronous [--workers=8,64,1000] [--json=FILE]

The search, the evaluator from scratch and the dispatch of a cluster's trials
are those of a real search; only the workers and the clock are not there. A
training takes a random time, log-normal and longer by a factor for a few
stragglers; its unit is the median. Fitting the controller takes a fixed time,
in which the workers go on with what is left.
"""

from collections.abc import Callable, Iterator
import dataclasses
import heapq
import json
import pathlib
import time

from absl import flags
import jax
import numpy as np
import rich.console
import rich.table

from experiments import driver
from nao_jax import search
from nao_jax.evaluators.dispatch import Dispatch, Task
from nao_jax.evaluators.scratch import FromScratch, News
from nao_jax.progress import Each
from nao_jax.search import SearchConfig
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import Uniform
from nao_jax.trials import Trial
from nao_jax.workdir import check_writable

_WORKERS = flags.DEFINE_list("workers", ["8", "64", "1000"], "How many.")
_LATE = flags.DEFINE_list(
  "late", ["0.5", "1.0", "1.5"], "Values of --late of a search."
)
_POOL = flags.DEFINE_float("pool", 3.0, "First pool, in workers.")
_NEW = flags.DEFINE_float("new", 1.5, "Proposals a round, in workers.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of proposals.")
_SPREAD = flags.DEFINE_float("spread", 0.5, "Sigma of the log-normal times.")
_STRAGGLERS = flags.DEFINE_float("stragglers", 0.05, "Share of stragglers.")
_FACTOR = flags.DEFINE_float("factor", 5.0, "So much longer they take.")
_FIT = flags.DEFINE_float("fit", 0.1, "Time of a fit, in median trainings.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Searches of each kind, seeds 0 ..")
_JSON = flags.DEFINE_string("json", None, "File for the numbers.")


@dataclasses.dataclass(frozen=True)
class Times:
  """How long things take; the unit is the median training.

  Attributes:
    spread: sigma of the logarithm.
    stragglers: share of the trainings that take `factor` times as long.
    factor: see there.
    fit: of the controller.
  """

  spread: float = 0.5
  stragglers: float = 0.05
  factor: float = 5.0
  fit: float = 0.1

  def training(self, rng: np.random.Generator) -> float:
    """Of one candidate."""
    longer = self.factor if rng.random() < self.stragglers else 1.0
    return longer * float(rng.lognormal(0.0, self.spread))


class Simulated:
  """An executor (see `scratch.Executor`) with a clock of its own.

  Attributes:
    clock: time since the start.
    busy: time that workers were in training, all of them together.
    before_last: the share of their time until the last round began.
  """

  epochs = 1
  each = Each(1, "trainings")

  def __init__(self, workers: int, times: Times, seed: int):
    """Nobody is in training."""
    self.clock = self.busy = self.before_last = 0.0
    self._workers = self._free = workers
    self._times = times
    self._rng = np.random.default_rng(seed)
    self._dispatch = Dispatch()
    self._ends: list[tuple[float, int, Task]] = []
    self._begun = 0

  def init(self, anybody: np.ndarray) -> tuple:
    """Nothing is kept."""
    return ()

  def run(
    self,
    state: tuple,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials,
    between: Callable[[], None],
  ) -> Iterator[News]:
    """See `scratch.Executor`."""
    if self.clock:
      to_come = sum(end - self.clock for end, _, _ in self._ends)
      done = self.busy - to_come
      self.before_last = done / self.clock / self._workers
    self._dispatch.want(rows, limits, trials)
    self._hand_out()
    left = {row.tobytes() for row in rows}
    while left:
      self._advance()
      news = self._dispatch.news(1.0)
      left -= news.keys()
      yield News([*news.values()], self._dispatch.running, state)

  def pass_time(self, duration: float) -> None:
    """What goes on while nobody asks."""
    until = self.clock + duration
    while self._ends and self._ends[0][0] <= until:
      self._advance()
    self.clock = until

  def _hand_out(self) -> None:
    while self._free and (task := self._dispatch.next()):
      self._free -= 1
      takes = self._times.training(self._rng)
      self.busy += takes
      self._begun += 1
      heapq.heappush(self._ends, (self.clock + takes, self._begun, task))

  def _advance(self) -> None:
    """To the next end of a training."""
    self.clock, _, task = heapq.heappop(self._ends)
    self._free += 1
    score = float(self._rng.random())
    self._dispatch.done(task, Trial(score, (score,)))
    self._hand_out()


class Memory(dict):
  """What `Trials` does, without a file."""

  def get(self, architecture: np.ndarray) -> Trial | None:
    """See `Trials`."""
    return super().get(np.asarray(architecture).tobytes())

  def add(self, architecture: np.ndarray, trial: Trial) -> None:
    """See `Trials`."""
    self.setdefault(np.asarray(architecture).tobytes(), trial)


@dataclasses.dataclass(frozen=True)
class Fitted(Uniform):
  """Random proposals of a controller that takes its time."""

  executor: Simulated = None
  duration: float = 0.0

  def tell(self, state, key, seen, progress, keep):
    """Lets the time of a fit pass."""
    self.executor.pass_time(self.duration)
    return super().tell(state, key, seen, progress, keep)


def simulate(
  workers: int, config: SearchConfig, times: Times, seed: int
) -> tuple[search.Pool, Simulated]:
  """A whole search: its pool, and the executor at its end."""
  executor = Simulated(workers, times, seed)
  space = cnn.space()
  pool = search.run(
    space,
    FromScratch(space, executor, Memory()),
    jax.random.key(seed),
    config,
    strategy=Fitted(space, executor, times.fit),
  )
  return pool, executor


def measure(workers: int, late: float | None, times: Times, seeds: int) -> dict:
  """Utilisation and duration of a search; late is None if it is synchronous."""
  config = SearchConfig(
    pool_size=round(_POOL.value * workers),
    rounds=_ROUNDS.value,
    new_per_round=round(_NEW.value * workers),
    extend=True,
  )
  if late is not None:
    config = dataclasses.replace(config, asynchronous=True, late=late)
  ended = [simulate(workers, config, times, seed)[1] for seed in range(seeds)]
  used = [end.busy / end.clock / workers for end in ended]
  return {
    "workers": workers,
    "late": late,
    "utilisation": float(np.mean(used)),
    "deviation": float(np.std(used, ddof=1)) if seeds > 1 else 0.0,
    "before_last": float(np.mean([end.before_last for end in ended])),
    "duration": float(np.mean([end.clock for end in ended])),
  }


def main(_):
  """Simulates all and prints a table."""
  if _JSON.value:
    check_writable(_JSON.value, "--json")
  times = Times(_SPREAD.value, _STRAGGLERS.value, _FACTOR.value, _FIT.value)
  table = rich.table.Table(title=f"{_SEEDS.value} searches each; {times}")
  headings = ("workers", "late", "utilisation", "before the last round")
  for heading in (*headings, "duration", "CPU seconds"):
    table.add_column(heading, justify="right")
  rows = []
  for workers in map(int, _WORKERS.value):
    for late in (None, *map(float, _LATE.value)):
      start = time.process_time()
      row = measure(workers, late, times, _SEEDS.value)
      rows.append(row)
      table.add_row(
        str(workers),
        "synchronous" if late is None else f"{late:g}",
        f"{row['utilisation']:.3f} ({row['deviation']:.3f})",
        f"{row['before_last']:.3f}",
        f"{row['duration']:.2f}",
        f"{time.process_time() - start:.0f}",
      )
  rich.console.Console().print(table)
  if _JSON.value:
    text = json.dumps({"times": dataclasses.asdict(times), "rows": rows})
    pathlib.Path(_JSON.value).write_text(text + "\n")


if __name__ == "__main__":
  driver.run(main)
