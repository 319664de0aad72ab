"""A whole search from scratch whose workers exist only as a clock."""

from collections.abc import Callable, Iterator
import dataclasses
import heapq

import jax
import numpy as np

from nao_jax.evaluators.dispatch import Dispatch, Task
from nao_jax.evaluators.scratch import FromScratch, News
from nao_jax.runs.progress import Each
from nao_jax.runs.trials import Trial
from nao_jax.search import loop
from nao_jax.search.loop import SearchConfig
from nao_jax.spaces import cnn
from nao_jax.strategies.uniform import Uniform


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
) -> tuple[loop.Pool, Simulated]:
  """A whole search: its pool, and the executor at its end."""
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
