"""What every driver does around its main function."""

from collections.abc import Callable, Sequence
import os
import signal
import sys
from typing import NoReturn

from absl import app, flags, logging

from experiments import compilation_cache
import nao_jax
from nao_jax.errors import Stopped, UserError

# Where the log lines of this project come from; libraries log at the same
# level, and what they say there is of no use to the user.
_OURS = tuple(
  os.path.dirname(os.path.abspath(file)) + os.sep
  for file in (__file__, nao_jax.__file__)
)

BAD_USAGE = 2
# As a shell has it: 128 and the number of the signal.
_SIGNALLED = 128
INTERRUPTED = _SIGNALLED + signal.SIGINT


def run(main: Callable[[Sequence[str]], None]) -> None:
  """Runs `main` as absl's `app.run` does, and says what went wrong in a line.

  A UserError, an unknown flag, an illegal value and a stray argument end as
  `error: ...` on stderr and exit code 2; Ctrl-C and SIGTERM as exit code 130
  and 143, with a word on how to go on where there is work to go on with;
  `--help` as 0. Every other exception is a bug and keeps its traceback.
  Progress is logged unless `--verbosity` says otherwise.

  Args:
    main: takes what absl hands it: the program's name, in a list.
  """

  def guarded(argv):
    _set_up_logging()
    try:
      compilation_cache.set_up()
      return main(argv)
    except UserError as error:
      _exit(f"error: {error}", BAD_USAGE)
    except Stopped as stopped:
      _exit(str(stopped), _SIGNALLED + stopped.signal)
    except KeyboardInterrupt:
      _exit("interrupted", INTERRUPTED)

  app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _exit(f"error: {error} (--help lists the flags)", BAD_USAGE)
  except SystemExit:
    sys.exit(0)  # absl ends --help with 1, as if that were a mistake.
  if len(rest) > 1:
    _exit(
      f"error: {rest[1]}: not a flag; arguments are --flag=value", BAD_USAGE
    )
  return rest


def _set_up_logging() -> None:
  if flags.FLAGS["verbosity"].present:
    return
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(
    lambda record: (
      record.levelname != "INFO"
      or os.path.abspath(record.pathname).startswith(_OURS)
    )
  )


def _exit(message: str, code: int) -> NoReturn:
  """Ends the program; the message is made one line, as absl's are not."""
  print(" ".join(message.split()), file=sys.stderr)
  sys.exit(code)
