"""Metrics in which scores are shown; within a search higher is better."""

from collections.abc import Callable
import math
from typing import NamedTuple


class Measure(NamedTuple):
  """Metric in which scores are shown.

  Attributes:
    name: name of the metric.
    show: writes the metric of a score as text.
    value: converts a score to the metric.
    tick: writes the metric of a score as text, for the axis of a plot.
    unit: unit of differences of scores.
    digits: number of digits of a value after the point, in tables.
    higher_is_better: whether a higher value is better; a higher score is.
  """

  name: str
  show: Callable[[float], str]
  value: Callable[[float], float] = float
  tick: Callable[[float], str] = "{:.3g}".format
  unit: str = "score"
  digits: int = 4
  higher_is_better: bool = True


def _perplexity(score: float) -> str:
  # The perplexity of a diverged model may have a hundred digits, or overflow.
  if score < -math.log(1e6):
    return "> 1e6"
  return f"{math.exp(-score):.2f}"


ACCURACY = Measure("accuracy", "{:.4f}".format, unit="accuracy")
# Scores are minus nats per word, so their mean shows as a geometric mean.
PERPLEXITY = Measure(
  "perplexity",
  _perplexity,
  value=lambda score: math.exp(-score),
  tick=_perplexity,
  unit="nats a word",
  digits=2,
  higher_is_better=False,
)
SCORE = Measure("score", "{:.4g}".format)
