import sqlite3

import pytest

from nao_jax.errors import UserError
from nao_jax.runs.trials import Trial, Trials, digest

PROTOCOL = {"epochs": 3, "dataset": "digits", "mean": [0.5]}


@pytest.fixture
def file(tmp_path):
  return tmp_path / "folder" / "trials.sqlite"


def test_what_was_added_is_found_again(file):
  trial = Trial(0.75, (0.5, 0.75))
  Trials(file, "a", PROTOCOL).add([1, 2, 3], trial)
  again = Trials(file, "a", dict(reversed(PROTOCOL.items())))
  assert again.get([1, 2, 3]) == trial
  assert again.get([1, 2, 4]) is None


def test_another_space_or_protocol_is_another_trial(file):
  Trials(file, "a", PROTOCOL).add([1], Trial(0.5, (0.5,)))
  assert Trials(file, "b", PROTOCOL).get([1]) is None
  assert Trials(file, "a", PROTOCOL | {"epochs": 4}).get([1]) is None


def test_the_first_of_two_equal_trials_stays(file):
  trials = Trials(file, "a", PROTOCOL)
  trials.add([1], Trial(0.5, (0.5,)))
  trials.add([1], Trial(0.6, (0.6,)))
  assert trials.get([1]).score == 0.5


def test_a_failed_trial_is_marked(file):
  trials = Trials(file, "a", PROTOCOL)
  trials.add([1], Trial(None, (0.1,)))
  assert trials.get([1]) == Trial(None, (0.1,))
  rows = sqlite3.connect(file).execute("select score, failed from trials")
  assert rows.fetchall() == [(None, 1)]


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
  file = tmp_path / "notes.txt"
  file.write_text("precious " * 200)
  with pytest.raises(UserError, match=r"--trials=.*notes.txt: not a file of"):
    Trials(file, "a", PROTOCOL)
  assert file.read_text().startswith("precious")


def test_a_digest_tells_values_apart_but_not_orders():
  assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
  assert digest({"a": 1}) != digest({"a": 1.5})
