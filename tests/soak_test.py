"""A small soak; `make soak` is the long one."""

import dataclasses

import pytest

from tests import soak, soak_subjects


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
  return soak_subjects.subjects(tmp_path_factory.mktemp("soak"))


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
  subject = subjects[name]
  if subject.driver == "search_cnn":
    # Half of the compiling; the other search has a final comparison.
    flags = subject.flags | {"finalists": 0, "final_cells": 0}
    subject = dataclasses.replace(subject, flags=flags)
  assert soak.Soak(subject, tmp_path, 1).survive(kills).tried == kills
