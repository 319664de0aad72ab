import functools
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import types

import pytest

from experiments import guard
from tests import drivers

ROOT = pathlib.Path(__file__).parents[1]

PROGRAM = """
'''Adds.'''
from absl import flags, logging
from experiments import driver
from nao_jax.errors import UserError
_N = flags.DEFINE_integer("n", 1, "A number.", lower_bound=0)
def main(_):
  logging.info("adding")
  logging.warning("careful")
  try:
    full = OSError("No space left on device")
    raise KeyError("a slip") if _N.value == 11 else full
  except (KeyError, OSError):
    logging.exception("in a thread")
  if _N.value == 7:
    raise UserError("--n=7: seven\\nis not allowed")
  if _N.value == 8:
    raise KeyError("a bug")
  if _N.value == 9:
    raise KeyboardInterrupt
  if _N.value == 10:
    import jax
    jax.random.key(0)
  print(_N.value + 1)
if __name__ == "__main__":
  driver.run(main)
"""


@pytest.fixture(scope="module")
def program(home):
  path = home / "adds.py"
  path.write_text(PROGRAM)
  return path


@pytest.fixture
def run(program):
  return functools.partial(drivers.run, program)


def test_a_good_run_ends_with_0(run):
  result = run("--n=2")
  assert (result.returncode, result.stdout) == (0, "3\n")


def test_a_user_error_ends_with_2_and_one_line(run):
  result = run("--n=7")
  assert result.returncode == 2
  last = result.stderr.splitlines()[-1]
  assert last == "error: --n=7: seven is not allowed"
  assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
  ("flag", "named"),
  [
    ("--m=1", "'m'"),
    ("--n=two", "--n=two"),
    ("--n=-1", "--n=-1"),
    ("n=1", "n=1: not a flag"),
  ],
)
def test_a_bad_flag_ends_with_2_and_one_line_that_names_it(run, flag, named):
  result = run(flag)
  assert result.returncode == 2
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert named in result.stderr


def test_a_bug_keeps_its_traceback(run):
  result = run("--n=8")
  assert result.returncode == 1
  assert "Traceback" in result.stderr
  assert "a bug" in result.stderr


def test_a_bug_that_a_library_logs_keeps_its_traceback(run):
  result = run("--n=11")
  assert result.returncode == 0
  assert "in a thread\nTraceback" in result.stderr
  assert "KeyError: 'a slip'" in result.stderr


def test_ctrl_c_ends_with_130_and_no_traceback(run):
  result = run("--n=9")
  assert result.returncode == 130
  assert result.stderr.splitlines()[-1] == "interrupted"
  assert "Traceback" not in result.stderr


def test_a_platform_that_is_not_there_is_said_in_a_line(program):
  # A fork has read the variable.
  result = subprocess.run(
    [sys.executable, program, "--n=10"],
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "abacus"},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 2
  last = result.stderr.splitlines()[-1]
  assert last.startswith(
    "error: JAX_PLATFORMS=abacus: jax finds no such device"
  )
  assert "JAX_PLATFORMS=cpu" in last
  assert "Traceback" not in result.stderr


def test_help_is_no_mistake(run):
  result = run("--help")
  assert result.returncode == 0
  assert "--n: A number." in result.stdout


def test_libraries_log_nothing_below_a_warning(run):
  # The program lies outside the project, so it logs as a library does.
  result = run()
  assert "adding" not in result.stderr
  assert "careful" in result.stderr
  # What they raise is reported where it ends the work.
  assert "in a thread" not in result.stderr


def test_late_writes_of_a_checkpoint_are_no_news(capsys):
  late = RuntimeError("Event loop is closed")
  guard._unless_too_late(types.SimpleNamespace(exc_value=late))
  assert capsys.readouterr().err == ""


def test_an_explicit_verbosity_shows_everything(run):
  shown = run("--verbosity=0").stderr
  assert "adding" in shown
  assert "OSError: No space left" in shown


# Prints more than a pipe holds, and leaves a file at its end.
LONG = """
import os, pathlib, sys
from absl import app, flags, logging
from experiments import driver
from nao_jax.runs import streams
_RESULT = flags.DEFINE_boolean("result", False, "Printing is all it does.")
def main(_):
  for number in range(20_000):
    print("line", number)
  streams.console().print("table")
  logging.info("working")
  sys.stderr.write("told\\n")
  os.write(os.open("opened", os.O_CREAT | os.O_WRONLY), b"mine")
  pathlib.Path("done").write_text("")
if __name__ == "__main__":
  driver.run(main, prints_result="--result" in sys.argv)
"""


@pytest.fixture
def program_that_prints(tmp_path, monkeypatch):
  """The program above, in the directory in which it runs."""
  monkeypatch.chdir(tmp_path)
  path = tmp_path / "long.py"
  path.write_text(LONG)
  return path


