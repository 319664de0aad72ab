"""Fits the controller: joint loss, augmentation, one scan over all epochs.

Shapes: N architectures, B architectures in a batch, L tokens, E epochs.
"""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from nao_jax.controller.model import Controller, Params
from nao_jax.settings import field
from nao_jax.spaces.space import Space


@dataclasses.dataclass(frozen=True)
class FitConfig:
  """Settings of a fit; by default those of the official weight-sharing code.

  Attributes:
    epochs: number of passes over the data in one call of `fit`.
    batch: B, number of architectures in a step.
    learning_rate: learning rate of Adam.
    trade_off: the weight of the squared error; the cross-entropy has the rest.
    weight_decay: coupled L2, added to the gradients before Adam scales them.
    clip: the largest global norm of the gradients.
    swap: replace every architecture by a random equivalent one.
  """

  epochs: int = field(1000, least=1)
  batch: int = field(100, least=1)
  learning_rate: float = field(1e-3, above=0)
  trade_off: float = field(0.8, least=0, most=1)
  weight_decay: float = field(1e-4, least=0)
  clip: float = field(5.0, above=0)
  swap: bool = True


class FitState(NamedTuple):
  """State that one call of `fit` hands to the next.

  Attributes:
    params: parameters of the controller.
    optimiser: Adam's moments.
    epoch: int32 [], number of epochs so far; each has its own randomness.
  """

  params: Params
  optimiser: optax.OptState
  epoch: jax.Array


class Examples(NamedTuple):
  """N architectures to fit a controller to.

  Attributes:
    tokens: int32 [N, L].
    targets: float32 [N] in [0, 1], higher is better; see `normalise_targets`.
    costs: float32 [N], scaled, for a controller that estimates costs.
    trains: bool [N], architectures to learn from, at least one; all by default.
      The others are not used at all. The number of architectures to learn from
      does not change the program.
  """

  tokens: jax.Array
  targets: jax.Array
  costs: jax.Array | None = None
  trains: jax.Array | None = None


class Batch(NamedTuple):
  """B architectures of one training step.

  Attributes:
    tokens: int32 [B, L].
    targets: [B], scores to predict.
    weights: [B]; the losses are means with these weights.
    costs: [B], targets of the second predictor, if there is one; its squared
      error is added to that of the scores with the same weight.
    scored: [B], separate weights for the squared error, 0 for architectures
      without a score; `weights` by default.
  """

  tokens: jax.Array
  targets: jax.Array
  weights: jax.Array
  costs: jax.Array | None = None
  scored: jax.Array | None = None


class Losses(NamedTuple):
  """Mean losses over architectures, all of the same shape.

  Attributes:
    total: trade_off * mse + (1 - trade_off) * cross_entropy.
    mse: squared error of the prediction.
    cross_entropy: cross-entropy of the reconstruction, in nats per token.
  """

  total: jax.Array
  mse: jax.Array
  cross_entropy: jax.Array


def start(params: Params, config: FitConfig) -> FitState:
  """Returns the state before the first epoch.

  The parameters may come from an earlier round (warm start); Adam's moments
  start at zero in every round, as in the official code in PyTorch.
  """
  optimiser = _optimiser(config).init(params)
  return FitState(params, optimiser, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("controller", "config"))
def fit(
  state: FitState,
  key: jax.Array,
  examples: Examples,
  *,
  controller: Controller,
  config: FitConfig,
) -> tuple[FitState, Losses]:
  """Runs config.epochs epochs as one compiled program.

  Two calls with k epochs each and the same key equal one call with 2k epochs,
  as an epoch's randomness depends on the key and the epoch's number alone.

  Args:
    state: from `start` or from the previous call.
    key: consumed, but calls that go on from the new state take the same key.
    examples: the architectures and their targets.
    controller: the model to fit.
    config: the settings.

  Returns:
    The new state and the losses of each epoch, [E], computed with dropout.
  """
  tokens, targets = examples[:2]
  chex.assert_shape(tokens, (None, controller.space.length))
  chex.assert_shape(targets, (len(tokens),))
  epoch = functools.partial(
    _epoch, key=key, examples=examples, controller=controller, config=config
  )
  return jax.lax.scan(epoch, state, length=config.epochs)


def loss(
  params: Params,
  batch: Batch,
  *,
  controller: Controller,
  trade_off: float,
  key: jax.Array | None = None,
) -> tuple[jax.Array, Losses]:
  """Returns the joint loss of prediction and reconstruction (paper equation 1).

  Args:
    params: parameters of the controller.
    batch: the architectures, their targets and weights.
    controller: the model.
    trade_off: the weight of the squared error.
    key: key of dropout, consumed; None for no dropout.

  Returns:
    The total, [], to differentiate, and its parts.
  """
  tokens, targets, weights, costs, scored = batch
  keys = (None, None) if key is None else jax.random.split(key)
  outputs, embedding = controller.encode(params, tokens, keys[0])
  predictions = controller.predict(params, embedding, keys[1])
  log_probs = controller.decode(params, tokens, outputs, embedding)
  chosen = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
  scored = weights if scored is None else scored
  weights, scored = weights / jnp.sum(weights), scored / jnp.sum(scored)
  mse = jnp.sum(scored * jnp.square(predictions - targets))
  if costs is not None:
    cost_key = None if key is None else jax.random.fold_in(key, 2)
    estimates = controller.estimate(params, embedding, cost_key)
    mse += jnp.sum(scored * jnp.square(estimates - costs))
  cross_entropy = -jnp.sum(weights * jnp.mean(chosen, axis=-1))
  total = trade_off * mse + (1 - trade_off) * cross_entropy
  return total, Losses(total, mse, cross_entropy)


