"""The benchmark that joins comparisons on several data sets."""

import json
import os
import subprocess
import sys

from tests import pages

# Trials whose score is the number of controllers, plus 10 on the second data
# set; random trials of seed n score n less.
SCRIPT = """
import runpy
import numpy as np
from nao_jax.studies import comparison
from nao_jax.studies.curves import Curves

def run(config, strategies, *, plus, file):
  assert str(file).startswith("curves")
  members = plus.members if plus else 8
  found = {}
  for name in strategies:
    last = members + 10 * (config.dataset == "second") + np.zeros(3)
    last -= np.arange(3) * (name == "random")
    signal = np.stack([0 * last, last], axis=1)
    found[name] = Curves(signal, -signal, np.full(3, 2), np.array([1, 0, 2]), 0)
  return found

comparison.run = run
runpy.run_module("benchmarks.search_quality", run_name="__main__")
"""


def _run(folder, *flags):
  return subprocess.run(
    [
      *(sys.executable, "-c", SCRIPT, "--datasets=first,second", "--budget=10"),
      *("--strategies=nao_plus,random", "--folder=curves", "--json=found.json"),
      *flags,
    ],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(pages.ROOT)},
    capture_output=True,
    text=True,
  )


def test_data_sets_are_joined_and_differences_are_paired_by_seed(tmp_path):
  ended = _run(tmp_path, "--variant=one alone: members=1 passes=2")
  assert not ended.returncode, ended.stderr[-2000:]
  found = json.loads((tmp_path / "found.json").read_text())
  rows = {(row[0], row[1]): row[2:] for row in found["rows"]}
  assert rows["first", "nao_plus"] == [
    *("8.000 (0.000)", "-8.000 (0.000)", "1.7 (0.3)", "2", "67%")
  ]
  assert rows["second", "one alone"][0] == "11.000 (0.000)"
  assert rows["mean of 2", "random"][0] == "12.000 (0.577)"
  assert rows["mean of 2", "nao_plus - random"][:2] == [
    *("1.000 (0.577)", "-1.000 (0.577)")
  ]
  assert rows["mean of 2", "nao_plus - one alone"][0] == "7.000 (0.000)"


def test_a_variant_with_a_wrong_setting_is_refused(tmp_path):
  ended = _run(tmp_path, "--variant=x: members=0")
  assert ended.returncode == 2
  assert "x: members=0" in ended.stderr
  assert not (tmp_path / "found.json").exists()
