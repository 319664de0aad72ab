"""Strategies: a scored pool in, proposals out."""

from typing import NamedTuple

import numpy as np


class Proposal(NamedTuple):
  """New architectures and where they come from; M of them.

  Attributes:
    tokens: int32 [M, L].
    parents: int32 [M], which of the given members they were made from; -1
      for none.
    step_sizes: float32 [M], along the predictor's gradient; 0 for none.
    report: what the strategy decided, for people: {name: value}.
  """

  tokens: np.ndarray
  parents: np.ndarray
  step_sizes: np.ndarray
  report: dict
