"""The start of a driver, which can be interrupted before any import.

Imports take seconds, in which Ctrl-C would show a traceback through the library
that is loading. This module imports nothing slow.
"""

import contextlib
import gc
import os
import re
import signal
import sys
from types import TracebackType
from typing import NoReturn

# As in shells: 128 plus the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
BAD_USAGE = 2


# The installed command, whose arguments a driver no longer sees.
_COMMAND = "nao_jax"
_IS_COMMAND = os.path.basename(sys.argv[0] if sys.argv else "") == _COMMAND


def starts_a_driver() -> bool:
  """Returns whether this process runs a driver, of the package imported."""
  # Python documents `-m` as the first argument until the module is found.
  return _IS_COMMAND or sys.argv[:1] == ["-m"]


def start_of_commands() -> str:
  """Returns how the command line of a driver begins, before its name."""
  return f"{_COMMAND} " if _IS_COMMAND else f"python -m {__package__}."


def set_up() -> None:
  """Prepares the process for closed files, Ctrl-C and failing imports."""
  # Imports and jax's tracing make many objects and few cycles: with Python's
  # own threshold an eighth of a short search was the search for cycles.
  gc.set_threshold(10_000, 10, 10)
  _fill_closed_files()
  set_interrupt(True)
  sys.excepthook = _in_a_line
  sys.unraisablehook = _unless_too_late


def set_interrupt(at_once: bool) -> None:
  """Chooses what Ctrl-C does, unless it is ignored (a shell's background job).

  Args:
    at_once: whether to end the process with a line, as there is nothing to
      save; otherwise KeyboardInterrupt is raised.
  """
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    handler = _end if at_once else signal.default_int_handler
    signal.signal(signal.SIGINT, handler)


def end_with(error: str) -> NoReturn:
  """Ends the process with a line on an error of the user."""
  _say(f"error: {error}")
  sys.exit(BAD_USAGE)


def _end(*_) -> None:
  # An exception could be swallowed by the module that is being imported.
  _say("interrupted")
  os._exit(INTERRUPTED)


def _say(line: str) -> None:
  with contextlib.suppress(OSError):
    os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _fill_closed_files() -> None:
  """Opens /dev/null in place of closed standard files.

  Otherwise the next file to be opened, such as a checkpoint, would get the
  number of standard error, and the output of libraries with it.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # The system assigns the lowest free number.
      os.open(os.devnull, os.O_RDWR)


def _in_a_line(
  kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
  """Reports in one line an error that is not a bug of the program."""
  if issubclass(kind, KeyboardInterrupt):
    _end()
  if message := _of_the_environment(error):
    _say(f"error: {message}")
    with contextlib.suppress(OSError, ValueError, AttributeError):
      sys.stdout.flush()
    os._exit(BAD_USAGE)
  sys.__excepthook__(kind, error, trace)


def _unless_too_late(found: "sys.UnraisableHookArgs") -> None:
  """Reports what cannot be raised.

  Where one write of a checkpoint fails, TensorStore tells of others when nobody
  waits for them any more.
  """
  if str(found.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(found)


def _of_the_environment(error: BaseException) -> str:
  """Returns what the user's environment lacks; empty for other errors."""
  text = " ".join(str(error).split())
  # JAX raises it when it is imported.
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
