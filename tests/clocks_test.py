"""Searches whose clocks jump find the same, and their times stay sane."""

import itertools
import json
import math
import time

import jax
import numpy as np
import pytest

import nao_jax
from nao_jax.report import watching
from nao_jax.runs import chunking, status
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.runs.workdir import Workdir

DAY = 24 * 3600.0
SPACE = nao_jax.make_space("x", {"a": tuple(range(50)), "b": (1, 2)})
SIZES = nao_jax.SearchConfig(pool_size=4, rounds=6, new_per_round=2)


@pytest.fixture
def wrong(monkeypatch):
  """Seconds by which the wall clock and the monotonic clock are wrong."""
  found = {"time": 0.0, "monotonic": 0.0}
  for name in found:
    real = getattr(time, name)
    monkeypatch.setattr(
      time, name, lambda name=name, real=real: real() + found[name]
    )
  yield found
  # The process is in its own time zone again.
  monkeypatch.undo()
  time.tzset()


def _search(workdir, before=lambda: None):
  def score(tokens):
    before()
    return np.float32(tokens.sum(1))

  strategy = nao_jax.RandomSearch(SPACE)
  return nao_jax.run_search(
    SPACE, score, jax.random.key(0), SIZES, strategy=strategy, workdir=workdir
  )


def test_a_search_finds_the_same_while_the_clocks_jump(
  wrong, monkeypatch, tmp_path
):
  whole = _search(tmp_path / "whole")
  jumps = itertools.cycle([DAY, -DAY, -DAY, DAY])
  zones = itertools.cycle(["Pacific/Kiritimati", "Pacific/Pago_Pago"])
  ages = []

  def jump():
    wrong["time"] += next(jumps)
    wrong["monotonic"] += DAY  # It never goes back.
    monkeypatch.setenv("TZ", next(zones))
    time.tzset()
    if "status.json" in {path.name for path in (tmp_path / "run").iterdir()}:
      shown = watching.snapshot(tmp_path / "run")
      ages.append(watching._last_update(shown))

  found = _search(tmp_path / "run", jump)
  jax.tree.map(np.testing.assert_array_equal, found, whole)
  assert len(ages) >= SIZES.rounds
  rows = [
    json.loads(line)
    for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()
  ]
  times = [x for row in rows for n, x in row.items() if n.endswith("seconds")]
  assert times
  assert all(math.isfinite(x) and x >= 0 for x in times)
  left = status.read(tmp_path / "run")["left"]
  assert left is None or 0 <= left < DAY


def test_checkpoints_by_minutes_follow_neither_wall_clock_nor_zone(
  wrong, tmp_path
):
  minutes = CheckpointConfig(minutes=10)
  with Workdir(tmp_path / "run", {}, "end.json", minutes) as run:

    def saved():
      run.keep([np.zeros(2)], 1)
      found = run.checkpoints.glob("[0-9]*")
      return max((int(path.name) for path in found), default=0)

    for jump in (DAY, -2 * DAY, DAY):
      wrong["time"] += jump
      assert saved() == 0
    # After a sleep there is one at once, and then none for ten minutes.
    wrong["monotonic"] += DAY
    assert [saved(), saved(), saved()] == [1, 1, 1]
    wrong["monotonic"] += 11 * 60
    assert saved() == 2


def test_calls_are_long_again_soon_after_a_sleep(wrong):
  sizes = []
  for first, last in chunking.calls(0, 200, 25):
    sizes.append(last - first)
    if first > 60:
      wrong["monotonic"] += 0 if DAY in wrong.values() else DAY
  assert max(sizes[:5]) == 25
  assert sizes.count(1) == 2  # The first call, and the one after the sleep.
