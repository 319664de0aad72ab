"""Comparison of searched with random cells, paired by seed.

Shapes: S searches that differ only in the seed.
"""

from collections.abc import Callable, Sequence
import math
from typing import NamedTuple

import numpy as np

from nao_jax.evaluators.table import Table

GROUPS = ("searched", "random")


class Pair(NamedTuple):
  """A figure of searched cells and of random ones.

  Attributes:
    what: name of the figure.
    searched: float64 [S]; NaN where there is no finite measurement.
    random: float64 [S]; NaN where there is no finite measurement.
  """

  what: str
  searched: np.ndarray
  random: np.ndarray


def pairs(
  found: Sequence[dict], measure: str, truth: Table | None = None
) -> list[Pair]:
  """Returns the measurements of finalists and of cells in the comparison.

  Args:
    found: contents of best.json of each search.
    measure: `accuracy` or `perplexity`.
    truth: true scores of all architectures, if they are known.

  Returns:
    For the trained finalists, if there are any, the first and the mean on the
    validation part; for the comparison the first cell and the mean on the test
    part. The value of a cell is the mean of its trainings. True scores are
    those of the finalists.
  """
  rows = []
  if all(best.get("finalists") for best in found):
    name = f"validation_{measure}"
    finalists = _by_group(
      found, lambda best: best["finalists"], lambda entry: entry[name]
    )
    rows += _first_and_mean(f"finalists, validation {measure}", finalists)
    if truth is not None:
      finalists = _by_group(
        found,
        lambda best: best["finalists"],
        lambda entry: float(truth.lookup(np.array(entry["tokens"]))),
      )
      rows += _first_and_mean("finalists, true score", finalists)
  compared = _by_group(found, lambda best: best[f"test_{measure}"], _mean)
  return rows + _first_and_mean(f"comparison, test {measure}", compared)


def row(pair: Pair) -> dict[str, str]:
  """Describes a pair, without searches that have no finite figure."""
  sound = np.isfinite(pair.searched) & np.isfinite(pair.random)
  searched, random = pair.searched[sound], pair.random[sound]
  # Equal values may differ by rounding if they were summed in another order.
  difference = np.round(searched - random, 9)
  higher = f"{np.sum(difference > 0)} of {len(difference)}"
  if ties := np.sum(difference == 0):
    higher += f", equal {ties}"
  return {
    "what": pair.what,
    "searched, mean (standard error)": _shown(searched),
    "random cells": _shown(random),
    "difference, paired by seed": _shown(difference),
    "searched is higher": higher,
  }


def _by_group(
  found: Sequence[dict],
  groups_of: Callable[[dict], dict],
  value: Callable[..., float | None],
) -> list[list[list[float]]]:
  """Returns a figure of each cell, [group][search][cell]; NaN for None."""
  return [
    [
      [math.nan if (x := value(cell)) is None else x for cell in cells[group]]
      for cells in map(groups_of, found)
    ]
    for group in GROUPS
  ]


def _first_and_mean(what: str, values: list[list[list[float]]]) -> list[Pair]:
  first = [[cells[0] if cells else math.nan for cells in x] for x in values]
  mean = [list(map(_mean, group)) for group in values]
  return [
    Pair(f"{what}: {name}", *map(np.array, both))
    for name, both in (("the first", first), ("mean", mean))
  ]


def _mean(values: Sequence[float | None]) -> float:
  """Returns the mean of the finite numbers; NaN without one."""
  sound = [x for x in values if x is not None and math.isfinite(x)]
  return float(np.mean(sound)) if sound else math.nan


def _shown(values: np.ndarray) -> str:
  if not len(values):
    return "none"
  if len(values) == 1:
    return f"{values[0]:.4f}"
  error = values.std(ddof=1) / len(values) ** 0.5
  return f"{values.mean():.4f} ({error:.4f})"
