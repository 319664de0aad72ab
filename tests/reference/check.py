"""One compared output, and how errors are counted."""

from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-4


class Check(NamedTuple):
  """An output of a case: its name, its error and what is allowed."""

  output: str
  error: float
  tolerance: float

  @property
  def passes(self) -> bool:
    return self.error <= self.tolerance  # False for NaN, too.


def tolerance(case: dict, output: str) -> float:
  """The case's own, for all outputs or for this one, or the usual one."""
  given = case.get("tolerance", TOLERANCE)
  return given.get(output, TOLERANCE) if isinstance(given, dict) else given


def compare(case: dict, output: str, ours, reference) -> Check:
  """Checks max |ours - reference| / max |reference|."""
  ours, reference = np.asarray(ours), np.asarray(reference)
  if ours.shape != reference.shape:
    raise ValueError(f"{output}: {ours.shape}, reference {reference.shape}")
  largest = np.max(np.abs(ours.astype(np.float64) - reference))
  error = float(largest / np.max(np.abs(reference)))
  return Check(output, error, tolerance(case, output))
