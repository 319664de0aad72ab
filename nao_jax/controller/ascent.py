"""Moving architectures uphill: the gradient of the predictor, and decoding.

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

# How far from the limit an excess begins to count; the costs of a pool are from
# 0 to 1.
MARGIN = 0.1


class Proposals(NamedTuple):
  """What each seed becomes at each step size.

  Attributes:
    tokens: int32 [S, K, L], all of them architectures.
    before: [K], the predicted score of the seeds.
    after: [S, K], the predicted score of the points that were decoded; a
      proposal need not encode to that point again.
  """

  tokens: jax.Array
  before: jax.Array
  after: jax.Array


class Aim(NamedTuple):
  """What the ascent follows where costs count; for each seed.

  Attributes:
    score: float32 [K], weight of the predicted score.
    cost: float32 [K], weight of the estimated cost.
    excess: float32 [K], weight of what is estimated beyond the limit.
    limit: float32 [K], in the units of the estimates.
  """

  score: jax.Array
  cost: jax.Array
  excess: jax.Array
  limit: jax.Array


class Selection(NamedTuple):
  """The proposals that are worth an evaluation; M of them.

  Attributes:
    tokens: int32 [M, L].
    origins: int32 [M, 2], index of the step size and rank of the seed.
    new: int32 [S], for each step size how many of its K proposals were new,
      accepted or beyond the limit.
  """

  tokens: np.ndarray
  origins: np.ndarray
  new: np.ndarray


def worth(
  params: Params,
  embedding: jax.Array,
  aim: Aim | None = None,
  *,
  controller: Controller,
) -> jax.Array:
  """What the ascent follows: the predicted score, less what costs are worth.

  The excess over the limit is smooth: it begins before the limit, where an
  estimate may be wrong.

  Args:
    params: the controller's.
    embedding: [K, H].
    aim: the weights; None for the score alone.
    controller: the model; with an aim it estimates costs.

  Returns:
    [K].
  """
  score = controller.predict(params, embedding)
  if aim is None:
    return score
  cost = controller.estimate(params, embedding)
  excess = MARGIN * jax.nn.softplus((cost - aim.limit) / MARGIN)
  return aim.score * score - aim.cost * cost - aim.excess * excess


def gradient(
  params: Params,
  outputs: jax.Array,
  aim: Aim | None = None,
  *,
  controller: Controller,
) -> jax.Array:
  """The gradient of `worth` with respect to the encoder's outputs.

  Args:
    params: the controller's.
    outputs: the encoder's, normalised, [K, T, H]; the gradient stops here.
    aim: see `worth`.
    controller: the model.

  Returns:
    [K, T, H]; upward is better.
  """

  def total(outputs):
    embedding = embed(outputs)
    return jnp.sum(worth(params, embedding, aim, controller=controller))

  return jax.grad(total)(outputs)


def ascend(
  params: Params,
  outputs: jax.Array,
  step_sizes: jax.Array,
  aim: Aim | None = None,
  *,
  controller: Controller,
) -> jax.Array:
  """One step up from the same start for every step size (paper section 3.3).

  Args:
    params: the controller's.
    outputs: the encoder's, normalised, [K, T, H].
    step_sizes: [S].
    aim: see `worth`.
    controller: the model.

  Returns:
    [S, K, T, H], normalised again.
  """
  chex.assert_rank([outputs, step_sizes], [3, 1])
  uphill = gradient(params, outputs, aim, controller=controller)
  return normalise(outputs + step_sizes[:, None, None, None] * uphill)


@functools.partial(jax.jit, static_argnames=("controller",))
def propose(
  params: Params,
  tokens: jax.Array,
  step_sizes: jax.Array,
  aim: Aim | None = None,
  *,
  controller: Controller,
) -> Proposals:
  """Encodes the seeds, moves them uphill and decodes, all in one program.

  Args:
    params: the controller's.
    tokens: int32 [K, L], the seeds.
    step_sizes: [S].
    aim: see `worth`.
    controller: the model.

  Returns:
    The proposals and their predicted scores.
  """
  outputs, embedding = controller.encode(params, tokens)
  moved = ascend(params, outputs, step_sizes, aim, controller=controller)
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
  """Takes the first new proposals: small steps first, good seeds first.

  Two architectures that differ by swaps are the same here; the official code
  compares tokens and takes both.

  Args:
    space: whose swaps to use.
    proposals: int32 [S, K, L].
    known: `space.keys` of what is not new; a set.
    limit: how many to accept at most.
    allows: says which of int32 [n, L] may be accepted, bool [n]; all may by
      default.

  Returns:
    The accepted ones in order; maybe fewer than the limit.
  """
  steps, seeds, length = proposals.shape
  rows = np.asarray(proposals).reshape(-1, length)
  seen, new = set(), []
  for row, key in enumerate(space.keys(rows)):
    if key not in known and key not in seen:
      seen.add(key)
      new.append(row)
  new = np.array(new, np.int32)
  if allows is not None:
    new = new[allows(rows[new])]
  accepted = new[:limit]
  return Selection(
    tokens=rows[accepted],
    origins=np.stack(np.divmod(accepted, seeds), axis=-1),
    new=np.bincount(new // seeds, minlength=steps).astype(np.int32),
  )
