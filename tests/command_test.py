"""The installed command `nao_jax`, and what completes it in shells."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from experiments import command
from tests import pages

# What pip installs, as far as it matters.
SCRIPT = f"""#!{sys.executable}
import sys
from nao_jax.experiments.command import main
if __name__ == "__main__":
  sys.exit(main())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """The command, in an empty folder."""
  path = tmp_path_factory.mktemp("bin") / "nao_jax"
  path.write_text(SCRIPT)
  path.chmod(0o700)
  return path


@pytest.fixture
def start(installed, tmp_path):
  """Starts the command; modules in `tmp_path` come before installed ones."""

  def start_with(*arguments, stdout=subprocess.PIPE):
    path = os.pathsep.join([str(tmp_path), str(pages.ROOT)])
    return subprocess.Popen(
      [installed, *arguments],
      env=os.environ | {"PYTHONPATH": path},
      cwd=tmp_path,
      stdout=stdout,
      stderr=subprocess.PIPE,
      text=True,
    )

  return start_with


def _ended(process):
  with process:
    output, errors = process.communicate(timeout=60)
  return process.returncode, output, errors


def test_help_describes_every_driver_and_imports_no_library(start, tmp_path):
  for library in ("jax", "numpy", "absl", "rich"):
    (tmp_path / f"{library}.py").write_text("1 / 0")
  code, output, errors = _ended(start("--help"))
  assert (code, errors) == (0, "")
  for name in command.DRIVERS:
    assert f"  {name} " in output
  assert "Searches for a convolutional cell\n" in output
  assert _ended(start())[1] == output


def test_a_reader_of_the_help_may_be_gone(start):
  read, write = os.pipe()
  os.close(read)
  process = start("--help", stdout=write)
  os.close(write)
  assert _ended(process) == (0, None, "")


def test_every_driver_is_a_sub_command():
  folder = pages.ROOT / "experiments"
  assert {*command.DRIVERS} == {
    path.stem
    for path in folder.glob("*.py")
    if "driver.run(" in path.read_text(encoding="utf-8")
  }


def test_a_driver_runs_beside_a_folder_of_that_name(start, tmp_path):
  (tmp_path / "experiments").mkdir()
  (tmp_path / "experiments" / "__init__.py").write_text("1 / 0")
  code, output, _ = _ended(start("describe", "--arch=NAONet-A"))
  assert code == 0
  assert "NAONet-A" in output


def test_help_of_a_driver_names_the_command(start):
  code, output, _ = _ended(start("watch", "--help"))
  assert code == 0
  assert "\nnao_jax watch --workdir=runs/digits\n" in output
  assert "--[no]once" in output
  assert "python -m" not in output


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (["search"], "search: no sub-command; allowed: search_cnn"),
    (["completion"], "bash or zsh"),
    (["completion", "fish"], "completion fish: name one shell"),
    (["watch", "--nowhere"], "'nowhere'"),
  ],
)
def test_what_is_unknown_ends_in_a_line(start, arguments, named):
  code, output, errors = _ended(start(*arguments))
  assert (code, output) == (2, "")
  assert errors.startswith("error: ")
  assert errors.count("\n") == 1
  assert named in errors


def test_ctrl_c_at_the_start_ends_in_a_line(start, tmp_path):
  (tmp_path / "absl.py").write_text(
    "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
  )
  with start("search_cnn") as process:
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
  assert (process.returncode, errors) == (130, "interrupted\n")


@pytest.fixture(scope="module")
def completion(installed, tmp_path_factory):
  """The script for bash."""
  path = tmp_path_factory.mktemp("bash") / "completion"
  with path.open("w") as file:
    subprocess.run(
      [installed, "completion", "bash"],
      env=os.environ | {"PYTHONPATH": str(pages.ROOT)},
      stdout=file,
      check=True,
    )
  return path


@pytest.mark.parametrize(
  ("typed", "offered"),
  [
    (["tr"], "train_cnn train_rnn train_controller"),
    (["search_cnn", "--prese"], "--preset="),
    (
      ["search_cnn", "--preset", "=", "digi"],
      "digits_nasbench201 digits digits_scratch",
    ),
    (
      ["search_cnn", "--strategy", "="],
      "nao nao_plus seminas random evolution local",
    ),
    (["search_cnn", "--noext"], "--noextend"),
    (["watch", "--workdir", "=", "compl"], "completion"),
    (["watch", "--preset"], ""),
    (["completion", ""], "bash zsh"),
    (["compare", "--th"], ""),
  ],
)
def test_bash_completes(completion, typed, offered):
  program = """
source "$1"
shift
compopt() { :; }
COMP_WORDS=(nao_jax "$@")
COMP_CWORD=$#
_nao_jax
echo "${COMPREPLY[@]}"
"""
  found = subprocess.run(
    ["bash", "-c", program, "bash", completion, *typed],
    cwd=completion.parent,
    capture_output=True,
    text=True,
    check=True,
  )
  assert (found.stdout.strip(), found.stderr) == (offered, "")


# Types into a zsh that has the script; a line shows what it made of it.
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -U compinit; compinit -u -D; source {script}'
zpty -w -n shell $'nao_jax search_cnn --prese\\tdigits_s\\t --noext\\t'
zpty -w -n shell $'\\C-aprint -r \\C-e > typed; exit\\n'
while zpty -r shell line; do :; done
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_completes(start, tmp_path):
  script = tmp_path / "script"
  script.write_text(_ended(start("completion", "zsh"))[1])
  subprocess.run(
    ["zsh", "-f", "-c", ZSH.format(script=script)],
    cwd=tmp_path,
    check=True,
    timeout=60,
  )
  typed = (tmp_path / "typed").read_text().split()
  wanted = "nao_jax search_cnn --preset=digits_scratch --noextend"
  assert typed == wanted.split()
