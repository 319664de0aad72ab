"""Compares this implementation with reference numbers, case by case.

  python -m tests.reference_cases DIR

DIR holds pairs NAME.json (a list of cases) and NAME.npz (their arrays, named
CASE_OUTPUT); NAME begins with the kind of the cases. Prints one line a case,
and exits with 1 if an output misses its tolerance and with 2 if there was
nothing to check.
"""

from collections.abc import Iterator
import json
import pathlib
import sys

import numpy as np

from tests.reference import controller, networks, rnn, supernet
from tests.reference.check import Check

CHECKERS = {
  "controller": controller.checks,
  "networks": networks.checks,
  "rnn": rnn.checks,
  "supernet": supernet.checks,
}


def run(
  folder: pathlib.Path, kind: str = ""
) -> Iterator[tuple[str, list[Check]]]:
  """Yields the name and the checks of each case; none: its kind is unknown.

  Args:
    folder: of the cases.
    kind: only of this kind, if given.
  """
  for path in sorted(folder.glob(f"{kind}*.json")):
    checker = _checker(path.stem)
    if checker is None:
      yield path.stem, []
      continue
    cases = json.loads(path.read_text(encoding="utf-8"))
    arrays = dict(np.load(path.with_suffix(".npz")))
    for case in cases:
      name = f"{path.stem}/{case['case']}"
      own = _arrays_of(case["case"], arrays)
      yield name, list(checker(case, own))


def _checker(stem: str):
  kinds = (kind for kind in CHECKERS if stem.startswith(kind))
  return CHECKERS.get(next(kinds, None))


def _arrays_of(case: str, arrays: dict) -> dict[str, np.ndarray]:
  prefix = f"{case}_"
  return {
    name.removeprefix(prefix): array
    for name, array in arrays.items()
    if name.startswith(prefix)
  }


def describe(name: str, checks: list[Check]) -> str:
  """The line of one case; it shows the output closest to its tolerance."""
  if not checks:
    return f"{name}: no checker in this version, skipped"
  worst = max(checks, key=_badness)
  missed = [check.output for check in checks if not check.passes]
  verdict = f"MISSED: {', '.join(missed)}" if missed else "ok"
  return (
    f"{name}  largest error {worst.error:.1e}"
    f"  (tolerance {worst.tolerance:.0e})  {verdict}"
  )


def _badness(check: Check) -> float:
  return np.nan_to_num(check.error / check.tolerance, nan=np.inf)


def main(arguments: list[str]) -> int:
  """Prints a line a case; returns 0, 2 without a case, 3 after a miss."""
  if len(arguments) != 1 or not pathlib.Path(arguments[0]).is_dir():
    print("usage: python -m tests.reference_cases DIR", file=sys.stderr)
    return 2
  checked, missed = 0, 0
  for name, checks in run(pathlib.Path(arguments[0])):
    print(describe(name, checks), flush=True)
    checked += bool(checks)
    missed += any(not check.passes for check in checks)
  if not checked:
    print(f"{arguments[0]}: no case to check", file=sys.stderr)
    return 2
  return 3 if missed else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
