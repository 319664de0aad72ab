"""Trainings from scratch on a Ray cluster.

Each worker is a process that compiles once and trains one candidate after the
other. The data go to each machine once, and its workers read them where they
lie. A worker that is lost takes one training with it, which begins again on
another one.

Shapes: L tokens.
"""

from collections.abc import Callable, Iterator
import dataclasses
import pickle
import threading
import time
from types import ModuleType
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from nao_jax.errors import UserError
from nao_jax.evaluators import cluster, local, worker
from nao_jax.evaluators.dispatch import Dispatch, Task
from nao_jax.evaluators.scratch import News
from nao_jax.runs.progress import Each
from nao_jax.runs.trials import Trials

# Seconds.
_UNTIL_CONNECTED = 30.0
_UNTIL_STARTED = 60.0
_UNTIL_ENDED = 10.0
_LOOK = 0.2
_BETWEEN_HIRES = 2.0
_AFTER_A_BAD_START = 10.0
# So many workers in a row that do not come up, with none at work, are enough.
_BAD_STARTS = 6


class Resources(NamedTuple):
  """What workers take of a cluster.

  Attributes:
    workers: how many at most; 0 for as many as fit.
    cpus: processors of each.
    gpus: of each.
    memory: of each, in GiB; 0 for any.
  """

  workers: int = 0
  cpus: float = 1.0
  gpus: float = 0.0
  memory: float = 0.0

  @property
  def of_ray(self) -> dict[str, float]:
    """What is asked for, by Ray's names, in bytes."""
    asked = {
      "CPU": self.cpus,
      "GPU": self.gpus,
      "memory": self.memory * 2**30,
    }
    return {name: amount for name, amount in asked.items() if amount}


class Remote:
  """An executor (see `scratch.Executor`) whose workers are Ray's actors.

  Its state holds nothing: who trains at a kill waits again. Between two calls
  of `run` the workers go on with what waits. Ray is used in one thread alone,
  as Ray in several threads gets stuck.
  """

  def __init__(
    self, address: str, resources: Resources, candidates: local.Candidates
  ):
    """Connects to nothing yet.

    Args:
      address: HOST:PORT of a cluster; empty to start one on this machine.
      resources: what workers take of it.
      candidates: a dataclass; each worker gets a copy with `devices=1`.
    """
    self.epochs = candidates.epochs
    self.each: Each = candidates.each
    self._address, self._resources = address, resources
    self._candidates = candidates
    self._dispatch = Dispatch()
    self._connected, self._ready = threading.Event(), threading.Event()
    self._closing = threading.Event()
    self._error = None
    # A connection that hangs must not keep the process.
    self._thread = threading.Thread(target=self._serve, daemon=True)

  def open(self) -> None:
    """Connects; raises UserError if there is no cluster, or no room in it."""
    self._thread.start()
    seconds = _UNTIL_CONNECTED if self._address else _UNTIL_STARTED
    if not self._connected.wait(seconds):
      raise UserError(
        f"{cluster.setting(self._address)}: no Ray cluster answered within "
        f"{seconds:.0f} s; start one with `ray start`, on this machine, too"
      )
    self._ready.wait()  # Large data take their time.
    if self._error:
      raise self._error
    cluster.take_back_signals()

  def close(self) -> None:
    """Ends the workers, and a cluster that was started here."""
    self._closing.set()
    if self._connected.is_set():
      self._thread.join(_UNTIL_ENDED)

  def init(self, anybody: np.ndarray) -> local.Running:
    """See `scratch.Executor`: the local state, of no devices."""
    place = local.Place(anybody, self._candidates.start(anybody))
    return local.pack([], place, self.epochs)

  def run(
    self,
    state: local.Running,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials: Trials,
    between: Callable[[], None],
  ) -> Iterator[News]:
    """See `scratch.Executor`."""
    # Who was in training on the devices of another process waits again.
    state = jax.tree.map(lambda x: x[:0], state)
    self._dispatch.want(rows, limits, trials)
    left = {row.tobytes() for row in rows}
    shown = None
    while left:
      news = self._dispatch.news(_LOOK)
      if self._error:
        raise self._error
      left -= news.keys()
      between()
      if news or self._dispatch.running != shown:
        shown = self._dispatch.running
        yield News([*news.values()], shown, state)

  def _serve(self) -> None:
    """What the thread does that uses Ray."""
    try:
      store = 2 * _bytes(self._candidates)
      with cluster.connection(self._address, store) as ray:
        self._connected.set()
        pool = _Workers(ray, self._resources, self._candidates)
        self._ready.set()
        try:
          while not self._closing.is_set():
            pool.step(self._dispatch)
        finally:
          pool.end()
    except BaseException as error:  # It is raised where somebody sees it.
      self._error = error
    finally:
      self._connected.set()
      self._ready.set()


