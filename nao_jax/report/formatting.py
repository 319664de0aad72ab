"""How reports say things: numbers, times, and what a score is."""

import numpy as np

from nao_jax.report.run import Run
from nao_jax.runs.progress import clock

NONE = "\N{EN DASH}"
# Rounds that a plot with one part for each has room for, and a table.
PLOTTED, LISTED = 8, 24
_HOW = {"shared": "with shared weights", "scratch": "from scratch"}


def number(value: float | None, form: str = "{:.3f}") -> str:
  """A number, or a dash where there is none."""
  if value is None or not np.isfinite(value):
    return NONE
  return form.format(value)


def mean(values: np.ndarray, form: str = "{:.3f}") -> str:
  """The mean of what is finite."""
  values = values[np.isfinite(values)]
  return number(values.mean() if len(values) else None, form)


def duration(seconds: float | None) -> str:
  """Hours, minutes and seconds."""
  if seconds is None:
    return NONE
  return clock(seconds)


def spread_out(items: list, count: int) -> list:
  """At most `count` of them, evenly, the first and the last among them."""
  if len(items) <= count:
    return items
  at = np.linspace(0, len(items) - 1, count).round().astype(int)
  return [items[place] for place in at]


def how(run: Run) -> str:
  """Where scores come from."""
  return _HOW.get(run.settings["evaluator"], str(run.settings["evaluator"]))


def score_name(run: Run) -> str:
  """What a score is."""
  return f"validation {run.kind.measure.name} {how(run)}"


def score_axis(run: Run) -> str:
  """The same, shorter."""
  return f"{run.kind.measure.name}, {how(run).removeprefix('with ')}"


def compared_name(run: Run) -> str:
  """What trainings from scratch measure."""
  return run.kind.compared.replace("_", " ")


def compared_number(run: Run, value: float | None, sign: str = "") -> str:
  """What a training from scratch measured."""
  digits = 4 if run.kind.higher_is_better else 2
  return number(value, f"{{:{sign}.{digits}f}}")
