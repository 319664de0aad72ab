"""Formatting of numbers, times and the names of scores in reports."""

import numpy as np

from nao_jax.report.run import Run
from nao_jax.runs.progress import clock

NONE = "\N{EN DASH}"
PLOTTED = 8  # The most rounds that a plot with one part a round shows.
LISTED = 24  # The most rounds that a table shows.
_IN_WORDS = {"shared": "with shared weights", "scratch": "from scratch"}


def number(value: float | None, spec: str = ".3f") -> str:
  """Formats a number by a format specification, or a dash without one."""
  if value is None or not np.isfinite(value):
    return NONE
  return format(value, spec)


def mean(values: np.ndarray, spec: str = ".3f") -> str:
  """Formats the mean of the finite values."""
  values = values[np.isfinite(values)]
  return number(values.mean() if len(values) else None, spec)


def duration(seconds: float | None) -> str:
  """Formats a time as hours, minutes and seconds."""
  return NONE if seconds is None else clock(seconds)


def score(run: Run, value: float | None) -> str:
  """Formats a score in the metric of the search."""
  missing = value is None or not np.isfinite(value)
  return NONE if missing else run.cells.measure.show(value)


def measurement(run: Run, value: float, sign: str = "") -> str:
  """Formats a measurement, or a difference, of trainings from scratch."""
  return number(value, f"{sign}.{run.cells.measure.digits}f")


def spread_out(items: list, count: int) -> list:
  """Picks at most `count` evenly spaced items, with the first and the last."""
  if len(items) <= count:
    return items
  indices = np.linspace(0, len(items) - 1, count).round().astype(int)
  return [items[index] for index in indices]


def evaluator_in_words(run: Run) -> str:
  """Returns how the scores were obtained, in words."""
  evaluator = str(run.settings["evaluator"])
  return _IN_WORDS.get(evaluator, evaluator)


def score_name(run: Run) -> str:
  """Returns the full name of a score."""
  return f"validation {run.cells.measure.name} {evaluator_in_words(run)}"
