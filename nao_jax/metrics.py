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
  """

  name: str
  show: Callable[[float], str]
  value: Callable[[float], float] = float


def _perplexity(score: float) -> str:
  # The perplexity of a diverged model may have a hundred digits, or overflow.
  if score < -math.log(1e6):
    return "> 1e6"
  return f"{math.exp(-score):.2f}"


ACCURACY = Measure("accuracy", "{:.4f}".format)
# Scores are minus nats per word, so their mean shows as a geometric mean.
PERPLEXITY = Measure("perplexity", _perplexity, lambda x: math.exp(-x))
SCORE = Measure("score", "{:.4g}".format)
