"""The code that every driver runs around its main function."""

from collections.abc import Callable, Sequence
import errno
import os
import sys
from typing import NoReturn, TextIO

from absl import app, flags, logging

import nao_jax
from nao_jax.errors import Stopped, UserError, storage_fault
from nao_jax.runs import environment
from nao_jax.runs.streams import LastingStream

from . import compilation_cache, guard
from .settings import in_flags

# Sources of this project's log lines; libraries log at the same level, but
# their lines are of no use to the user.
_OURS = tuple(
  os.path.dirname(os.path.abspath(file)) + os.sep
  for file in (__file__, nao_jax.__file__)
)

# The error when a reader such as `head` closes the output: it has what it
# wanted.
_BROKEN_PIPE = os.strerror(errno.EPIPE)
# As in a shell: 128 plus the number of the signal.
_SIGNALLED = 128


def run(
  main: Callable[[Sequence[str]], None], *, prints_result: bool = False
) -> None:
  """Runs `main` like absl's `app.run`, and reports errors in one line.

  A UserError, an unknown flag, an illegal value and a stray argument end as
  `error: ...` on stderr and exit code 2; Ctrl-C and SIGTERM as exit codes 130
  and 143, with a hint on how to go on if there is work to resume; `--help` as
  0. Every other exception is a bug and keeps its traceback. Progress is logged
  unless `--verbosity` says otherwise. If standard output or error can no longer
  be written, the work goes on without it.

  Args:
    main: the main function, called by absl with the program's name in a list.
    prints_result: whether printing is the only result, so that the program
      fails if standard output cannot be written.
  """

  def guarded(argv):
    _set_up_logging()
    try:
      guard.set_interrupt(False)
      compilation_cache.set_up()
      main(argv)
      output.flush()
      if prints_result and output.lost and output.lost != _BROKEN_PIPE:
        raise UserError(f"standard output: {output.lost}; send it elsewhere")
    except (RuntimeError, AssertionError):
      if message := environment.missing_platform():
        _exit(f"error: {message}", guard.BAD_USAGE)
      raise
    except UserError as error:
      _exit(f"error: {in_flags(str(error))}", guard.BAD_USAGE)
    except Stopped as stopped:
      _exit(in_flags(str(stopped)), _SIGNALLED + stopped.signal)
    except KeyboardInterrupt:
      _exit("interrupted", guard.INTERRUPTED)
    finally:
      # There is nothing left to save, but libraries print messages at exit.
      guard.set_interrupt(True)

  guard.set_up()
  output = _replace_streams(warns=not prints_result)
  _name_command()
  app.run(guarded, flags_parser=_parse_flags)


def _name_command() -> None:
  """Has --help show commands as this process was started."""
  shown = sys.modules["__main__"]
  if shown.__doc__:
    shown.__doc__ = shown.__doc__.replace(
      "python -m experiments.", guard.start_of_commands()
    )


def _replace_streams(warns: bool) -> LastingStream:
  """Makes output and error survive a closed reader; returns the former.

  `warns` has a line printed when one of them can no longer be written.
  """

  def lasting(stream: TextIO | None, number: int, name: str) -> LastingStream:
    def say(reason: str) -> None:
      # Buffered output is written at the end, or by libraries.
      os.dup2(os.open(os.devnull, os.O_WRONLY), number)
      if warns and flags.FLAGS.is_parsed():
        logging.warning(
          "%s: %s; what comes is not shown, and the work goes on", name, reason
        )

    if stream is not None:
      return LastingStream(lambda: stream, say)
    nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    found = LastingStream(lambda: nowhere)
    found.lost = "it is closed"
    return found

  before = sys.stderr
  sys.stdout = lasting(sys.stdout, 1, "standard output")
  sys.stderr = lasting(sys.stderr, 2, "standard error")
  # Imports created these handlers. absl removes handlers that log to
  # `sys.stderr`, as it logs there itself, and must recognise them.
  absl_handler = logging.get_absl_handler().python_handler
  for handler in (absl_handler, *logging.logging.root.handlers):
    if getattr(handler, "stream", before) is before:
      handler.stream = sys.stderr
  return sys.stdout


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _exit(f"error: {error} (--help lists the flags)", guard.BAD_USAGE)
  except SystemExit:
    sys.exit(0)  # absl ends --help with 1, as if that were a mistake.
  if len(rest) > 1:
    _exit(
      f"error: {rest[1]}: not a flag; arguments are --flag=value",
      guard.BAD_USAGE,
    )
  return rest


def _set_up_logging() -> None:
  logging.get_absl_handler().addFilter(_in_flags)
  if flags.FLAGS["verbosity"].present:
    return
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(_is_shown)


def _is_shown(record) -> bool:
  """Returns whether the user needs a log line: of libraries only warnings."""
  if os.path.abspath(record.pathname).startswith(_OURS):
    return True
  error = record.exc_info[1] if record.exc_info else None
  return record.levelname != "INFO" and not _is_reported(error)


def _is_reported(error: BaseException | None) -> bool:
  """Returns whether an error that a library logs is reported in a line, too.

  Such are a user's errors and those of storage. Others keep their traceback, as
  nothing else may tell of them.
  """
  seen = set()
  while error is not None and id(error) not in seen:
    if isinstance(error, UserError) or storage_fault(error):
      return True
    seen.add(id(error))
    error = error.__cause__ or error.__context__
  return False


def _in_flags(record) -> bool:
  """Replaces settings by flags in a log line; lets every line pass."""
  record.msg, record.args = in_flags(record.getMessage()), ()
  return True


def _exit(message: str, code: int) -> NoReturn:
  """Ends the program with a one-line message; absl's have several lines."""
  print(" ".join(message.split()), file=sys.stderr)
  sys.exit(code)
