import json
import pathlib

import numpy as np
import pytest

from tests import reference_cases
from tests.reference import formula
from tests.reference.check import compare


@pytest.mark.parametrize("kind", reference_cases.CHECKERS)
def test_every_reference_case_is_met(kind, reference_folder):
  results = list(reference_cases.run(pathlib.Path(reference_folder), kind))
  assert results
  for name, checks in results:
    assert checks
    line = reference_cases.describe(name, checks)
    assert all(check.passes for check in checks), line


def test_an_error_is_relative_to_the_largest_reference_value():
  check = compare({}, "x", np.array([1.0, 3.9]), np.array([1.0, 4.0]))
  assert check.error == pytest.approx(0.025)
  assert not check.passes
  assert compare({"tolerance": 0.03}, "x", [3.9], [4.0]).passes
  assert compare({"tolerance": {"x": 0.03}}, "x", [3.9], [4.0]).passes
  assert not compare({"tolerance": {"y": 0.03}}, "x", [3.9], [4.0]).passes


def test_not_a_number_is_a_miss():
  assert not compare({}, "x", [np.nan], [1.0]).passes


def test_a_miss_is_named_and_fails_the_run(tmp_path, monkeypatch, capsys):
  def checks(case, arrays):
    yield compare(case, "good", arrays["good"], arrays["good"])
    yield compare(case, "bad", arrays["good"], arrays["bad"])

  monkeypatch.setitem(reference_cases.CHECKERS, "demo", checks)
  arrays = {"d1_good": np.ones(2), "d1_bad": np.full(2, 2.0)}
  np.savez(tmp_path / "demo.npz", **arrays)
  (tmp_path / "demo.json").write_text(json.dumps([{"case": "d1"}]))
  (tmp_path / "other.json").write_text("[]")
  assert reference_cases.main([str(tmp_path)]) == 3
  assert capsys.readouterr().out.splitlines() == [
    "demo/d1  largest error 5.0e-01  (tolerance 1e-04)  MISSED: bad",
    "other: no checker in this version, skipped",
  ]
  np.savez(tmp_path / "demo.npz", **arrays | {"d1_bad": np.ones(2)})
  assert reference_cases.main([str(tmp_path)]) == 0


def test_a_folder_without_known_cases_is_no_success(tmp_path: pathlib.Path):
  assert reference_cases.main([str(tmp_path)]) == 2


def test_a_weight_follows_from_its_shape():
  weight = formula.weight((3, 2))
  expected = [
    np.sqrt(3 / 2) * np.cos(0.61803398875 * k + 6) for k in range(1, 7)
  ]
  np.testing.assert_allclose(weight.ravel(), expected, rtol=1e-6)
