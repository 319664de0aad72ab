"""Processes that train together: how they meet and communicate.

The first process runs everything: it alone reads and writes the workdir,
proposes architectures and reports. The other processes, the helpers, provide
their devices. They receive commands and compute together with the first
process, call by call, as in JAX every process takes part in a computation on
devices of several. A command precedes each of these calls; when the first
process stops, it sends a command for that, and all processes end.

Commands go through the key-value store of JAX's coordinator. They do not occupy
a device, and so there may be a long time between them.
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

from nao_jax.distributed import collectives
from nao_jax.errors import Stopped, UserError, in_a_line
from nao_jax.runs import interruption
from nao_jax.runs.interruption import Interruption
from nao_jax.runs.watch import Watch

# Seconds without a sign of life after which a process counts as dead, and
# seconds for which a process that ends waits for the others.
HEARTBEAT, FAREWELL = 30, 20
# Seconds between two checks of the first process whether another was asked to
# stop.
_LOOK = 1.0

_ON, _STOP, _END = "on", "stop", "end"
# Number of commands that are kept; no helper is further behind, as calls keep
# processes together.
_KEPT = 1000
_HOME = "nao_jax"
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclasses.dataclass(frozen=True)
class Rendezvous:
  """The address where processes meet, and the identity of this process.

  Attributes:
    coordinator: HOST:PORT of the first process; None to leave everything to the
      scheduler, as JAX detects it.
    count: number of processes.
    number: number of this process, from 0.
    seconds: seconds to wait for the others.
  """

  coordinator: str | None = None
  count: int | None = None
  number: int | None = None
  seconds: float = 60.0

  @property
  def address(self) -> tuple[str, int]:
    """The coordinator's host and port."""
    return _host(self.coordinator), int(self.coordinator.rpartition(":")[2])

  def check(self) -> None:
    """Raises UserError for inconsistent values."""
    if self.coordinator is None:
      return
    host, _, port = self.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
      raise UserError(
        f"`rendezvous.coordinator={self.coordinator}`: allowed: HOST:PORT of "
        "the first process"
      )
    if self.count is None or self.count < 1:
      raise UserError(
        f"`rendezvous.count={self.count}`: with `rendezvous.coordinator`, give "
        "how many processes there are"
      )
    if self.number is None or not 0 <= self.number < self.count:
      raise UserError(
        f"`rendezvous.number={self.number}`: allowed: 0 to {self.count - 1} "
        "(`rendezvous.count`), another in each process"
      )


class Command(NamedTuple):
  """A command from the first process.

  Attributes:
    what: the name of the command.
    arrays: the arrays sent with the command.
    text: the text sent with the command.
    signal: the number of the signal that stopped the first process; 0 for none.
  """

  what: str
  arrays: list[np.ndarray]
  text: str
  signal: int

  @property
  def goes_on(self) -> bool:
    """True if the command is that all processes go on."""
    return self.what == _ON


