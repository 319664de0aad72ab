"""How good a fitted controller is, in the words that all reports share.

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
  """Ranking where the controller was not fitted, reconstruction everywhere.

  Args:
    space: whose swaps to use.
    tokens: int32 [N, L], the pool.
    scores: float [N].
    decoded: int32 [N, L], what encoding and greedy decoding came to.
    predicted: float [N].
    held_out: bool [N], whose predictions come from what was not fitted to them.

  Returns:
    {name: value}; nothing about ranking if fewer than two are held out. k of
    the precision is a quarter of those.
  """
  rebuilt = metrics.reconstruction(space, tokens, decoded)
  return {
    "member_predicted": predicted,
    "member_held_out": held_out,
    "held_out": int(held_out.sum()),
    **_ranking(predicted[held_out], scores[held_out]),
    "exact_reconstruction": rebuilt.exact,
    # Swaps in training never show an architecture as it is written, so its
    # twin is as good an answer.
    "equivalent_reconstruction": rebuilt.equivalent,
    "token_accuracy": rebuilt.tokens,
  }


def _ranking(predicted: np.ndarray, scores: np.ndarray) -> dict:
  """Of what was held out; of fewer than two nothing can be said."""
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
