"""Which candidate trains next where many train apart, and what of failures.

Shapes: L tokens.
"""

import collections
import queue
import threading
from typing import NamedTuple

from absl import logging
import numpy as np

from nao_jax.errors import UserError
from nao_jax.runs.trials import Trial, Trials

# So often a training may fail, on whatever worker, before it is given up; and
# so often may it lose its machine, which is hardly its own doing.
FAILURES, LOSSES = 3, 10
# When as many candidates were given up before any training ended, it is not
# the candidates.
_SUSPICIOUS = 3
# So many candidates that break off one after the other, with no training that
# ends between, are not to blame either: a sick machine would use up the queue.
_IN_SUCCESSION = 8


class Task(NamedTuple):
  """A training to be done.

  Attributes:
    tokens: int32 [L], canonical.
    limits: float32 [epochs], the least score after each epoch to go on.
  """

  tokens: np.ndarray
  limits: np.ndarray

  @property
  def key(self) -> bytes:
    """Which architecture it is."""
    return self.tokens.tobytes()


class Dispatch:
  """The candidates that wait and train; results go to the file of trials.

  One thread says what is wanted and reads the news, another one hands out the
  tasks and says what came of them.
  """

  def __init__(self):
    """Nothing is wanted."""
    self._lock = threading.Lock()
    self._trials, self._wanted = None, frozenset()
    self._waiting = collections.deque()
    self._running = {}
    self._failures, self._losses = collections.Counter(), collections.Counter()
    self._given_up, self._succeeded = {}, False
    # Since a training ended: who broke off, and who lost how many machines.
    self._broken, self._lost = set(), collections.Counter()
    self._news = queue.SimpleQueue()

  @property
  def waiting(self) -> int:
    """How many candidates nobody trains."""
    return len(self._waiting)

  @property
  def running(self) -> int:
    """How many are in training."""
    return len(self._running)

  def want(
    self, rows: list[np.ndarray], limits: np.ndarray, trials: Trials
  ) -> None:
    """Says what is to be trained, instead of what waits.

    Args:
      rows: int32 [L] of each, canonical; those in training stay there.
      limits: float32 [epochs], for those that begin from now on.
      trials: where results go; what is there by then is not trained.
    """
    with self._lock:
      self._trials = trials
      tasks = [Task(row, limits) for row in rows]
      self._wanted = {task.key for task in tasks}
      # What ended before was found among the trials.
      self._news = queue.SimpleQueue()
      self._waiting = collections.deque(
        task for task in tasks if task.key not in self._running
      )
      self._confirm()

  def next(self) -> Task | None:
    """Hands out the first task that waits; what has a trial becomes news."""
    with self._lock:
      while self._waiting:
        task = self._waiting.popleft()
        if trial := self._trials.get(task.tokens):
          self._tell(task, trial)
          continue
        self._running[task.key] = task
        return task
      self._confirm()
    return None

  def done(self, task: Task, trial: Trial) -> None:
    """A training ended; also one that diverged."""
    with self._lock:
      self._trials.add(task.tokens, trial)
      self._succeeded = True
      self._broken.clear()
      self._lost.clear()
      self._end(task, trial)
      self._confirm()

  def failed(self, task: Task, reason: str) -> None:
    """A training broke off: it waits again, behind the others.

    After the last time the candidate counts as one that diverged, with an
    empty curve.

    Raises:
      UserError: several candidates came to that, and no training ended; or
        many broke off in succession.
    """
    with self._lock:
      self._broken.add(task.key)
      if len(self._broken) >= _IN_SUCCESSION:
        raise UserError(
          f"`executor.executor=ray`: {len(self._broken)} candidates broke off "
          f"one after the other ({reason}); mend the cluster, the same command "
          "goes on"
        )
      self._break_off(task, reason, self._failures, FAILURES)

  def lost(self, task: Task, reason: str) -> None:
    """The machine of a training is gone, or out of reach.

    As `failed`, but it may come more often, and to many candidates at once.

    Raises:
      UserError: several candidates were given up, and no training ended; or
        one lost that many machines, and others theirs, while none ended.
    """
    with self._lock:
      self._lost[task.key] += 1
      if self._lost[task.key] >= LOSSES and len(self._lost) > 1:
        raise UserError(
          f"`executor.executor=ray`: {len(self._lost)} candidates lost their "
          f"machines, one of them {LOSSES} times, while no training ended "
          f"({reason}); mend the cluster, the same command goes on"
        )
      self._break_off(task, reason, self._losses, LOSSES)

  def _break_off(
    self, task: Task, reason: str, counts: collections.Counter, most: int
  ) -> None:
    """Has a task wait again, or gives it up."""
    counts[task.key] += 1
    what = "broke off" if counts is self._failures else "lost its machine"
    if counts[task.key] < most:
      logging.warning("a training %s and waits again: %s", what, reason)
      del self._running[task.key]
      self._waiting.append(task)
      return
    logging.error(
      "candidate %s: %s %d times and counts as failed: %s",
      " ".join(map(str, task.tokens)),
      what,
      most,
      reason,
    )
    self._given_up[task.key] = task
    if not self._succeeded and len(self._given_up) >= _SUSPICIOUS:
      raise UserError(
        f"`executor.executor=ray`: {len(self._given_up)} candidates were given "
        f"up, and no training ended ({reason}); the same command goes on"
      )
    self._confirm()

  def _confirm(self) -> None:
    """Writes down who failed, if it was not the fault of all workers."""
    others = self._waiting or len(self._running) > len(self._given_up)
    if others and not self._succeeded:
      return
    for task in self._given_up.values():
      trial = Trial(None, ())
      self._trials.add(task.tokens, trial)
      self._end(task, trial)
    self._given_up = {}

  def _end(self, task: Task, trial: Trial) -> None:
    del self._running[task.key]
    self._tell(task, trial)

  def _tell(self, task: Task, trial: Trial) -> None:
    if task.key in self._wanted:
      self._news.put((task.key, trial))

  def news(self, seconds: float) -> dict[bytes, Trial]:
    """What ended of what is wanted, since the last time: {key: trial}.

    Args:
      seconds: to wait for the first one, above 0.
    """
    found = []
    try:
      found.append(self._news.get(timeout=seconds))
      while True:
        found.append(self._news.get_nowait())
    except queue.Empty:
      return dict(found)