class Team:
  """The processes of a run, as seen by one of them.

  Attributes:
    first: whether this is the first process.
    number: number of this process.
    count: number of processes.
  """

  def __init__(self, client, host: str):
    """Starts watching the other processes; called by `meet`.

    Args:
      client: the client of JAX's coordinator.
      host: the host of the first process.
    """
    self._client, self._said = client, 0
    self._interruption = Interruption()
    self.number, self.count = jax.process_index(), jax.process_count()
    self.first = self.number == 0
    self._watch = Watch(client.shutdown)
    # Closed before JAX waits for all processes to end.
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
    """Requires that values are the same in all processes.

    Args:
      values: {description for messages: JSON-like value}.

    Raises:
      UserError: in all processes, if one has other values than the first
        process.
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
    """Executes the first process's commands, until the run ends.

    Args:
      handlers: {name of a command: a function of the `Command` command}.

    Raises:
      Stopped: the first process was stopped by a signal.
      UserError: the first process ended with an error.
    """
    self._watch.begin()
    with self._interruption:
      try:
        while (command := self.hear()).what != _END:
          handlers[command.what](command)
      except BaseException as error:
        self._watch.leave(in_a_line(error))
        raise

  @contextlib.contextmanager
  def leads(self) -> Iterator[None]:
    """Lets the first process send commands; ends the helpers with the context.

    If a helper is asked to stop, the first process is interrupted, too.
    """
    self._watch.begin()
    over = threading.Event()
    threading.Thread(target=self._pass_on, args=[over], daemon=True).start()
    try:
      yield
    except BaseException as error:
      # Processes that are gone cannot receive a command.
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
    """Sends a command to the helpers, which must `hear` it."""
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

  def hear(self) -> Command:
    """Waits for the next command of the first process and returns it.

    Raises:
      Stopped: the first process was stopped by a signal.
      UserError: the first process cannot go on.
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
    return Command(what, arrays, text, number)

  def then_on(self, call: Callable) -> Callable:
    """Wraps a call, after which helpers go on, or stop if it raises.

    Helpers call `heard` in its place.
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
    """Sends the command that all processes go on."""
    self.tell(_ON)

  def heard(self, *_) -> None:
    """Waits until the first process goes on; see `then_on`."""
    command = self.hear()
    if not command.goes_on:
      raise RuntimeError(f"to go on was due, and not {command.what}")

  def _tell_of(self, error: BaseException) -> None:
    number = error.signal if isinstance(error, Stopped) else 0
    text = in_a_line(error)
    self.tell(_STOP, text=text, number=number)
    if not number:
      # A helper that waits in a step cannot receive it; but signals stop runs
      # between two steps.
      self._watch.leave(text)

  def _get(self, key: str) -> str:
    while True:
      if self._interruption.signal is not None:
        asked = str(self._interruption.signal)
        self._client.key_value_set(
          f"{_HOME}/asked/{self.number}", asked, allow_overwrite=True
        )
      try:
        # A short timeout, so that a signal is passed on.
        return self._client.blocking_key_value_get(key, int(1000 * _LOOK))
      except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
          raise


def meet(where: Rendezvous) -> Team:
  """Joins the other processes; call it before anything touches a device.

  Args:
    where: the meeting point and this process's identity.

  Raises:
    UserError: if a process does not come.
  """
  where.check()
  jax.config.update("jax_enable_preemption_service", False)
  settings = {
    # Our own timeout ends first: at the end of its timeout JAX aborts the
    # process.
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
  # The store has no public name; orbax accesses it in the same way.
  from jax._src import distributed

  state = distributed.global_state
  host, _, port = state.coordinator_address.rpartition(":")
  host = host.strip("[]")
  collectives.listen_at(collectives.own_address(host, int(port)), state.client)
  return Team(state.client, host)


def leading(team: Team | None) -> contextlib.AbstractContextManager:
  """Returns the context `Team.leads`, or an empty one without a team."""
  return contextlib.nullcontext() if team is None else team.leads()


def _initialize(settings: dict, where: Rendezvous) -> None:
  """Waits for all processes, but only for the allowed time."""
  failed = []

  def initialize():
    try:
      jax.distributed.initialize(**settings)
    except Exception as error:  # Each scheduler has its own.
      failed.append(error)

  waiting = threading.Thread(target=initialize, daemon=True)
  waiting.start()
  waiting.join(where.seconds)
  place = "`rendezvous`"
  if where.coordinator is not None:
    place = f"`rendezvous.coordinator={where.coordinator}`"
  if waiting.is_alive():
    raise UserError(
      f"{place}: not all processes came within {where.seconds:g} s; start as "
      "many as `rendezvous.count` says, each with its `rendezvous.number`"
    )
  if failed and where.coordinator is None:
    raise UserError(
      f"{place}: no SLURM, Open MPI or Cloud TPU was found that says where the "
      f"processes are ({failed[0]}); give `rendezvous.coordinator`, "
      "`rendezvous.count` and `rendezvous.number`"
    )
  if failed:
    raise UserError(f"{place}: {failed[0]}")


def _host(address: str) -> str:
  return address.rpartition(":")[0].strip("[]")


def _find(where: Rendezvous) -> None:
  """Raises UserError if the coordinator cannot be reached or started."""
  what = f"`rendezvous.coordinator={where.coordinator}`"
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
          "is the first process (`rendezvous.number=0`) running, and can this "
          "machine reach it?"
        ) from error
      time.sleep(0.2)


def _broadcast(content: np.ndarray) -> np.ndarray:
  return np.asarray(multihost_utils.broadcast_one_to_all(content))


def _difference(first: dict, other: dict, number: int) -> str:
  """Returns a message about differing values of two processes, or ""."""
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