def normalise_targets(
  scores: jax.Array, trains: jax.Array | None = None
) -> jax.Array:
  """Scales scores to [0, 1] by their minimum and maximum.

  Equal scores, from which there is nothing to learn, all become 0.5.

  Args:
    scores: [N], finite, higher is better.
    trains: bool [N], architectures whose minimum and maximum count; all by
      default. The others may get values outside [0, 1].

  Returns:
    The targets, [N].
  """
  scores = jnp.asarray(scores)
  counts = jnp.ones(len(scores), bool) if trains is None else trains
  low = jnp.min(scores, where=counts, initial=jnp.inf)
  span = jnp.max(scores, where=counts, initial=-jnp.inf) - low
  scaled = (scores - low) / jnp.where(span > 0, span, 1)
  return jnp.where(span > 0, scaled, 0.5)


def swap(key: jax.Array, tokens: jax.Array, *, space: Space) -> jax.Array:
  """Replaces architectures by random equivalent ones.

  In each cell one of the space's swaps exchanges two branches; a swap is always
  made (symmetric augmentation of the official code). A space without swaps
  leaves the tokens unchanged; a space that lists its functions draws from the
  list.

  Args:
    key: consumed.
    tokens: int32 [B, L].
    space: space whose equivalences are used.

  Returns:
    Architectures of the same functions, int32 [B, L].
  """
  if space.functions:
    return space.functions.disguise(key, tokens)
  permutations = jnp.asarray(space.swap_permutations)
  cells, swaps, _ = permutations.shape
  drawn = jax.random.randint(key, (cells, len(tokens)), 0, max(swaps, 1))
  for cell in range(cells):
    tokens = jnp.take_along_axis(tokens, permutations[cell, drawn[cell]], -1)
  return tokens


def _epoch(state, _, *, key, examples, controller, config):
  """Makes one pass in random order, as a scan over batches."""
  tokens, targets, costs, trains = examples
  order_key, steps_key = jax.random.split(jax.random.fold_in(key, state.epoch))
  indices, weights = _batches(order_key, len(tokens), config.batch, trains)

  def step(state, row):
    indices, weights, key = row
    batch = Batch(
      tokens[indices],
      targets[indices],
      weights,
      None if costs is None else costs[indices],
    )
    return _step(state, key, batch, controller=controller, config=config)

  def step_or_none(state, row):
    """Takes a step, unless all weights of the batch are 0."""
    nothing = jnp.zeros(())
    return jax.lax.cond(
      jnp.any(row[1] > 0),
      step,
      lambda state, _: (state, Losses(nothing, nothing, nothing)),
      state,
      row,
    )

  keys = jax.random.split(steps_key, len(indices))
  state, losses = jax.lax.scan(
    step if trains is None else step_or_none, state, (indices, weights, keys)
  )
  share = jnp.sum(weights, axis=-1) / jnp.sum(weights)
  losses = jax.tree.map(lambda loss: jnp.sum(loss * share), losses)
  return state._replace(epoch=state.epoch + 1), losses


def _batches(key, count, batch, trains=None):
  """Draws a random order in batches: indices and weights, [steps, B].

  The last batch is padded with weight 0, so that all batches have one shape and
  every architecture counts once. Architectures that do not train come last,
  with weight 0; batches of such architectures alone are skipped.
  """
  batch = min(batch, count)
  steps = -(-count // batch)
  order = jax.random.permutation(key, count)
  if trains is not None:
    order = order[jnp.argsort(~trains[order], stable=True)]
    count = jnp.sum(trains)
  indices = jnp.resize(order, (steps, batch))
  weights = (jnp.arange(steps * batch) < count).astype(jnp.float32)
  return indices, weights.reshape(steps, batch)


def _step(state, key, batch, *, controller, config):
  swap_key, dropout_key = jax.random.split(key)
  if config.swap:
    swapped = swap(swap_key, batch.tokens, space=controller.space)
    batch = batch._replace(tokens=swapped)
  gradients, losses = jax.grad(loss, has_aux=True)(
    state.params,
    batch,
    controller=controller,
    trade_off=config.trade_off,
    key=dropout_key,
  )
  updates, optimiser = _optimiser(config).update(
    gradients, state.optimiser, state.params
  )
  params = optax.apply_updates(state.params, updates)
  return FitState(params, optimiser, state.epoch), losses


def _optimiser(config: FitConfig) -> optax.GradientTransformation:
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.add_decayed_weights(config.weight_decay),
    optax.adam(config.learning_rate),
  )
