"""Training from scratch on a Ray cluster.

Each worker is a process that compiles once and trains one candidate after the
other. The data are sent to each machine once and shared by its workers. If a
worker is lost, its training begins again on another worker.

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
from nao_jax.evaluators.scratch import Update
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.trials import Trials

# Seconds.
_UNTIL_CONNECTED = 30.0
_UNTIL_STARTED = 60.0
_UNTIL_ENDED = 10.0
_POLL = 0.2
_BETWEEN_HIRES = 2.0
_AFTER_A_BAD_START = 10.0
# The most workers in succession that may fail to start while no other works.
_BAD_STARTS = 6


class Resources(NamedTuple):
  """Resources that workers take from a cluster.

  Attributes:
    workers: the most workers at a time; 0 for as many as fit.
    cpus: processors of each worker.
    gpus: GPUs of each worker.
    memory: memory of each worker, in GiB; 0 for any.
  """

  workers: int = 0
  cpus: float = 1.0
  gpus: float = 0.0
  memory: float = 0.0

  @property
  def of_ray(self) -> dict[str, float]:
    """Resources of a worker by Ray's names; memory in bytes."""
    asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 2**30}
    return {name: amount for name, amount in asked.items() if amount}


class Remote:
  """Executor (see `scratch.Executor`) whose workers are Ray actors.

  Its state is empty: candidates in training when the process is killed begin
  again. Between two calls of `run` the workers continue with the waiting
  candidates. Ray is used in a single thread, as it hangs in several threads.
  """

  def __init__(
    self, address: str, resources: Resources, candidates: local.Candidates
  ):
    """Creates an executor that is not connected yet; see `open`.

    Args:
      address: HOST:PORT of a cluster; empty to start one on this machine.
      resources: resources that workers take from the cluster.
      candidates: a dataclass; each worker gets a copy with `devices=1`.
    """
    self.epochs = candidates.epochs
    self.each: WorkUnit = candidates.each
    self._address, self._resources = address, resources
    self._candidates = candidates
    self._dispatch = Dispatch()
    self._connected, self._ready = threading.Event(), threading.Event()
    self._closing = threading.Event()
    self._error = None
    # A connection that hangs must not keep the process alive.
    self._thread = threading.Thread(target=self._serve, daemon=True)

  def open(self) -> None:
    """Connects to the cluster.

    Raises:
      UserError: no cluster answers, or it has no room for a worker.
    """
    self._thread.start()
    seconds = _UNTIL_CONNECTED if self._address else _UNTIL_STARTED
    if not self._connected.wait(seconds):
      raise UserError(
        f"{cluster.setting(self._address)}: no Ray cluster answered within "
        f"{seconds:.0f} s; start one with `ray start`, on this machine, too"
      )
    self._ready.wait()  # No limit, as large data take long to send.
    if self._error:
      raise self._error
    cluster.take_back_signals()

  def close(self) -> None:
    """Ends the workers and a cluster that was started here."""
    self._closing.set()
    if self._connected.is_set():
      self._thread.join(_UNTIL_ENDED)
    self._dispatch.close()

  def init(self, template: np.ndarray) -> local.Running:
    """Implements `scratch.Executor.init`: a local state of no devices."""
    training = self._candidates.start(template)
    return local.pack([], local.of_one(template, training, self.epochs))

  def run(
    self,
    state: local.Running,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials: Trials,
    between: Callable[[], None],
  ) -> Iterator[Update]:
    """Implements `scratch.Executor.run`."""
    # Candidates in training on the devices of a former process begin again.
    state = jax.tree.map(lambda x: x[:0], state)
    self._dispatch.enqueue(rows, limits, trials)
    left = {row.tobytes() for row in rows}
    shown = None
    while left:
      updates = self._dispatch.updates(_POLL)
      if self._error:
        raise self._error
      left -= updates.keys()
      between()
      if updates or self._dispatch.running != shown:
        shown = self._dispatch.running
        yield Update([*updates.values()], shown, state)

  def _serve(self) -> None:
    """Connects and serves the queue; runs in the thread that uses Ray."""
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
    except BaseException as error:  # `open` or `run` raises it.
      self._error = error
    finally:
      self._connected.set()
      self._ready.set()


