"""Many processes that train together: how they meet, and what they say.

The first process runs everything: it alone reads and writes the workdir,
proposes, reports. The others lend their devices. They hear what to compute, and
compute it with the first one, call by call, as in jax every process takes part
in what devices of several compute. A word is said before each of these calls;
when the first process stops, it says so instead, and all of them end.

Words go through the key-value store of jax's coordinator. They do not occupy a
device, and so may be far apart.
"""

import atexit
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import json
import socket
import threading
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import numpy as np

from nao_jax.errors import Stopped, UserError, in_a_line
from nao_jax.runs import collectives, interruption
from nao_jax.runs.interruption import Interruption
from nao_jax.runs.watch import Watch

# Seconds without a sign of life after which a process counts as dead, and for
# which one that ends waits for the others.
HEARTBEAT, FAREWELL = 30, 20
# Seconds until the first process looks whether another was asked to stop.
_LOOK = 1.0

_ON, _STOP, _END = "on", "stop", "end"
# Words that are kept; none is as far behind, as calls keep processes together.
_KEPT = 1000
_HOME = "nao_jax"
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclasses.dataclass(frozen=True)
class Rendezvous:
  """Where processes meet, and who this one is.

  Attributes:
    coordinator: HOST:PORT of the first process; None leaves all of it to the
      scheduler, as jax finds it.
    count: how many there are.
    number: of this one, from 0.
    seconds: to wait for the others.
  """

  coordinator: str | None = None
  count: int | None = None
  number: int | None = None
  seconds: float = 60.0

  @property
  def address(self) -> tuple[str, int]:
    """Host and port."""
    return _host(self.coordinator), int(self.coordinator.rpartition(":")[2])

  def check(self) -> None:
    """Raises UserError for what cannot be."""
    if self.coordinator is None:
      return
    host, _, port = self.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
      raise UserError(
        f"--coordinator={self.coordinator}: allowed: HOST:PORT of the first "
        "process"
      )
    if self.count is None or self.count < 1:
      raise UserError(
        f"--num_processes={self.count}: with --coordinator, give how many "
        "processes there are"
      )
    if self.number is None or not 0 <= self.number < self.count:
      raise UserError(
        f"--process_id={self.number}: allowed: 0 to {self.count - 1} "
        "(--num_processes), another in each process"
      )


class Told(NamedTuple):
  """What the first process said.

  Attributes:
    what: the word.
    arrays: that came with it.
    text: likewise.
    signal: likewise, of what stopped it; 0 for none.
  """

  what: str
  arrays: list[np.ndarray]
  text: str
  signal: int

  @property
  def goes_on(self) -> bool:
    """Whether it was that all go on."""
    return self.what == _ON


