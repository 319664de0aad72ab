"""A few faults of storage; `python -m tests.faults` is the long one."""

import shutil
import subprocess
import sys

import pytest


@pytest.mark.skipif(not shutil.which("cc"), reason="no compiler of C")
def test_a_search_outlives_full_and_unreadable_disks_and_missing_locks():
  command = [sys.executable, "-m", "tests.faults", "--times=1"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
