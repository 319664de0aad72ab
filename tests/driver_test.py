import subprocess
import sys

import pytest

PROGRAM = """
'''Adds.'''
from absl import flags, logging
from experiments import driver
from nao_jax.errors import UserError
_N = flags.DEFINE_integer("n", 1, "A number.", lower_bound=0)
def main(_):
  logging.info("adding")
  logging.warning("careful")
  if _N.value == 7:
    raise UserError("--n=7: seven\\nis not allowed")
  if _N.value == 8:
    raise KeyError("a bug")
  if _N.value == 9:
    raise KeyboardInterrupt
  print(_N.value + 1)
if __name__ == "__main__":
  driver.run(main)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  program = tmp_path_factory.mktemp("driver") / "adds.py"
  program.write_text(PROGRAM)

  def run_with(*flags):
    code = f"import runpy; runpy.run_path({str(program)!r}, None, '__main__')"
    return subprocess.run(
      [sys.executable, "-c", code, *flags],
      check=False,
      capture_output=True,
      text=True,
    )

  return run_with


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


def test_ctrl_c_ends_with_130_and_no_traceback(run):
  result = run("--n=9")
  assert result.returncode == 130
  assert result.stderr.splitlines()[-1] == "interrupted"
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


def test_an_explicit_verbosity_shows_everything(run):
  assert "adding" in run("--verbosity=0").stderr
