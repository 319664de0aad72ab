"""The start of a driver: it can be interrupted before anything is imported.

Imports take seconds, in which Ctrl-C would show a traceback through whatever
library is loading. This module imports nothing that is slow.
"""

import contextlib
import os
import re
import signal
import sys
from types import TracebackType

# As shells have it: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
BAD_USAGE = 2


def starts_a_driver() -> bool:
  """Whether Python runs a module of the package that is being imported."""
  # Python documents `-m` as the first argument until the module is found.
  return sys.argv[:1] == ["-m"]


def set_up() -> None:
  """Prepares the process: what is closed, Ctrl-C, failing imports."""
  _fill_closed_files()
  set_interrupt(True)
  sys.excepthook = _in_a_line


def set_interrupt(at_once: bool) -> None:
  """Chooses what Ctrl-C does, unless it is ignored (a shell's background job).

  Args:
    at_once: end the process with a line, as there is nothing to save; else
      raise KeyboardInterrupt.
  """
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    handler = _end if at_once else signal.default_int_handler
    signal.signal(signal.SIGINT, handler)


def _end(*_) -> None:
  # An exception could be swallowed by whatever is being imported.
  _say("interrupted")
  os._exit(INTERRUPTED)


def _say(line: str) -> None:
  with contextlib.suppress(OSError):
    os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _fill_closed_files() -> None:
  """Opens /dev/null in the place of closed standard files.

  Otherwise the next file that is opened, a checkpoint say, would take the
  number of standard error, and what libraries write there.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # The lowest free number is the one that is given out.
      os.open(os.devnull, os.O_RDWR)


def _in_a_line(
  kind: type[BaseException],
  error: BaseException,
  trace: TracebackType | None,
) -> None:
  """Shows what ended the program where it is no bug of it."""
  if issubclass(kind, KeyboardInterrupt):
    _end()
  if message := _of_the_environment(error):
    _say(f"error: {message}")
    with contextlib.suppress(OSError, ValueError, AttributeError):
      sys.stdout.flush()
    os._exit(BAD_USAGE)
  sys.__excepthook__(kind, error, trace)


def _of_the_environment(error: BaseException) -> str:
  """What the user's Python or environment lacks; empty for other errors."""
  text = " ".join(str(error).split())
  # From jax, when it is imported.
  if isinstance(error, ValueError) and re.search(
    "^invalid truth value .* for environment| for JAX flag ", text
  ):
    return f"{text}; unset it, or give it a value that jax takes"
  missing = (isinstance(error, ModuleNotFoundError) and error.name) or ""
  if missing and missing.partition(".")[0] not in ("nao_jax", "experiments"):
    return (
      f"the package {missing} is not installed for {sys.executable}; use the "
      "Python of the environment where nao_jax was installed"
    )
  return ""
