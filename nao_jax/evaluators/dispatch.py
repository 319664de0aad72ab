"""Queue of candidates that train on a cluster, and the handling of failures.

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

# Numbers of failures, on any worker, and of lost machines after which to give a
# candidate up. A machine is rarely lost because of the candidate.
FAILURES, LOSSES = 3, 10
# If this many candidates were given up before any training ended, the cluster
# is at fault, not the candidates.
_SUSPICIOUS = 3
# The same holds if this many trainings fail in succession before one ends: a
# faulty machine would use up the queue.
_IN_SUCCESSION = 8


class Task(NamedTuple):
  """Training to be done.

  Attributes:
    tokens: int32 [L], canonical.
    limits: float32 [epochs]; a training whose score after an epoch is lower is
      stopped.
  """

  tokens: np.ndarray
  limits: np.ndarray

  @property
  def key(self) -> bytes:
    """Hashable identity of the architecture."""
    return self.tokens.tobytes()


class Dispatch:
  """Candidates that wait or train; results are added to the file of trials.

  One thread calls `enqueue` and reads results with `updates`; another thread
  takes tasks with `next` and reports results with `done`, `failed` and `lost`.
  """

  def __init__(self):
    """Creates an empty queue."""
    self._lock = threading.Lock()
    self._trials, self._keys = None, frozenset()
    self._waiting = collections.deque()
    self._running = {}
    self._failures, self._losses = collections.Counter(), collections.Counter()
    self._given_up, self._succeeded = {}, False
    # Since the last training that ended: the candidates that failed, and the
    # number of machines that each candidate lost.
    self._broken, self._lost = set(), collections.Counter()
    self._results = queue.SimpleQueue()

  @property
  def waiting(self) -> int:
    """Number of candidates that wait."""
    return len(self._waiting)

  @property
  def running(self) -> int:
    """Number of candidates in training."""
    return len(self._running)

  def enqueue(
    self, rows: list[np.ndarray], limits: np.ndarray, trials: Trials
  ) -> None:
    """Replaces the waiting candidates.

    Args:
      rows: canonical candidates, each int32 [L]; candidates that are in
        training stay in training.
      limits: float32 [epochs], for trainings that begin from now on.
      trials: receives the results; a candidate that has a trial there when its
        turn comes is not trained.
    """
    with self._lock:
      self._trials = trials
      tasks = [Task(row, limits) for row in rows]
      self._keys = {task.key for task in tasks}
      # Earlier results are among the trials already.
      self._results = queue.SimpleQueue()
      self._waiting = collections.deque(
        task for task in tasks if task.key not in self._running
      )
      self._confirm()

  def next(self) -> Task | None:
    """Takes a waiting task from the queue; None if nothing can be trained.

    A waiting candidate that has got a trial meanwhile is reported in `updates`
    instead; one that another search trains waits behind the others.
    """
    with self._lock:
      for _ in range(len(self._waiting)):
        task = self._waiting.popleft()
        trial, claimed = self._trials.claim(task.tokens)
        if claimed:
          self._running[task.key] = task
          return task
        if trial:
          self._report(task, trial)
        else:
          self._waiting.append(task)
      self._confirm()
    return None

  def done(self, task: Task, trial: Trial) -> None:
    """Records a training that ended, diverged or not."""
    with self._lock:
      self._trials.add(task.tokens, trial)
      self._succeeded = True
      self._broken.clear()
      self._lost.clear()
      self._end(task, trial)
      self._confirm()

  def failed(self, task: Task, reason: str) -> None:
    """Puts a training that failed at the end of the queue.

    After `FAILURES` failures the candidate is given up: it counts as diverged,
    with an empty curve.

    Raises:
      UserError: several candidates were given up before any training ended; or
        many failed in succession.
    """
    with self._lock:
      self._broken.add(task.key)
      if len(self._broken) >= _IN_SUCCESSION:
        raise UserError(
          f"`executor.executor=ray`: {len(self._broken)} candidates broke off "
          f"one after the other ({reason}); mend the cluster, the same command "
          "resumes the search"
        )
      self._break_off(task, reason, self._failures, FAILURES)

  def lost(self, task: Task, reason: str) -> None:
    """Puts back a training whose machine is lost or cannot be reached.

    Works like `failed`, but with the limit `LOSSES`, and many candidates may
    lose their machines at once.

    Raises:
      UserError: several candidates were given up before any training ended; or
        one candidate lost `LOSSES` machines and others lost theirs while no
        training ended.
    """
    with self._lock:
      self._lost[task.key] += 1
      if self._lost[task.key] >= LOSSES and len(self._lost) > 1:
        raise UserError(
          f"`executor.executor=ray`: {len(self._lost)} candidates lost their "
          f"machines, one of them {LOSSES} times, while no training ended "
          f"({reason}); mend the cluster, the same command resumes the search"
        )
      self._break_off(task, reason, self._losses, LOSSES)

  def _break_off(
    self, task: Task, reason: str, counts: collections.Counter, most: int
  ) -> None:
    """Puts a task back into the queue, or gives it up."""
    self._trials.release(task.tokens)
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
        f"up, and no training ended ({reason}); the same command resumes the "
        "search"
      )
    self._confirm()

  def _confirm(self) -> None:
    """Records given-up candidates once it is known that workers can train.

    One that another search trains by then waits for its result.
    """
    others = self._waiting or len(self._running) > len(self._given_up)
    if others and not self._succeeded:
      return
    for task in self._given_up.values():
      trial, claimed = self._trials.claim(task.tokens)
      if claimed:
        trial = Trial(None, ())
        self._trials.add(task.tokens, trial)
      if trial:
        self._end(task, trial)
      else:
        del self._running[task.key]
        self._waiting.append(task)
    self._given_up = {}

  def _end(self, task: Task, trial: Trial) -> None:
    del self._running[task.key]
    self._report(task, trial)

  def _report(self, task: Task, trial: Trial) -> None:
    if task.key in self._keys:
      self._results.put((task.key, trial))

  def close(self) -> None:
    """Lets other searches train what this one no longer does."""
    with self._lock:
      if self._trials is not None:
        self._trials.release()

  def updates(self, seconds: float) -> dict[bytes, Trial]:
    """Returns candidates that ended since the last call: {key: trial}.

    Args:
      seconds: time to wait for the first result, above 0.
    """
    results = []
    try:
      results.append(self._results.get(timeout=seconds))
      while True:
        results.append(self._results.get_nowait())
    except queue.Empty:
      return dict(results)
