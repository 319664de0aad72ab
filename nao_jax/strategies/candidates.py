"""Candidates of a search and the choice among them.

Shapes: L tokens, E controllers, M candidates.
"""

from typing import NamedTuple

import jax
import numpy as np

from nao_jax.objectives import pick
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations


class Predicted(NamedTuple):
  """Candidates that a pass found, with their predicted scores.

  Attributes:
    tokens: int32 [M, L].
    predicted: [M, E], each controller's prediction after encoding them again.
    parents: int32 [M], the row of the pool from which the first pass started.
    step_sizes: float32 [M], the step of the last pass.
  """

  tokens: np.ndarray
  predicted: np.ndarray
  parents: np.ndarray
  step_sizes: np.ndarray


def choose(
  candidates: Predicted,
  observed: Observations,
  rng: np.random.Generator,
  limit: int,
  exploration: float = 0.0,
) -> Predicted:
  """Returns the best candidates; in a multi-objective search, a front's.

  Args:
    candidates: the candidates.
    observed: the observations of the search.
    rng: generator on the host; only a multi-objective search draws from it.
    limit: the most candidates to return.
    exploration: standard deviations of the controllers' predictions that are
      added to their mean.
  """
  predicted = candidates.predicted
  promise = predicted.mean(1) + np.float32(exploration) * predicted.std(1)
  rows = np.argsort(-promise, kind="stable")[:limit]
  if observed.constraint is not None and observed.constraint.multi_objective:
    costs = observed.constraint.scaled(candidates.tokens, observed.tokens)
    rows = np.asarray(pick(promise, costs, rng.uniform(size=limit)), np.int64)
  return jax.tree.map(lambda column: column[rows], candidates)


def first_new(
  space: Space, tokens: np.ndarray, known: set[bytes]
) -> np.ndarray:
  """Returns the rows that are not known, and adds them to `known`."""
  rows = []
  for row, name in enumerate(space.keys(tokens)):
    if name not in known:
      known.add(name)
      rows.append(row)
  return np.array(rows, np.int64)