class Team:
  """The processes of a run, as one of them sees them.

  Attributes:
    first: whether this is the first one.
    number: of this one.
    count: how many there are.
  """

  def __init__(self, client, host: str):
    """Takes what `meet` has.

    Args:
      client: of jax's coordinator.
      host: of the first process.
    """
    self._client, self._said = client, 0
    self._interruption = Interruption()
    self.number, self.count = jax.process_index(), jax.process_count()
    self.first = self.number == 0
    self._watch = Watch(client.shutdown)
    # Before jax waits for all to end.
    atexit.register(self._watch.close)
    key = f"{_HOME}/watch"
    if self.first:
      listen = host if host in _LOOPBACK else ""
      port, token = self._watch.others(listen)
      client.key_value_set(key, f"{port} {token}")
    else:
      port, token = self._get(key).split()
      self._watch.first((host, int(port)), token, self.number)

  def compare(self, values: dict[str, Any]) -> None:
    """Makes sure that something is the same in all processes.

    Args:
      values: {name for people: JSON-like}.

    Raises:
      UserError: in all processes, if one has other values than the first.
    """
    said, self._said = self._said, self._said + 1
    home = f"{_HOME}/compared/{said}"
    self._client.key_value_set(f"{home}/{self.number}", json.dumps(values))
    if self.first:
      verdicts = (
        _difference(values, json.loads(self._get(f"{home}/{other}")), other)
        for other in range(1, self.count)
      )
      verdict = next(filter(None, verdicts), "")
      self._client.key_value_set(f"{home}/verdict", verdict)
    if verdict := self._get(f"{home}/verdict"):
      self._watch.end()
      raise UserError(verdict)

  def help(self, handlers: dict[str, Callable]) -> None:
    """What another process than the first does, to the end of the run.

    Args:
      handlers: {word: called with what was told}.

    Raises:
      Stopped: the first process was stopped.
      UserError: it ended in another way than well.
    """
    self._watch.begin()
    with self._interruption:
      try:
        while (told := self.hear()).what != _END:
          handlers[told.what](told)
      except BaseException as error:
        self._watch.leave(in_a_line(error))
        raise

  @contextlib.contextmanager
  def leads(self) -> Iterator[None]:
    """While it is entered, the first process may `tell`; at the end it does.

    When another process is asked to stop, this one is, too.
    """
    self._watch.begin()
    over = threading.Event()
    threading.Thread(target=self._pass_on, args=[over], daemon=True).start()
    try:
      yield
    except BaseException as error:
      # Whoever is gone cannot be told.
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._tell_of(error)
      raise
    finally:
      over.set()
    self.tell(_END)

  def _pass_on(self, over: threading.Event) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      while not over.wait(_LOOK):
        if asked := self._client.key_value_dir_get(f"{_HOME}/asked/"):
          interruption.interrupt(int(asked[0][1]))
          return

  def tell(self, what: str, *arrays, text: str = "", number: int = 0) -> None:
    """Says a word to the others, who must `hear` it."""
    arrays = [np.asarray(jax.device_get(x)) for x in arrays]
    shapes = [(x.shape, x.dtype.str) for x in arrays]
    if what in (_STOP, _END):
      self._watch.end()
    word = json.dumps([what, shapes, text, number])
    self._client.key_value_set(f"{_HOME}/word/{self._said}", word)
    self._client.key_value_delete(f"{_HOME}/word/{self._said - _KEPT}")
    self._said += 1
    if arrays:
      content = b"".join(x.tobytes() for x in arrays)
      _broadcast(np.frombuffer(content, np.uint8))

  def hear(self) -> Told:
    """The next word of the first process.

    Raises:
      Stopped: it was told to stop.
      UserError: it cannot go on.
    """
    what, shapes, text, number = json.loads(
      self._get(f"{_HOME}/word/{self._said}")
    )
    self._said += 1
    if what in (_STOP, _END):
      self._watch.end()
    if what == _STOP and number:
      raise Stopped("stopped, as the first process was", number)
    if what == _STOP:
      raise UserError(f"the first process ended: {text}")
    arrays = []
    if shapes:
      types = [(tuple(shape), np.dtype(name)) for shape, name in shapes]
      sizes = [int(np.prod(shape)) * kind.itemsize for shape, kind in types]
      content = _broadcast(np.zeros(sum(sizes), np.uint8))
      parts = np.split(content, np.cumsum(sizes)[:-1])
      arrays = [
        part.view(kind).reshape(shape)
        for part, (shape, kind) in zip(parts, types, strict=True)
      ]
    return Told(what, arrays, text, number)

  def then_on(self, call: Callable) -> Callable:
    """The same call; after it the others go on, or stop if it raises.

    They call `heard` in its place.
    """

    def inner(*args):
      try:
        call(*args)
      except BaseException as error:
        self._tell_of(error)
        raise
      self.on()

    return inner

  def on(self) -> None:
    """Says that all go on."""
    self.tell(_ON)

  def heard(self, *_) -> None:
    """Waits until the first process goes on; see `then_on`."""
    told = self.hear()
    if not told.goes_on:
      raise RuntimeError(f"to go on was due, and not {told.what}")

  def _tell_of(self, error: BaseException) -> None:
    number = error.signal if isinstance(error, Stopped) else 0
    text = in_a_line(error)
    self.tell(_STOP, text=text, number=number)
    if not number:
      # Who waits in a step cannot hear it; but runs stop between two of them.
      self._watch.leave(text)

  def _get(self, key: str) -> str:
    while True:
      if self._interruption.signal is not None:
        asked = str(self._interruption.signal)
        self._client.key_value_set(
          f"{_HOME}/asked/{self.number}", asked, allow_overwrite=True
        )
      try:
        # Not for long, so that a signal is passed on.
        return self._client.blocking_key_value_get(key, int(1000 * _LOOK))
      except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
          raise


