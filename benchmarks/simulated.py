"""A whole search from scratch with simulated workers and a simulated clock."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import heapq

import jax
import numpy as np

from nao_jax.evaluators.dispatch import Dispatch, Task
from nao_jax.evaluators.scratch import FromScratch, Update
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.trials import Trial
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import Uniform


@dataclasses.dataclass(frozen=True)
class Times:
  """Durations; the unit is the median training.

  Attributes:
    spread: standard deviation of the logarithm of a training's duration.
    stragglers: share of the trainings that take `factor` times as long.
    factor: how many times as long stragglers take.
    fit: duration of fitting the controller.
  """

  spread: float = 0.5
  stragglers: float = 0.05
  factor: float = 5.0
  fit: float = 0.1

  def training(self, rng: np.random.Generator) -> float:
    """Draws the duration of one training."""
    longer = self.factor if rng.random() < self.stragglers else 1.0
    return longer * float(rng.lognormal(0.0, self.spread))


class Simulated:
  """Executor (see `scratch.Executor`) with a simulated clock.

  Attributes:
    clock: time since the start.
    busy: time that workers spent in training, summed over the workers.
    before_last: utilisation of the workers until the last round began.
  """

  epochs = 1
  each = WorkUnit(1, "trainings")

  def __init__(self, workers: int, times: Times, seed: int):
    """Starts with all workers free."""
    self.clock = self.busy = self.before_last = 0.0
    self._workers = self._free = workers
    self._times = times
    self._rng = np.random.default_rng(seed)
    self._dispatch = Dispatch()
    self._ends: list[tuple[float, int, Task]] = []
    self._begun = 0

  def init(self, template: np.ndarray) -> tuple:
    """Returns an empty state."""
    return ()

  def run(
    self,
    state: tuple,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials,
    between: Callable[[], None],
  ) -> Iterator[Update]:
    """Implements `scratch.Executor.run`."""
    if self.clock:
      to_come = sum(end - self.clock for end, _, _ in self._ends)
      done = self.busy - to_come
      self.before_last = done / self.clock / self._workers
    self._dispatch.enqueue(rows, limits, trials)
    self._hand_out()
    left = {row.tobytes() for row in rows}
    while left:
      self._advance()
      updates = self._dispatch.updates(1.0)
      left -= updates.keys()
      yield Update([*updates.values()], self._dispatch.running, state)

  def pass_time(self, duration: float) -> None:
    """Lets trainings go on for a time in which no results are requested."""
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
    """Advances the clock to the next end of a training."""
    self.clock, _, task = heapq.heappop(self._ends)
    self._free += 1
    score = float(self._rng.random())
    self._dispatch.done(task, Trial(score, (score,)))
    self._hand_out()


class Memory(dict):
  """Trials in memory, with the methods of `Trials`."""

  def get(self, architecture: np.ndarray) -> Trial | None:
    """Implements `Trials.get`."""
    return super().get(np.asarray(architecture).tobytes())

  def add(self, architecture: np.ndarray, trial: Trial) -> None:
    """Implements `Trials.add`."""
    self.setdefault(np.asarray(architecture).tobytes(), trial)

  def claim(self, architecture: np.ndarray) -> tuple[Trial | None, bool]:
    """Implements `Trials.claim`: no other search is simulated."""
    trial = self.get(architecture)
    return trial, trial is None

  def elsewhere(self, architectures: Iterable[np.ndarray]) -> list[str]:
    """Implements `Trials.elsewhere`."""
    return []


@dataclasses.dataclass(frozen=True)
class Fitted(Uniform):
  """Random proposals of a simulated controller, whose fit takes time."""

  executor: Simulated = None
  duration: float = 0.0

  def tell(self, state, key, seen, progress, keep):
    """Lets the time of a fit pass."""
    self.executor.pass_time(self.duration)
    return super().tell(state, key, seen, progress, keep)


def simulate(
  workers: int, config: SearchConfig, times: Times, seed: int
) -> tuple[loop.Pool, Simulated]:
  """Simulates a whole search; returns its pool and the executor at its end."""
  executor = Simulated(workers, times, seed)
  space = cnn.space()
  pool = loop.run(
    space,
    FromScratch(space, executor, Memory()),
    jax.random.key(seed),
    config,
    strategy=Fitted(space, executor, times.fit),
  )
  return pool, executor
