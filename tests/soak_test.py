"""A small soak; `make soak` is the long one."""

import pytest

from tests import soak


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
  return soak.subjects(tmp_path_factory.mktemp("soak"))


@pytest.mark.parametrize(
  ("name", "kills"),
  [
    ("search_cnn, shared", 2),
    ("search_rnn, shared", 2),
    ("train_cnn", 2),
    ("train_rnn", 1),
  ],
)
def test_a_killed_run_comes_to_what_one_comes_to_that_was_not(
  subjects, name, kills, tmp_path
):
  survived = soak.survive(subjects[name], tmp_path, kills, seed=1)
  assert survived.tried == kills