def meet(where: Rendezvous) -> Team:
  """Joins the other processes; before anything touches a device.

  Args:
    where: they meet.

  Raises:
    UserError: somebody does not come.
  """
  where.check()
  jax.config.update("jax_enable_preemption_service", False)
  settings = {
    # Ours is up first: at the end of its own jax aborts the process.
    "initialization_timeout": int(10 * where.seconds) + 60,
    "heartbeat_timeout_seconds": HEARTBEAT,
    "shutdown_timeout_seconds": FAREWELL,
  }
  if where.coordinator is not None:
    _find(where)
    settings |= {
      "coordinator_address": where.coordinator,
      "num_processes": where.count,
      "process_id": where.number,
    }
    if where.address[0] in _LOOPBACK:
      settings["coordinator_bind_address"] = where.coordinator
  _initialize(settings, where)
  # The store has no public name; orbax gets at it in the same way.
  from jax._src import distributed

  state = distributed.global_state
  host, _, port = state.coordinator_address.rpartition(":")
  host = host.strip("[]")
  collectives.listen_at(collectives.own_address(host, int(port)), state.client)
  return Team(state.client, host)


def leading(team: Team | None) -> contextlib.AbstractContextManager:
  """`Team.leads`, if there is a team."""
  return contextlib.nullcontext() if team is None else team.leads()


def _initialize(settings: dict, where: Rendezvous) -> None:
  """Waits for all processes, but not longer than is allowed."""
  failed = []

  def initialize():
    try:
      jax.distributed.initialize(**settings)
    except Exception as error:  # Each scheduler has its own.
      failed.append(error)

  waiting = threading.Thread(target=initialize, daemon=True)
  waiting.start()
  waiting.join(where.seconds)
  flag = "--distributed"
  if where.coordinator is not None:
    flag = f"--coordinator={where.coordinator}"
  if waiting.is_alive():
    raise UserError(
      f"{flag}: not all processes came within {where.seconds:g} s; start as "
      "many as --num_processes says, each with its --process_id"
    )
  if failed and where.coordinator is None:
    raise UserError(
      f"{flag}: no SLURM, Open MPI or Cloud TPU was found that says where the "
      f"processes are ({failed[0]}); give --coordinator, --num_processes and "
      "--process_id"
    )
  if failed:
    raise UserError(f"{flag}: {failed[0]}")


def _host(address: str) -> str:
  return address.rpartition(":")[0].strip("[]")


def _find(where: Rendezvous) -> None:
  """Raises UserError if the coordinator cannot be."""
  what = f"--coordinator={where.coordinator}"
  if where.number == 0:
    try:
      host, port = where.address
      with socket.create_server((host if host in _LOOPBACK else "", port)):
        return
    except OSError as error:
      raise UserError(
        f"{what}: the first process cannot listen there ({error.strerror}); "
        "give a free port"
      ) from error
  end = time.monotonic() + where.seconds
  while True:
    try:
      with socket.create_connection(where.address, timeout=1):
        return
    except OSError as error:
      if time.monotonic() > end:
        raise UserError(
          f"{what}: nobody answers there after {where.seconds:g} s ({error}); "
          "is the first process (--process_id=0) running, and can this "
          "machine reach it?"
        ) from error
      time.sleep(0.2)


def _broadcast(content: np.ndarray) -> np.ndarray:
  return np.asarray(multihost_utils.broadcast_one_to_all(content))


def _difference(first: dict, other: dict, number: int) -> str:
  """What differs between two processes, in words; empty for nothing."""
  for name in sorted({*first, *other}):
    one, two = first.get(name), other.get(name)
    if one != two:
      return (
        f"{name} is {_shown(one)} in process 0 and {_shown(two)} in process "
        f"{number}; it must be the same in all"
      )
  return ""


def _shown(value) -> str:
  return "not given" if value is None else json.dumps(value)
