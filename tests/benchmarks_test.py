"""Every benchmark can be started."""

import subprocess
import sys

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
