"""How scores are shown to people; within a search higher is better."""

from collections.abc import Callable
import math
from typing import NamedTuple


class Measure(NamedTuple):
  """What a score is for people.

  Attributes:
    name: of the number that is shown.
    show: writes it for a score.
    value: the number itself, for a score.
  """

  name: str
  show: Callable[[float], str]
  value: Callable[[float], float] = float


def _perplexity(score: float) -> str:
  # A model that diverged may have one of a hundred digits, or none at all.
  if score < -math.log(1e6):
    return "> 1e6"
  return f"{math.exp(-score):.2f}"


ACCURACY = Measure("accuracy", "{:.4f}".format)
# Scores are minus nats a word; a mean of them shows as a geometric mean.
PERPLEXITY = Measure("perplexity", _perplexity, lambda x: math.exp(-x))
SCORE = Measure("score", "{:.4g}".format)
