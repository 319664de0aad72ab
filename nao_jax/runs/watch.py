"""Processes that watch each other: when one ends, the others end, too.

jax's heartbeat would also abort them, but only after half a minute and with a
trace of every stack, and a process that waits for a dead one in a collective
cannot do anything else. Therefore each process keeps a connection to the first
one, which the system closes when a process ends in any way. If a machine fails
suddenly, the connection stays open, and only the heartbeat detects it.

A process that ends with an error announces it first, as it cannot end before
jax has disconnected from the others, which would never happen.
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
  """Ends this process when another one has ended."""

  def __init__(self, farewell: Callable[[], None] = lambda: None):
    """Creates a watch that has no connections yet.

    Args:
      farewell: disconnects from the other processes, before this process is
        ended because another one ends.
    """
    self._farewell = farewell
    self._over = threading.Event()
    # Connections stay open as long as this object exists.
    self._open, self._reason = [], ""

  def begin(self) -> None:
    """Treats the end of another process as a failure again."""
    self._over.clear()

  def close(self) -> None:
    """Announces the end of this process, unless the others expect it."""
    if not self._over.is_set():
      self.leave("see what it says")

  def end(self) -> None:
    """Treats the end of another process as expected from now on."""
    self._over.set()

  def leave(self, reason: str) -> None:
    """Announces the end of this process to the others, which end, too.

    Args:
      reason: one line.
    """
    self.end()
    self._reason = reason
    for connection in list(self._open):
      self._send_reason(connection)

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
    self._send_reason(connection)  # For a process that connects after `leave`.
    reason = ""
    with connection, contextlib.suppress(OSError):
      reason = connection.recv(_REASON).decode(errors="ignore")
    if not self._over.wait(_GRACE if reason else 0):
      self._end_because(number, reason)

  def _send_reason(self, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
      connection.sendall(self._reason.encode()[:_REASON])

  def _end_because(self, number: int, reason: str) -> None:
    end = f"ended ({reason})" if reason else "is gone"
    text = (
      f"error: process {number} {end}, and so this one ends; what was saved "
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
    message = connection.recv(len(token) + 4, socket.MSG_WAITALL)
    if secrets.compare_digest(message[:-4], token.encode()):
      connection.settimeout(None)
      return int.from_bytes(message[-4:], "big")
  connection.close()
  return None
