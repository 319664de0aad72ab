"""Measuring this project and a peer in turn, and the tables made of it."""

import json
import os
import sys

import pytest

from benchmarks import machine, pairs, tables
from nao_jax.errors import UserError
from tests import drivers, pages

# Says on how many cores it runs, how many threads it may have, and one more.
PEER = """
import json, os, sys
print("a word before")
print(json.dumps({sys.argv[1]: {
  "seconds": len(os.sched_getaffinity(0)),
  "fastest": int(os.environ["OMP_NUM_THREADS"]),
  "slowest": 9}}))
"""


@pytest.fixture
def peer(tmp_path):
  file = tmp_path / "peer.py"
  file.write_text(PEER)
  return [sys.executable, str(file)]


def test_a_peer_runs_on_the_cores_that_it_is_given(peer):
  core = max(os.sched_getaffinity(0))
  found = pairs.peer(peer, "work", [core])
  assert found == {"seconds": 1, "fastest": 1, "slowest": 9}


@pytest.mark.parametrize(
  ("script", "message"),
  [
    ("raise SystemExit('no torch here')", "code 1: no torch here"),
    ("print('hello')", "printed 'hello', not the seconds of work"),
    ("print('{\"other\": {}}')", "not the seconds of work"),
    ("", "printed ''"),
  ],
)
def test_a_peer_that_does_not_print_figures_is_refused(script, message):
  core = min(os.sched_getaffinity(0))
  with pytest.raises(UserError, match=message):
    pairs.peer([sys.executable, "-c", script], "work", [core])


def test_both_go_first_in_turn():
  order = []

  def measure(name, seconds):
    order.append(name)
    return {"seconds": seconds}

  found = pairs.run(
    lambda: measure("peer", 6.0), lambda: measure("ours", 2.0), 3
  )
  found = list(found)
  assert order == ["peer", "ours", "ours", "peer", "peer", "ours"]
  assert [pair["first"] for pair in found] == ["peer", "ours", "peer"]
  assert pairs.ratios(found) == [3.0, 3.0, 3.0]


def test_the_driver_measures_both_and_keeps_what_others_measured(
  peer, tmp_path
):
  file = tmp_path / "results" / "found.json"
  file.parent.mkdir()
  file.write_text('{"other": {"kept": true}}')
  sizes = ["--streams=2", "--steps=3", "--width=8"]
  flags = [f"--peer={' '.join(peer)}", "--only=rnn_score", "--pairs=1"]
  ended = drivers.run(
    "benchmarks.side_by_side", *sizes, *flags, f"--json={file}"
  )
  assert ended.returncode == 0, ended.stderr
  held = json.loads(file.read_text())
  (pair,) = held["rnn_score"]["pairs"]
  assert held["other"] == {"kept": True}
  assert pair["peer"]["slowest"] == 9
  fastest, median, slowest = (
    pair["ours"][name] for name in ("fastest", "seconds", "slowest")
  )
  assert 0 < fastest <= median <= slowest
  assert held["rnn_score"]["ours"][-3:] == sizes
  assert held["rnn_score"]["cores"] == [max(os.sched_getaffinity(0))]
  assert str(tmp_path) not in json.dumps(held)
  assert f"{pairs.ratios([pair])[0]:.2f}" in ended.stdout


@pytest.mark.parametrize(
  ("text", "cores"), [("0", [0]), ("0,2-4,7", [0, 2, 3, 4, 7])]
)
def test_cores_are_read_as_taskset_reads_them(text, cores):
  assert machine.numbers(text) == cores


def test_the_machine_is_described_by_its_cores_and_caches():
  found = machine.describe()
  assert found["cores"] == sorted(os.sched_getaffinity(0))
  assert all(level.startswith("L") for level in found["caches"])


def _results(*seconds):
  """Builds the results of one work from seconds of peer and ours."""
  measured = [
    {"peer": {"seconds": theirs}, "ours": {"seconds": own}}
    for theirs, own in seconds
  ]
  described = {
    "cpu": "a processor",
    "cores": [0, 1],
    "threads_per_core": 1,
    "caches": {"L2": "1M"},
    "load": 0.1,
    "operations": 2e11,
    "bytes": 3e9,
  }
  entry = {
    "machine": described,
    "date": "2026-11-29",
    "commit": "0123456789abcdef",
    "cores": [0, 1],
    "about": "a peer",
    "peer": ["peer.py"],
    "pairs": measured,
  }
  return {"supernet_score": entry}


def test_a_table_has_the_median_of_the_ratios_and_their_range():
  results = _results((0.4, 0.2), (0.9, 0.3), (0.5, 0.1))
  assert "| supernet scoring | 2 | **3.00** (2.00 to 5.00) |" in tables.ratios(
    results
  )
  text = tables.times(results)
  assert "| 500 (400 to 900) | 200 (100 to 300) | **3.00**" in text
  assert "commit 0123456789, against a peer; a processor, 2 cores" in text


def test_a_work_without_results_is_not_measured():
  rows = tables.ratios(_results((0.4, 0.2))).splitlines()[2:]
  assert ["not measured" in row for row in rows].count(False) == 1


def test_a_table_is_made_anew_and_nothing_around_it_changes():
  page = "before\n<!-- table: side_by_side -->\nold\n<!-- end of table -->after"
  once = tables.filled(page, _results((0.4, 0.2)))
  assert "old" not in once
  assert once.startswith("before\n<!-- table: side_by_side -->\n\n| work")
  assert once.endswith("<!-- end of table -->after")
  assert tables.filled(once, _results((0.4, 0.2))) == once


def test_a_table_that_nobody_makes_is_noticed():
  page = "<!-- table: unknown -->\n<!-- end of table -->"
  with pytest.raises(KeyError):
    tables.filled(page, {})


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_the_tables_of_the_pages_are_those_of_the_results(page):
  """`python -m benchmarks.tables` makes them so."""
  text = page.read_text(encoding="utf-8")
  assert tables.filled(text, tables.read()) == text
