"""Metrics of a fitted controller, under the names that all reports use.

Shapes: N architectures in the pool, L tokens.
"""

import numpy as np

from nao_jax.controller import metrics
from nao_jax.spaces.space import Space


def inspection(
  space: Space,
  tokens: np.ndarray,
  scores: np.ndarray,
  *,
  decoded: np.ndarray,
  predicted: np.ndarray,
  held_out: np.ndarray,
) -> dict:
  """Returns the controller's metrics, and predictions for each member.

  Ranking is measured on held-out members, reconstruction on all.

  Args:
    space: space whose equivalences count.
    tokens: int32 [N, L], the pool.
    scores: float [N].
    decoded: int32 [N, L], the architectures after encoding and greedy decoding.
    predicted: float [N], predicted scores.
    held_out: bool [N], the members whose predictions come from controllers that
      were not fitted to them.

  Returns:
    {name: value}; without ranking if fewer than two members are held out. The
    k of the precision is a quarter of the held-out members.
  """
  rebuilt = metrics.reconstruction(space, tokens, decoded)
  return {
    "member_predicted": predicted,
    "member_held_out": held_out,
    "held_out": int(held_out.sum()),
    **_ranking(predicted[held_out], scores[held_out]),
    "exact_reconstruction": rebuilt.exact,
    # Training always swaps branches, so the order of an architecture's branches
    # is not learnt, and an equivalent architecture counts as well.
    "equivalent_reconstruction": rebuilt.equivalent,
    "token_accuracy": rebuilt.tokens,
  }


def _ranking(predicted: np.ndarray, scores: np.ndarray) -> dict:
  """Returns ranking metrics; {} for fewer than two architectures."""
  if len(scores) < 2:
    return {}
  order = metrics.ranking(predicted, scores)
  return {
    "pairwise_accuracy": order.pairwise,
    "kendall_tau": order.kendall,
    "spearman": order.spearman,
    "precision_at_quarter": metrics.precision_at(
      -(-len(scores) // 4), predicted, scores
    ),
  }