class _Workers:
  """Ray actors and their tasks."""

  def __init__(
    self, ray: ModuleType, resources: Resources, candidates: local.Candidates
  ):
    """Stores the data in the cluster.

    Raises:
      UserError: no machine of the cluster has room for a worker.
    """
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
    # Each worker trains on one device, however many this process has.
    self._data = ray.put(dataclasses.replace(candidates, devices=1))
    self._conditions = worker.conditions(resources.gpus)
    self._new = ray.remote(worker.Worker).options(
      num_cpus=resources.cpus,
      num_gpus=resources.gpus,
      memory=int(resources.memory * 2**30) or None,
    )
    # {Ray's promise: (worker, task)}; the task is None while a worker starts.
    self._busy: dict[Any, tuple[Any, Task | None]] = {}
    self._free = []
    self._hire_at = 0.0
    self._bad_starts = 0

  def step(self, dispatch: Dispatch) -> None:
    """Starts workers, hands out tasks and waits briefly for results."""
    if time.monotonic() >= self._hire_at:
      self._hire(dispatch.waiting)
    while self._free and (task := dispatch.next()):
      actor = self._free.pop()
      promise = actor.train.remote(*task)
      self._busy[promise] = actor, task
    if not self._busy:
      time.sleep(_POLL)
      return
    ready, _ = self._ray.wait(list(self._busy), timeout=_POLL)
    for promise in ready:
      self._collect(promise, dispatch)

  def _hire(self, waiting: int) -> None:
    """Starts workers for waiting candidates, if there is room."""
    self._hire_at = time.monotonic() + _BETWEEN_HIRES
    idle = len(self._free)
    idle += sum(task is None for _, task in self._busy.values())
    have = len(self._free) + len(self._busy)
    room = self._resources.workers or self._room()
    for _ in range(min(room - have, waiting - idle)):
      actor = self._new.remote(self._data)
      self._busy[actor.prepare.remote(self._conditions)] = actor, None

  def end(self) -> None:
    """Ends all workers, even if the cluster stays."""
    for actor in [*self._free, *(actor for actor, _ in self._busy.values())]:
      self._ray.kill(actor)

  def _room(self) -> int:
    """Returns the number of workers that fit into the cluster."""
    asked = self._resources.of_ray
    return sum(
      min(
        # The tolerance lets ten tenths fit into one GPU in spite of rounding.
        int(node["Resources"].get(name, 0) / amount + 1e-6)
        for name, amount in asked.items()
      )
      for node in self._ray.nodes()
      if node["Alive"]
    )

  def _collect(self, promise, dispatch: Dispatch) -> None:
    """Handles the result of a promise, an error included."""
    actor, task = self._busy.pop(promise)
    errors = self._ray.exceptions
    try:
      result = self._ray.get(promise)
    except errors.RayError as error:
      reason = cluster.last_line(error)
      if task is None:
        self._refuse(actor, reason)
        return
      # After any failure the next training begins in a new process.
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
    """Returns whether the machine of a worker is lost or cannot be reached.

    Unless a machine was preempted, Ray reports its loss in the text of the
    error alone; before it notices the loss, it reports unavailable workers.
    """
    errors = self._ray.exceptions
    return isinstance(error, errors.ActorUnavailableError) or (
      isinstance(error, errors.ActorDiedError)
      and (error.preempted or "its node has died" in str(error))
    )

  def _refuse(self, actor, reason: str) -> None:
    """Gives up a worker that did not start; UserError after `_BAD_STARTS`."""
    self._ray.kill(actor)
    logging.warning("a worker did not come up: %s", reason)
    self._hire_at = time.monotonic() + _AFTER_A_BAD_START
    self._bad_starts += 1
    at_work = self._free or any(task for _, task in self._busy.values())
    if self._bad_starts >= _BAD_STARTS and not at_work:
      raise UserError(f"`executor.executor=ray`: no worker comes up ({reason})")


def _bytes(candidates) -> int:
  """Returns the bytes of arrays; UserError if they cannot be sent."""
  buffers = []
  try:
    pickle.dumps(candidates, protocol=5, buffer_callback=buffers.append)
  except (AttributeError, pickle.PicklingError, TypeError) as error:
    raise UserError(
      f"`executor.executor=ray`: candidates cannot be sent to workers "
      f"({error}); define the functions of your operations at the top level of "
      "a module"
    ) from error
  return sum(buffer.raw().nbytes for buffer in buffers)
