"""Every benchmark can be started."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import results
from nao_jax.errors import UserError
from tests import pages

# Defines the flags of each as its start would, in one process.
SCRIPT = """
import runpy, sys
from absl import flags
import experiments.driver
for module in sys.argv[1:]:
  before = set(flags.FLAGS)
  runpy.run_module(module, run_name="started")
  flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
"""


def test_the_flags_of_a_benchmark_have_names_of_their_own():
  modules = [
    f"benchmarks.{path.stem}"
    for path in sorted((pages.ROOT / "benchmarks").glob("*.py"))
    if "driver.run(" in path.read_text(encoding="utf-8")
  ]
  assert "benchmarks.throughput" in modules
  ended = subprocess.run(
    [sys.executable, "-c", SCRIPT, *modules],
    cwd=pages.ROOT,
    capture_output=True,
    text=True,
  )
  assert not ended.returncode, ended.stderr[-2000:]


# Parts of benchmarks.accelerator that need no device; `bad` fails once.
PARTS = """
import pathlib, sys
from benchmarks import accelerator
from experiments import driver
from nao_jax.errors import UserError

def bad(place):
  if place.until and not pathlib.Path("seen").exists():
    pathlib.Path("seen").touch()
    raise UserError("no such device")
  return {"figure": 2}

def good(place):
  assert not pathlib.Path("seen").exists()
  return {"figure": 1}

accelerator.PARTS = {"good": (good,), "bad": (bad,)}
driver.run(accelerator.main)
"""


def test_a_part_that_fails_leaves_the_others_and_runs_again(tmp_path):
  def start():
    ended = subprocess.run(
      [sys.executable, "-c", PARTS, "--json=found.json"],
      cwd=tmp_path,
      env=os.environ | {"PYTHONPATH": str(pages.ROOT)},
      capture_output=True,
      text=True,
    )
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    return ended, parts["good"], parts["bad"]

  ended, good, bad = start()
  assert ended.returncode == 2
  assert "bad: failed; the same command runs them" in ended.stderr
  assert (good["figure"], bad["error"]) == (1, "no such device")
  ended, good, bad = start()
  assert not ended.returncode, ended.stderr
  assert (good["figure"], bad["figure"]) == (1, 2)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ('{"settings": {"width": 5}}', "holds results of other settings"),
    ("[]", "not results"),
    ("{", "not results"),
  ],
)
def test_results_of_something_else_are_refused(content, message, tmp_path):
  file = tmp_path / "results.json"
  file.write_text(content)
  with pytest.raises(UserError, match=f"^--json={file}: {message}"):
    results.read(str(file), {"settings": {"width": 6}})
