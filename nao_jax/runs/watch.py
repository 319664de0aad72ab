"""Processes that watch each other: when one is gone, the others end.

jax's own heartbeat would abort them too, after half a minute and with a trace
of every stack; a process that waits for a dead one in a collective cannot do
anything else. So each other process holds a connection to the first one, which
the system closes when a process ends, however it does. Where a machine is gone
at once, nobody closes it, and the heartbeat serves.

One that ends with an error says so there first, as it lives on until jax has
taken leave of the others, for which it would wait in vain.
"""

from collections.abc import Callable
import contextlib
import os
import secrets
import socket
import sys
import threading

from nao_jax.errors import UserError

# As drivers end on what their user must mend.
_EXIT = 2
# Bytes of the secret, and seconds until a stranger has to say it.
_SECRET, _PATIENCE = 16, 10.0
# Seconds in which whoever can will end by itself, with a better word; and bytes
# of a reason.
_GRACE, _REASON = 5.0, 2000


class Watch:
  """Ends this process when another one is gone."""

  def __init__(self, farewell: Callable[[], None] = lambda: None):
    """Watches nobody yet.

    Args:
      farewell: takes leave of the others, before this process is ended because
        another one leaves.
    """
    self._farewell = farewell
    self._over = threading.Event()
    # They live as long as this does.
    self._open, self._reason = [], ""

  def begin(self) -> None:
    """From now on it is news that a process ends, as it is at first."""
    self._over.clear()

  def close(self) -> None:
    """At the end of this process: tells others that do not expect it."""
    if not self._over.is_set():
      self.leave("see what it says")

  def end(self) -> None:
    """From now on it is no news that a process ends."""
    self._over.set()

  def leave(self, reason: str) -> None:
    """Tells the others that this process ends, and so they must, too.

    Args:
      reason: one line.
    """
    self.end()
    self._reason = reason
    for connection in list(self._open):
      self._say(connection)

  def others(self, host: str) -> tuple[int, str]:
    """In the first process: waits for the others in the background.

    Args:
      host: to listen at.

    Returns:
      The port, and a secret by which they are known: both must be told them.
    """
    server = socket.create_server((host, 0))
    token = secrets.token_hex(_SECRET)

    def greet(connection):
      number = _read(connection, token)
      if number is not None:
        self._wait(connection, number)

    def accept():
      while True:
        connection, _ = server.accept()
        self._background(greet, connection)

    self._background(accept)
    return server.getsockname()[1], token

  def first(self, address: tuple[str, int], token: str, number: int) -> None:
    """In another process: watches the first one.

    Args:
      address: of the first process.
      token: its secret.
      number: of this one.

    Raises:
      UserError: it cannot be reached.
    """
    try:
      connection = socket.create_connection(address, _PATIENCE)
    except OSError as error:
      host, port = address
      raise UserError(
        f"--coordinator: the first process listens at {host}:{port}, too, "
        f"and cannot be reached there ({error}); let its machine's ports be "
        "reached from the others"
      ) from error
    connection.settimeout(None)
    connection.sendall(token.encode() + number.to_bytes(4, "big"))
    self._background(self._wait, connection, 0)

  def _background(self, work: Callable[..., None], *arguments) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()

  def _wait(self, connection: socket.socket, number: int) -> None:
    self._open.append(connection)
    self._say(connection)  # Who comes late.
    reason = ""
    with connection, contextlib.suppress(OSError):
      reason = connection.recv(_REASON).decode(errors="ignore")
    if not self._over.wait(_GRACE if reason else 0):
      self._end_because(number, reason)

  def _say(self, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
      connection.sendall(self._reason.encode()[:_REASON])

  def _end_because(self, number: int, reason: str) -> None:
    gone = f"ended ({reason})" if reason else "is gone"
    text = (
      f"error: process {number} {gone}, and so this one ends; what was saved "
      "is safe, and the same commands in all processes go on\n"
    )
    with contextlib.suppress(OSError, ValueError, AttributeError):
      os.write(sys.__stderr__.fileno(), text.encode())
    try:
      if reason:
        self.leave(reason)
        self._farewell()
    finally:
      os._exit(_EXIT)


def _read(connection: socket.socket, token: str) -> int | None:
  """The number of who has connected; None for who does not know the secret."""
  connection.settimeout(_PATIENCE)
  with contextlib.suppress(OSError):
    said = connection.recv(len(token) + 4, socket.MSG_WAITALL)
    if secrets.compare_digest(said[:-4], token.encode()):
      connection.settimeout(None)
      return int.from_bytes(said[-4:], "big")
  connection.close()
  return None
