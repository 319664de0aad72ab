"""Deferral of Ctrl-C, SIGTERM and SIGHUP until a run can stop without loss."""

import contextlib
import os
import signal
import sys
import threading

# A terminal sends SIGHUP when it is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(number: int) -> None:
  """Asks this process to stop, if signals are deferred and none has come."""
  handler = signal.getsignal(number)
  # A second signal would end the process at once.
  if isinstance(getattr(handler, "__self__", None), Interruption):
    signal.raise_signal(number)


class Interruption:
  """Context manager in which the first of these signals is only recorded.

  The second one acts as without the context manager. Handlers of signals belong
  to the process, so they are restored at the end; outside the main thread,
  where Python allows no handlers, nothing is changed.

  Attributes:
    signal: number of the first signal; None before it.
  """

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self) -> "Interruption":
    if threading.current_thread() is threading.main_thread():
      for number in _SIGNALS:
        # A shell ignores Ctrl-C for jobs in the background, and nohup ignores
        # SIGHUP for programs that outlive their terminal.
        if signal.getsignal(number) != signal.SIG_IGN:
          self._before[number] = signal.signal(number, self._record)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def _record(self, number, _) -> None:
    self.signal = number
    self.__exit__()
    # Logging could not be used: its stream may be in the middle of a line.
    name = signal.Signals(number).name
    text = f"{name}: stops after the running step; again: at once\n"
    # Standard error may be closed, or its terminal may be gone.
    with contextlib.suppress(OSError, ValueError, AttributeError):
      os.write(sys.__stderr__.fileno(), text.encode())
