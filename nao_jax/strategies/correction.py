"""Correction of an ensemble's predictions by free signals.

Each architecture of the pool is held out of one controller, which predicts it
without having seen its score. A regression of the scores' ranks on these
predictions and on the proxies tells how much each proxy adds to what the
controllers have learnt.

Shapes: N architectures in the pool, M others, L tokens, E controllers,
P proxies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from nao_jax.spaces.space import Space
from nao_jax.strategies.proxies import Proxy


class Correction(NamedTuple):
  """Weights of the predictions and of the proxies.

  Attributes:
    space: the search space.
    proxies: the signals.
    known: each proxy's values of the pool, sorted, float64 [P, N].
    weights: float64 [1 + P], of the predictions and of each proxy's quantile
      in the pool; none below 0.
  """

  space: Space
  proxies: Sequence[Proxy]
  known: np.ndarray
  weights: np.ndarray

  def __call__(self, predicted: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Corrects predictions [M, E] of architectures int32 [M, L]."""
    own, *others = self.weights
    added = quantiles(values(self.space, self.proxies, tokens), self.known)
    return np.float32(own * predicted + (others @ added)[:, None])

  @property
  def described(self) -> dict:
    """The weights, JSON-like."""
    own, *others = self.weights.tolist()
    names = [proxy.name for proxy in self.proxies]
    return {
      "predictions": own,
      "proxies": dict(zip(names, others, strict=True)),
    }


def fit(
  space: Space,
  proxies: Sequence[Proxy],
  tokens: np.ndarray,
  predicted: np.ndarray,
  targets: np.ndarray,
) -> Correction:
  """Fits the weights by ridge regression, without negative weights.

  Without evidence the predictions have weight 1 and the proxies 0.

  Args:
    space: the search space.
    proxies: the signals.
    tokens: int32 [N, L], the pool.
    predicted: [N], predictions of controllers that have not seen the score.
    targets: [N], ranks of the scores between 0 and 1.
  """
  found = values(space, proxies, tokens)
  known = np.sort(found, axis=1)
  columns = np.stack([predicted, *quantiles(found, known)], axis=1)
  # The intercept, which no order depends on, is not shrunk. One observation
  # weighs as much as the belief that the proxies add nothing.
  belief = np.eye(columns.shape[1])
  weights, _ = scipy.optimize.nnls(
    np.concatenate([columns - columns.mean(0), belief]),
    np.concatenate([targets - targets.mean(), belief[0]]),
  )
  return Correction(space, proxies, known, weights)


def values(
  space: Space, proxies: Sequence[Proxy], tokens: np.ndarray
) -> np.ndarray:
  """Returns the proxies of architectures int32 [M, L], float64 [P, M]."""
  return np.stack([proxy.values(space, tokens) for proxy in proxies])


def quantiles(found: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Returns the shares of known values [P, N] below values [P, M], [P, M].

  Equal values count half.
  """
  rows = zip(found, known, strict=True)
  counts = [
    sum(np.searchsorted(row, own, side) for side in ("left", "right"))
    for own, row in rows
  ]
  return np.array(counts) / (2 * known.shape[1])
