"""The versions that are tested are versions that are allowed."""

import configparser
import pathlib

from packaging.requirements import Requirement
from packaging.version import Version

from tests.lowest import lowest

ROOT = pathlib.Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


def _allowed():
  """{name: which versions setup.cfg allows}."""
  parser = configparser.ConfigParser()
  parser.read(ROOT / "setup.cfg")
  groups = [parser["options"]["install_requires"]]
  groups += dict(parser["options.extras_require"]).values()
  found = [Requirement(line) for line in "\n".join(groups).split("\n") if line]
  return {x.name.lower(): x.specifier for x in found}


def _pins(python):
  """{name: version} of what requirements.txt installs for a Python."""
  lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
  found = [Requirement(line) for line in lines if line and line[0] != "#"]
  return {
    x.name.lower(): str(x.specifier).removeprefix("==")
    for x in found
    if x.marker is None or x.marker.evaluate({"python_version": python})
  }


def test_every_pin_is_allowed():
  allowed = _allowed()
  refused = {
    (python, name): version
    for python in PYTHONS
    for name, version in _pins(python).items()
    if name in allowed and version not in allowed[name]
  }
  assert not refused


def test_every_python_gets_the_same_packages():
  assert len({frozenset(_pins(python)) for python in PYTHONS}) == 1


def test_the_lowest_versions_are_allowed_and_not_above_the_pins():
  allowed = _allowed()
  pins = _pins("3.11")
  for line in lowest((ROOT / "setup.cfg").read_text(encoding="utf-8")):
    name, version = line.lower().split("==")
    assert version in allowed[name], line
    assert Version(version) <= Version(pins[name]), line


def test_the_lowest_versions_leave_out_what_tests_do_not_need():
  config = """
[options]
install_requires =
  one>=1.2,<2
[options.extras_require]
# A comment.
more =
  two-b==0.3.1
lint =
  three>=3
docs =
  four[some]>=4
"""
  assert lowest(config) == ["one==1.2", "two-b==0.3.1"]
