"""Moves architectures along the predictor's gradient and decodes them.

Shapes: S step sizes, K seeds in descending order of their scores, T encoder
steps, H hidden units, L tokens.
"""

from collections.abc import Callable, Container
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.controller.model import Controller, Params, embed, normalise
from nao_jax.spaces.space import Space

# Width of the softplus around the limit; costs of the pool are scaled to 0..1.
SOFTNESS = 0.1


class Proposals(NamedTuple):
  """Architectures decoded from each seed at each step size.

  Attributes:
    tokens: int32 [S, K, L], all of them legal.
    before: [K], predicted scores of the seeds.
    after: [S, K], predicted scores of the points that were decoded; encoding a
      proposal need not give the same point.
  """

  tokens: jax.Array
  before: jax.Array
  after: jax.Array


class ObjectiveWeights(NamedTuple):
  """Weights of the ascent's objective under a cost constraint, for each seed.

  Attributes:
    score: float32 [K], weight of the predicted score.
    cost: float32 [K], weight of the estimated cost.
    excess: float32 [K], weight of the estimated cost beyond the limit.
    limit: float32 [K], limit in the units of the estimates.
  """

  score: jax.Array
  cost: jax.Array
  excess: jax.Array
  limit: jax.Array


class Selection(NamedTuple):
  """M proposals accepted for evaluation.

  Attributes:
    tokens: int32 [M, L].
    origins: int32 [M, 2], index of the step size and rank of the seed.
    new: int32 [S], number of proposals at each step size that could be
      accepted: all but known, repeated and disallowed ones, even those for
      which `limit` leaves no room.
  """

  tokens: np.ndarray
  origins: np.ndarray
  new: np.ndarray


def objective(
  params: Params,
  embedding: jax.Array,
  weights: ObjectiveWeights | None = None,
  *,
  controller: Controller,
) -> jax.Array:
  """Returns the ascent's objective: the predicted score minus weighted costs.

  The excess over the limit is smooth and begins before the limit, as estimates
  of costs may be wrong.

  Args:
    params: parameters of the controller.
    embedding: [K, H].
    weights: the weights; None for the score alone.
    controller: the model; it must estimate costs if weights are given.

  Returns:
    Objective of each seed, [K].
  """
  score = controller.predict(params, embedding)
  if weights is None:
    return score
  cost = controller.estimate(params, embedding)
  excess = SOFTNESS * jax.nn.softplus((cost - weights.limit) / SOFTNESS)
  return weights.score * score - weights.cost * cost - weights.excess * excess


def gradient(
  params: Params,
  outputs: jax.Array,
  weights: ObjectiveWeights | None = None,
  *,
  controller: Controller,
) -> jax.Array:
  """Returns the gradient of `objective` with respect to the encoder's outputs.

  Args:
    params: parameters of the controller.
    outputs: normalised outputs of the encoder, [K, T, H].
    weights: see `objective`.
    controller: the model.

  Returns:
    [K, T, H]; it points towards better outputs.
  """

  def total(outputs):
    embedding = embed(outputs)
    return jnp.sum(objective(params, embedding, weights, controller=controller))

  return jax.grad(total)(outputs)


def ascend(
  params: Params,
  outputs: jax.Array,
  step_sizes: jax.Array,
  weights: ObjectiveWeights | None = None,
  *,
  controller: Controller,
) -> jax.Array:
  """Takes one step uphill for every step size (paper section 3.3).

  All steps start from the same outputs.

  Args:
    params: parameters of the controller.
    outputs: normalised outputs of the encoder, [K, T, H].
    step_sizes: [S].
    weights: see `objective`.
    controller: the model.

  Returns:
    The moved outputs, [S, K, T, H], normalised again.
  """
  chex.assert_rank([outputs, step_sizes], [3, 1])
  uphill = gradient(params, outputs, weights, controller=controller)
  return normalise(outputs + step_sizes[:, None, None, None] * uphill)


@functools.partial(jax.jit, static_argnames=("controller",))
def propose(
  params: Params,
  tokens: jax.Array,
  step_sizes: jax.Array,
  weights: ObjectiveWeights | None = None,
  *,
  controller: Controller,
) -> Proposals:
  """Encodes the seeds, moves them uphill and decodes them, in one program.

  Args:
    params: parameters of the controller.
    tokens: int32 [K, L], the seeds.
    step_sizes: [S].
    weights: see `objective`.
    controller: the model.

  Returns:
    The proposals and their predicted scores.
  """
  outputs, embedding = controller.encode(params, tokens)
  moved = ascend(params, outputs, step_sizes, weights, controller=controller)
  destination = embed(moved)
  decode = functools.partial(controller.greedy_decode, params)
  return Proposals(
    tokens=jax.vmap(decode)(moved, destination),
    before=controller.predict(params, embedding),
    after=controller.predict(params, destination),
  )


def select(
  space: Space,
  proposals: np.ndarray,
  known: Container[bytes],
  limit: int,
  allows: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Selection:
  """Takes the first new proposals: small steps first, then good seeds first.

  Architectures that differ only by swaps count as the same; the official code
  compares tokens and takes both.

  Args:
    space: space whose equivalences count.
    proposals: int32 [S, K, L].
    known: `space.keys` of known architectures; a set.
    limit: the most proposals to accept.
    allows: maps int32 [n, L] to bool [n], which of them may be accepted; all by
      default.

  Returns:
    The accepted proposals in order, at most `limit`.
  """
  steps, seeds, length = proposals.shape
  rows = np.asarray(proposals).reshape(-1, length)
  first: dict[bytes, int] = {}
  for row, key in enumerate(space.keys(rows)):
    first.setdefault(key, row)
  new = np.array([x for key, x in first.items() if key not in known], np.int32)
  if allows is not None:
    new = new[allows(rows[new])]
  accepted = new[:limit]
  return Selection(
    tokens=rows[accepted],
    origins=np.stack(np.divmod(accepted, seeds), axis=-1),
    new=np.bincount(new // seeds, minlength=steps).astype(np.int32),
  )
