"""Processes that watch each other: when one is gone, the others end.

jax's own heartbeat would abort them too, after half a minute and with a trace
of every stack; a process that waits for a dead one in a collective cannot do
anything else. Therefore each process holds a connection to the first one, which
the system closes when a process ends in any way. If a machine fails at once,
the connection stays open, and only the heartbeat detects it.

A process that ends with an error announces it first, because it lives on until
jax has disconnected from the others, for which it would wait in vain.
"""

from collections.abc import Callable
import contextlib
import os
import secrets
import socket
import sys
import threading

from nao_jax.errors import UserError

# The exit status of drivers for errors that the user must correct.
_EXIT = 2
# Bytes of the secret, and seconds within which a new connection must send it.
_SECRET, _PATIENCE = 16, 10.0
# Seconds in which a process may end by itself, with a better message, and the
# most bytes of a reason.
_GRACE, _REASON = 5.0, 2000


class Watch:
  """Ends this process when another one is gone."""

  def __init__(self, farewell: Callable[[], None] = lambda: None):
    """Creates a watch that has no connections yet.

    Args:
      farewell: disconnects from the other processes, before this process is
        ended because another one ends.
    """
    self._farewell = farewell
    self._over = threading.Event()
    # The open connections live as long as this object.
    self._open, self._reason = [], ""

  def begin(self) -> None:
    """Treats the end of another process as a failure again, as at first."""
    self._over.clear()

  def close(self) -> None:
    """Tells the other processes that this one ends, unless they expect it."""
    if not self._over.is_set():
      self.leave("see what it says")

  def end(self) -> None:
    """Treats the end of another process as expected from now on."""
    self._over.set()

  def leave(self, reason: str) -> None:
    """Tells the others that this process ends, so that they end too.

    Args:
      reason: one line.
    """
    self.end()
    self._reason = reason
    for connection in list(self._open):
      self._say(connection)

  def others(self, host: str) -> tuple[int, str]:
    """Waits in the background for the others; the first process calls it.

    Args:
      host: the address to listen at.

    Returns:
      The port, and a secret that identifies the other processes; pass both to
      them.
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
    """Watches the first process; every other process calls it.

    Args:
      address: host and port of the first process.
      token: its secret.
      number: the number of this process.

    Raises:
      UserError: the first process cannot be reached.
    """
    try:
      connection = socket.create_connection(address, _PATIENCE)
    except OSError as error:
      host, port = address
      raise UserError(
        "`rendezvous.coordinator`: the first process listens at "
        f"{host}:{port}, too, and cannot be reached there ({error}); let its "
        "machine's ports be reached from the others"
      ) from error
    connection.settimeout(None)
    connection.sendall(token.encode() + number.to_bytes(4, "big"))
    self._background(self._wait, connection, 0)

  def _background(self, work: Callable[..., None], *arguments) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()

  def _wait(self, connection: socket.socket, number: int) -> None:
    self._open.append(connection)
    self._say(connection)  # For a process that connects after `leave`.
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
  """Returns the number of the connected process; None without the secret."""
  connection.settimeout(_PATIENCE)
  with contextlib.suppress(OSError):
    said = connection.recv(len(token) + 4, socket.MSG_WAITALL)
    if secrets.compare_digest(said[:-4], token.encode()):
      connection.settimeout(None)
      return int.from_bytes(said[-4:], "big")
  connection.close()
  return None
