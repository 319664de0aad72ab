"""Ctrl-C, SIGTERM and SIGHUP, put off until a run can stop without loss."""

import contextlib
import os
import signal
import sys
import threading

# The last is what a terminal sends when it goes.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(number: int) -> None:
  """Asks this process to stop, if nothing did yet and it can be put off."""
  handler = signal.getsignal(number)
  # The second signal would end it at once.
  if isinstance(getattr(handler, "__self__", None), Interruption):
    signal.raise_signal(number)


class Interruption:
  """While it is entered, the first of these signals is only remembered.

  The second one acts as it would have without this. Handlers of signals are
  the process's, so they are put back at the end; outside the main thread,
  where Python allows none, nothing is changed.

  Attributes:
    signal: the number of the one that came; None before.
  """

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self) -> "Interruption":
    if threading.current_thread() is threading.main_thread():
      for number in _SIGNALS:
        # A shell starts what runs in the background with Ctrl-C ignored, and
        # nohup what is to outlive its terminal.
        if signal.getsignal(number) != signal.SIG_IGN:
          self._before[number] = signal.signal(number, self._remember)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def _remember(self, number, _) -> None:
    self.signal = number
    self.__exit__()
    # Not by logging: its stream may be in the middle of a line.
    name = signal.Signals(number).name
    text = f"{name}: stops after the running step; again: at once\n"
    # It may be closed, or its terminal be gone.
    with contextlib.suppress(OSError, ValueError, AttributeError):
      os.write(sys.__stderr__.fileno(), text.encode())
