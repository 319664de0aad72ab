"""Metrics of a controller: ranking and reconstruction.

Shapes: N architectures, L tokens, H hidden units.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import numpy as np
import scipy

from nao_jax.controller.blocks import by_blocks
from nao_jax.controller.model import Controller, Params
from nao_jax.spaces.space import Space


class Ranking(NamedTuple):
  """Agreement of predictions and scores in the order of architectures.

  Attributes:
    pairwise: share of pairs in the right order, see `pairwise_accuracy`.
    kendall: Kendall's tau-b.
    spearman: Spearman's rho, the correlation of the ranks.
  """

  pairwise: float
  kendall: float
  spearman: float


class Reconstruction(NamedTuple):
  """Agreement of architectures with their encoded and decoded versions.

  Attributes:
    exact: share of architectures that agree in all tokens.
    equivalent: share of architectures that have the same function.
    tokens: share of tokens that agree.
  """

  exact: float
  equivalent: float
  tokens: float


def ranking(predictions: np.ndarray, scores: np.ndarray) -> Ranking:
  """Compares predictions [N] with true scores [N], both finite."""
  return Ranking(
    pairwise=pairwise_accuracy(predictions, scores),
    kendall=kendall_tau(predictions, scores),
    spearman=spearman_rho(predictions, scores),
  )


def pairwise_accuracy(predictions: np.ndarray, scores: np.ndarray) -> float:
  """Returns the share of pairs that the predictions put in the right order.

  A pair that ties in the predictions, in the scores or in both counts half, so
  guessing gives 0.5 regardless of ties, and so do constant predictions and
  fewer than two architectures. (With ties the official definition depends on
  the order of the architectures.) It takes O(N log N) time.

  Args:
    predictions: [N].
    scores: [N].

  Returns:
    A number between 0 and 1.
  """
  pairs = len(scores) * (len(scores) - 1) / 2
  untied = [pairs - _tied_pairs(x) for x in (predictions, scores)]
  # tau-b is (right - wrong) / sqrt(untied * untied).
  surplus = kendall_tau(predictions, scores) * np.sqrt(np.prod(untied))
  return float(0.5 + 0.5 * surplus / max(pairs, 1))


def _tied_pairs(values: np.ndarray) -> int:
  _, counts = np.unique(values, return_counts=True)
  return int(np.sum(counts * (counts - 1)) // 2)


def kendall_tau(predictions: np.ndarray, scores: np.ndarray) -> float:
  """Returns Kendall's tau-b; 0 if one argument is constant."""
  if _constant(predictions) or _constant(scores):
    return 0.0
  return float(scipy.stats.kendalltau(predictions, scores).statistic)


def spearman_rho(predictions: np.ndarray, scores: np.ndarray) -> float:
  """Returns Spearman's rho; 0 if one argument is constant."""
  if _constant(predictions) or _constant(scores):
    return 0.0
  ranks = scipy.stats.rankdata(predictions), scipy.stats.rankdata(scores)
  return float(np.corrcoef(*ranks)[0, 1])


def _constant(values: np.ndarray) -> bool:
  return len(np.unique(values)) < 2


@functools.partial(jax.jit, static_argnames=("controller",))
def reconstruct(
  params: Params, tokens: jax.Array, *, controller: Controller
) -> jax.Array:
  """Encodes tokens [N, L] and decodes the encodings greedily, [N, L]."""

  def block(tokens):
    outputs, embedding = controller.encode(params, tokens)
    return controller.greedy_decode(params, outputs, embedding)

  return by_blocks(block, tokens)


@functools.partial(jax.jit, static_argnames=("controller",))
def predict(
  params: Params, tokens: jax.Array, *, controller: Controller
) -> tuple[jax.Array, jax.Array]:
  """Returns predicted scores [N] and embeddings [N, H] of tokens [N, L]."""

  def block(tokens):
    _, embedding = controller.encode(params, tokens)
    return controller.predict(params, embedding), embedding

  return by_blocks(block, tokens)


def reconstruction(
  space: Space, tokens: np.ndarray, decoded: np.ndarray
) -> Reconstruction:
  """Compares architectures with their encoded and decoded versions.

  Args:
    space: space whose equivalences count.
    tokens: int32 [N, L], N at least 1.
    decoded: int32 [N, L].

  Returns:
    Shares between 0 and 1; L * (1 - tokens) is the mean Hamming distance.
  """
  tokens, decoded = np.asarray(tokens), np.asarray(decoded)
  same = tokens == decoded
  equivalent = space.canonical(tokens) == space.canonical(decoded)
  return Reconstruction(
    exact=float(same.all(axis=-1).mean()),
    equivalent=float(equivalent.all(axis=-1).mean()),
    tokens=float(same.mean()),
  )


def precision_at(k: int, predictions: np.ndarray, scores: np.ndarray) -> float:
  """Returns the share of the k best by prediction that are among the k best.

  Args:
    k: at least 1; with fewer than k architectures, their number is used.
    predictions: [N].
    scores: [N]; scores that tie with the k-th best are among the best.
  """
  k = min(k, len(scores))
  chosen = np.argsort(-predictions, kind="stable")[:k]
  return float(np.mean(scores[chosen] >= np.sort(scores)[-k]))


def interval(
  measure: Callable[[np.ndarray, np.ndarray], float],
  predictions: np.ndarray,
  scores: np.ndarray,
  rng: np.random.Generator,
  draws: int = 500,
) -> tuple[float, float]:
  """Returns a 95 % confidence interval by bootstrap over architectures.

  Args:
    measure: the metric, a function of predictions and scores, [N] each.
    predictions: [N].
    scores: [N].
    rng: draws architectures with replacement.
    draws: number of bootstrap samples.

  Returns:
    The lower and the upper end.
  """
  rows = rng.integers(0, len(scores), (draws, len(scores)))
  values = [measure(predictions[row], scores[row]) for row in rows]
  low, high = np.quantile(values, [0.025, 0.975])
  return float(low), float(high)
