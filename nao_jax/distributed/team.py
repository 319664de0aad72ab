"""Commands from the first process to the others, which compute with it.

They go through the key-value store of JAX's coordinator; see processes.py.
"""

import atexit
from collections.abc import Callable, Iterator
import contextlib
import json
import threading
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import numpy as np

from nao_jax.errors import Stopped, UserError, in_a_line
from nao_jax.runs import interruption
from nao_jax.runs.interruption import Interruption
from nao_jax.runs.watch import Watch

LOOPBACK = ("127.0.0.1", "localhost")

# Seconds between two checks of the first process for signals to the others.
_POLL = 1.0

_CONTINUE, _STOP, _END = "continue", "stop", "end"
# Seconds in which the watch sees that a process is gone, on a busy machine.
_UNTIL_SEEN = 5.0
# Number of commands that are kept; no helper is further behind, as calls keep
# processes together.
_KEPT = 1000
_HOME = "nao_jax"


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
  def continues(self) -> bool:
    """True if the command is that all processes continue."""
    return self.what == _CONTINUE


class Team:
  """The processes of a run, in one of these processes.

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
    self._client, self._sequence = client, 0
    self._interruption = Interruption()
    self.number, self.count = jax.process_index(), jax.process_count()
    self.first = self.number == 0
    self._watch = Watch(client.shutdown)
    # Closed before JAX waits for all processes to end.
    atexit.register(self._watch.close)
    key = f"{_HOME}/watch"
    if self.first:
      listen = host if host in LOOPBACK else ""
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
    sequence, self._sequence = self._sequence, self._sequence + 1
    home = f"{_HOME}/compared/{sequence}"
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
        while (command := self.receive()).what != _END:
          handlers[command.what](command)
      except BaseException as error:
        _wait_for_watch(error)
        self._watch.leave(in_a_line(error))
        raise

  @contextlib.contextmanager
  def leading(self) -> Iterator[None]:
    """Lets the first process send commands; ends the helpers with the context.

    If a helper is asked to stop, the first process is interrupted, too.
    """
    self._watch.begin()
    over = threading.Event()
    threading.Thread(target=self._pass_on, args=[over], daemon=True).start()
    try:
      yield
    except BaseException as error:
      # Processes that have ended cannot receive a command.
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._report(error)
      raise
    finally:
      over.set()
    self.send(_END)

  def _pass_on(self, over: threading.Event) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      while not over.wait(_POLL):
        if signals := self._client.key_value_dir_get(f"{_HOME}/signals/"):
          interruption.interrupt(int(signals[0][1]))
          return

  def send(self, what: str, *arrays, text: str = "", number: int = 0) -> None:
    """Sends a command to the helpers, which must `receive` it."""
    arrays = [np.asarray(jax.device_get(x)) for x in arrays]
    shapes = [(x.shape, x.dtype.str) for x in arrays]
    if what in (_STOP, _END):
      self._watch.end()
    command = json.dumps([what, shapes, text, number])
    self._client.key_value_set(f"{_HOME}/command/{self._sequence}", command)
    self._client.key_value_delete(f"{_HOME}/command/{self._sequence - _KEPT}")
    self._sequence += 1
    if arrays:
      content = b"".join(x.tobytes() for x in arrays)
      _broadcast(np.frombuffer(content, np.uint8))

  def receive(self) -> Command:
    """Waits for the next command of the first process and returns it.

    Raises:
      Stopped: the first process was stopped by a signal.
      UserError: the first process cannot go on.
    """
    what, shapes, text, number = json.loads(
      self._get(f"{_HOME}/command/{self._sequence}")
    )
    self._sequence += 1
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

  def then_continue(self, call: Callable) -> Callable:
    """Wraps a call, after which helpers continue, or stop if it raises.

    Helpers call `wait_to_continue` instead.
    """

    def inner(*args):
      try:
        call(*args)
      except BaseException as error:
        self._report(error)
        raise
      self.send_continue()

    return inner

  def send_continue(self) -> None:
    """Sends the command that all processes continue."""
    self.send(_CONTINUE)

  def wait_to_continue(self, *_) -> None:
    """Waits until the first process continues; see `then_continue`."""
    command = self.receive()
    if not command.continues:
      raise RuntimeError(f"received {command.what} instead of {_CONTINUE}")

  def _report(self, error: BaseException) -> None:
    _wait_for_watch(error)
    number = error.signal if isinstance(error, Stopped) else 0
    text = in_a_line(error)
    self.send(_STOP, text=text, number=number)
    if not number:
      # A helper that waits in a step cannot receive it; but signals stop runs
      # between two steps.
      self._watch.leave(text)

  def _get(self, key: str) -> str:
    while True:
      if self._interruption.signal is not None:
        signal = str(self._interruption.signal)
        self._client.key_value_set(
          f"{_HOME}/signals/{self.number}", signal, allow_overwrite=True
        )
      try:
        # A short timeout, so that a signal is passed on.
        return self._client.blocking_key_value_get(key, int(1000 * _POLL))
      except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
          raise


def _wait_for_watch(error: BaseException) -> None:
  """Waits while the watch may end this process with a better message.

  A collective fails when a process is gone, perhaps before the watch has seen
  that; afterwards the watch would take the loss for a part of the end.
  """
  if isinstance(error, jax.errors.JaxRuntimeError):
    time.sleep(_UNTIL_SEEN)


def leading(team: Team | None) -> contextlib.AbstractContextManager:
  """Returns the context `Team.leading`, or an empty one without a team."""
  return contextlib.nullcontext() if team is None else team.leading()


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