class _Workers:
  """Ray's actors, and what each of them is doing."""

  def __init__(
    self, ray: ModuleType, resources: Resources, candidates: local.Candidates
  ):
    """Puts the data where workers find them."""
    self._ray, self._resources = ray, resources
    asked = resources.of_ray
    if not self._room():
      largest = max(
        (node["Resources"] for node in ray.nodes() if node["Alive"]),
        key=lambda has: [has.get(name, 0) for name in reversed(asked)],
      )
      wanted = " ".join(
        f"`executor.trial_{name}={getattr(resources, name):g}`"
        for name in ("cpus", "gpus", "memory")
      )
      raise UserError(
        f"{wanted}: no machine of the Ray cluster has as much; one has "
        f"{largest.get('CPU', 0):g} CPUs, {largest.get('GPU', 0):g} GPUs and "
        f"{largest.get('memory', 0) / 2**30:.1f} GiB"
      )
    # On a device of its own, whatever the driver has.
    self._data = ray.put(dataclasses.replace(candidates, devices=1))
    self._conditions = worker.conditions(resources.gpus)
    self._new = ray.remote(worker.Worker).options(
      num_cpus=resources.cpus,
      num_gpus=resources.gpus,
      memory=int(resources.memory * 2**30) or None,
    )
    # {what Ray promises: (its worker, the task; None for a start)}
    self._busy: dict[Any, tuple[Any, Task | None]] = {}
    self._free = []
    self._hire_at = 0.0
    self._bad_starts = 0

  def step(self, dispatch: Dispatch) -> None:
    """Hires, hands out tasks, and waits a little for results."""
    if time.monotonic() >= self._hire_at:
      self._hire(dispatch.waiting)
    while self._free and (task := dispatch.next()):
      actor = self._free.pop()
      promise = actor.train.remote(*task)
      self._busy[promise] = actor, task
    if not self._busy:
      time.sleep(_LOOK)
      return
    ready, _ = self._ray.wait(list(self._busy), timeout=_LOOK)
    for promise in ready:
      self._collect(promise, dispatch)

  def _hire(self, waiting: int) -> None:
    """Starts as many workers as there is room and work for."""
    self._hire_at = time.monotonic() + _BETWEEN_HIRES
    idle = len(self._free)
    idle += sum(task is None for _, task in self._busy.values())
    have = len(self._free) + len(self._busy)
    room = self._resources.workers or self._room()
    for _ in range(min(room - have, waiting - idle)):
      actor = self._new.remote(self._data)
      self._busy[actor.prepare.remote(self._conditions)] = actor, None

  def end(self) -> None:
    """Ends all workers, also where the cluster goes on."""
    for actor in [*self._free, *(actor for actor, _ in self._busy.values())]:
      self._ray.kill(actor)

  def _room(self) -> int:
    """How many workers the machines of the cluster hold."""
    asked = self._resources.of_ray
    return sum(
      min(
        # A GPU has room for ten tenths, in spite of rounding.
        int(node["Resources"].get(name, 0) / amount + 1e-6)
        for name, amount in asked.items()
      )
      for node in self._ray.nodes()
      if node["Alive"]
    )

  def _collect(self, promise, dispatch: Dispatch) -> None:
    """Looks at what came of a promise."""
    actor, task = self._busy.pop(promise)
    errors = self._ray.exceptions
    try:
      result = self._ray.get(promise)
    except errors.RayError as error:
      reason = cluster.last_line(error)
      if task is None:
        self._refuse(actor, reason)
        return
      # Whatever broke, the next one begins in a fresh process.
      self._ray.kill(actor)
      broke_off = dispatch.lost if self._is_lost(error) else dispatch.failed
      broke_off(task, reason)
      return
    else:
      if task is not None:
        dispatch.done(task, result)
      elif result:
        self._refuse(actor, result)
        return
    self._bad_starts = 0
    self._free.append(actor)

  def _is_lost(self, error: BaseException) -> bool:
    """Whether the machine of a worker is gone, or out of reach.

    Of a machine that was not preempted Ray says so in words alone, and until it
    knows, that its workers are unavailable.
    """
    errors = self._ray.exceptions
    return isinstance(error, errors.ActorUnavailableError) or (
      isinstance(error, errors.ActorDiedError)
      and (error.preempted or "its node has died" in str(error))
    )

  def _refuse(self, actor, reason: str) -> None:
    """Gives up a worker that did not come up; raises UserError if all do."""
    self._ray.kill(actor)
    logging.warning("a worker did not come up: %s", reason)
    self._hire_at = time.monotonic() + _AFTER_A_BAD_START
    self._bad_starts += 1
    at_work = self._free or any(task for _, task in self._busy.values())
    if self._bad_starts >= _BAD_STARTS and not at_work:
      raise UserError(f"`executor.executor=ray`: no worker comes up ({reason})")


def _bytes(candidates) -> int:
  """How much data candidates bring."""
  buffers = []
  pickle.dumps(candidates, protocol=5, buffer_callback=buffers.append)
  return sum(buffer.raw().nbytes for buffer in buffers)
