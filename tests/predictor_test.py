"""The measurement of an ensemble's predictions."""

import json
import os
import subprocess
import sys

import numpy as np

from nao_jax.spaces import nasbench201
from tests import pages

# With a smaller ensemble, which learns for a shorter time.
SCRIPT = """
import dataclasses, runpy
from nao_jax.strategies import nao_plus
from nao_jax.strategies.ensemble import NaoPlusConfig

whole, few = nao_plus.small, NaoPlusConfig(members=3, pretraining=100, steps=10)
nao_plus.small = lambda space: dataclasses.replace(whole(space), config=few)
runpy.run_module("benchmarks.predictor", run_name="__main__")
"""


def test_an_ensemble_ranks_what_it_has_not_seen(tmp_path):
  """The score is the number of convolutions, which few examples show."""
  ops = np.array(list(np.ndindex(*[5] * 6)))
  space = nasbench201.space()
  first = space.canonical(nasbench201.to_tokens(ops))
  score = (nasbench201.to_ops(first) == 3).sum(-1)
  np.savez(
    tmp_path / "table.npz", ops=np.int8(ops), x_made=score.astype(np.float32)
  )
  subprocess.run(
    [
      *(sys.executable, "-c", SCRIPT, "--table=table.npz"),
      *("--dataset=x", "--signal=made", "--labelled=20", "--seeds=1"),
      "--json=found.json",
    ],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(pages.ROOT)},
    check=True,
  )
  found = json.loads((tmp_path / "found.json").read_text())
  (labelled, functions, cells), *more = found["rows"]
  assert not more
  assert labelled == 20
  for shown in (functions, cells):
    assert float(shown.split()[0]) > 0.3
