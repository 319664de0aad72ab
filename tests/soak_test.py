"""A small soak; `make soak` is the long one."""

import dataclasses

from array_record.python import array_record_module
import jax
import jax.export
import numpy as np
import pytest

from tests import soak, soak_subjects


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
  return soak_subjects.subjects(tmp_path_factory.mktemp("soak"))


def test_features_of_an_example_have_no_order(tmp_path):
  # {"a": int64_list [1]} and {"b": int64_list [2]}, as entries of a map.
  one = b"\x0a\x0a\x0a\x01a\x12\x05\x1a\x03\x0a\x01\x01"
  two = b"\x0a\x0a\x0a\x01b\x12\x05\x1a\x03\x0a\x01\x02"
  other = two[:-1] + b"\x03"
  found = []
  for number, pair in enumerate([one + two, two + one, one + other]):
    run = tmp_path / f"{number}"
    run.mkdir()
    file = f"{run}/x.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(file, "group_size:1")
    writer.write(b"\x0a" + bytes([len(pair)]) + pair)
    writer.close()
    found.append(soak.outcome(run))
  assert found[0] == found[1] != found[2]


def test_an_exported_network_is_its_program_wherever_it_was_called(tmp_path):
  def export(name, factor):
    run = tmp_path / name
    run.mkdir()
    traced = jax.export.export(jax.jit(lambda x: x * factor))
    program = traced(jax.ShapeDtypeStruct((2,), np.float32))
    (run / "network.jax").write_bytes(program.serialize())
    return soak.outcome(run)

  one = export("one", 2)
  two = export("two", 2)  # Called from another line.
  files = [tmp_path / name / "network.jax" for name in ("one", "two")]
  assert files[0].read_bytes() != files[1].read_bytes()
  assert one == two != export("three", 3)


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