@pytest.fixture
def shell(program_that_prints):
  """Runs it as a process; what follows it is a shell's."""

  def run_as(words):
    program = shlex.join([sys.executable, str(program_that_prints)])
    return subprocess.run(
      ["bash", "-c", f"{program} {words}"],
      check=False,
      capture_output=True,
      text=True,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

  return run_as


@pytest.fixture
def run_into(program_that_prints):
  """Runs it in a fork whose output and errors go to files.

  `None` stands for a pipe whose reader leaves after a line. Returns the exit
  code, and what came.
  """

  def run(*files, flags=()):
    pipe, told = pathlib.Path("pipe"), pathlib.Path("told")
    os.mkfifo(pipe)
    told.touch()
    streams = [pipe if file is None else pathlib.Path(file) for file in files]
    process = drivers.Fork(program_that_prints, *flags, streams=streams)
    if pipe in streams:
      with pipe.open() as reader:
        assert reader.readline() == "line 0\n"
    process.communicate()
    return process.returncode, told.read_text()

  return run


def _assert_work_went_on(code, errors, reasons=()):
  assert code == 0, errors
  assert pathlib.Path("done").exists()
  # No library's words end up in a file because it has the number of a stream.
  assert pathlib.Path("opened").read_text() == "mine"
  assert "Traceback" not in errors
  assert "Exception ignored" not in errors
  told = [line for line in errors.splitlines() if "the work goes on" in line]
  assert len(told) == len(reasons)
  for line, reason in zip(told, reasons, strict=True):
    assert f"standard output: {reason};" in line


@pytest.mark.parametrize("words", [">&-", "<&- >&- 2>&-"])
def test_work_goes_on_without_standard_files(shell, words):
  result = shell(words)
  _assert_work_went_on(result.returncode, result.stderr)


@pytest.mark.parametrize(
  ("files", "reasons"),
  [
    (("/dev/full", "told"), ["No space left on device"]),
    (("/dev/full", "/dev/full"), []),
    ((None, "told"), ["Broken pipe"]),
    ((None, None), []),
  ],
)
def test_work_goes_on_when_nobody_reads_what_it_says(run_into, files, reasons):
  _assert_work_went_on(*run_into(*files), reasons)


def test_a_result_is_an_error_without_standard_output(shell):
  result = shell("--result >&-")
  assert result.returncode == 2
  assert result.stderr.splitlines()[-1].startswith("error: standard output: ")


def test_a_result_that_cannot_be_printed_is_an_error(run_into):
  code, errors = run_into("/dev/full", "told", flags=["--result"])
  assert code == 2
  assert errors.splitlines()[-1].startswith("error: standard output: ")


def test_a_reader_of_results_may_have_enough(run_into):
  code, errors = run_into(None, "told", flags=["--result"])
  assert code == 0
  assert "error" not in errors


def _describe(tmp_path, library):
  """Starts a driver for which jax is this."""
  (tmp_path / "jax.py").write_text(library)
  return subprocess.Popen(
    [sys.executable, "-m", "experiments.describe", "--arch=NAONet-A"],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(tmp_path)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.parametrize("driver", ["report", "prepare_images"])
def test_a_driver_starts_in_a_process_of_its_own(driver):
  """Other tests start it in forks, which have imported the library.

  soak_test.py starts those that search and train, command_test.py others.
  """
  command = [sys.executable, "-m", f"experiments.{driver}", "--help"]
  found = subprocess.run(command, capture_output=True, text=True)
  assert found.returncode == 0, found.stderr
  assert f"experiments.{driver}" in found.stdout


def test_ctrl_c_while_it_imports_ends_with_130_and_one_line(tmp_path):
  with _describe(
    tmp_path,
    """import time
print("importing", flush=True)
try:
  time.sleep(60)
except BaseException:  # As some libraries have it.
  pass
""",
  ) as process:
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
  assert (process.returncode, errors) == (130, "interrupted\n")


@pytest.mark.parametrize(
  ("library", "named"),
  [
    ("import not_there", "package not_there is not installed"),
    (
      "raise ValueError(\"invalid truth value 'x' for environment 'JAX_Y'\")",
      "JAX_Y",
    ),
  ],
)
def test_what_the_environment_lacks_is_one_line(tmp_path, library, named):
  with _describe(tmp_path, library) as process:
    _, errors = process.communicate()
  assert process.returncode == 2
  assert errors.startswith("error: ")
  assert errors.count("\n") == 1
  assert named in errors


def test_a_folder_of_the_user_is_in_nobodys_way(tmp_path):
  (tmp_path / "experiments").mkdir()
  (tmp_path / "experiments" / "__init__.py").write_text("")
  ended = subprocess.run(
    [sys.executable, "-m", "nao_jax.experiments.describe", "--arch=NAONet-Z"],
    check=False,
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 2
  assert ended.stderr.startswith("error: --arch=NAONet-Z")
