"""Processes that watch each other: when one is gone, the others end.

jax's own heartbeat would abort them too, after half a minute and with a trace
of every stack; a process that waits for a dead one in a collective cannot do
anything else. So each other process holds a connection to the first one, which
the system closes when a process ends, however it does. Where a machine is gone
at once, nobody closes it, and the heartbeat serves.
"""

from collections.abc import Callable
import contextlib
import os
import socket
import sys
import threading

# As drivers end on what their user must mend.
_EXIT = 2


class Watch:
  """Ends this process when another one is gone."""

  def __init__(self):
    """Watches nobody yet."""
    self._over = False
    # They live as long as this does.
    self._open = []

  def end(self) -> None:
    """From now on it is no news that a process ends."""
    self._over = True

  def others(self, host: str, count: int) -> int:
    """In the first process: waits for the others in the background.

    Args:
      host: to listen at.
      count: of the others.

    Returns:
      The port, which they must be told.
    """
    server = socket.create_server((host, 0))

    def accept():
      for _ in range(count):
        connection, _ = server.accept()
        self._background(lambda c=connection: self._wait(c, _read(c)))

    self._background(accept)
    return server.getsockname()[1]

  def first(self, address: tuple[str, int], number: int) -> None:
    """In another process: watches the first one.

    Args:
      address: of the first process.
      number: of this one.
    """
    connection = socket.create_connection(address)
    connection.settimeout(None)
    connection.sendall(number.to_bytes(4, "big"))
    self._background(lambda: self._wait(connection, 0))

  def _background(self, work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()

  def _wait(self, connection: socket.socket, number: int) -> None:
    self._open.append(connection)
    with contextlib.suppress(OSError):
      connection.recv(1)
    if self._over:
      return
    text = (
      f"error: process {number} is gone, and so this one ends; what was saved "
      "is safe, and the same commands in all processes go on\n"
    )
    os.write(sys.__stderr__.fileno(), text.encode())
    os._exit(_EXIT)


def _read(connection: socket.socket) -> int:
  """The number of who has connected."""
  return int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
