"""Training steps of a search's language models, shared or one per cell.

With shared weights, each bptt window trains one architecture, drawn from the
pool; its matrices are gathered from the bank once, and only they are
differentiated. The rest of the bank decays, as in dense stochastic gradient
descent.

The hidden state is carried from window to window although the architecture
changes, as in the official code: the state of another cell is a better start
than zeros, as it is closer to the cell's later states, and the two cells share
some weights. Scoring starts from zeros.

A step may also train n architectures, each on its share of the streams; they
are spread over the devices as in training/supernet.py.

Shapes: B streams, D devices, N nodes, A architectures, n architectures per
step, T steps of a bptt window, H width.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from nao_jax import parallel
from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig, Weights
from nao_jax.training import language
from nao_jax.training.language import Batch, TextTrainConfig


class Model(NamedTuple):
  """Weights, and their mean over steps.

  Attributes:
    weights: the weights after the last step.
    mean: the mean over all steps since averaging began; before that, the
      weights.
    averaging: bool [], whether averaging has begun.
    averaged: int32 [], number of steps in the mean.
  """

  weights: Weights
  mean: Weights
  averaging: jax.Array
  averaged: jax.Array


class State(NamedTuple):
  """State of a training between two steps.

  Attributes:
    weights: the weights of the cell or of all cells, or a `Model`.
    hidden: [B / D, H], the hidden state of this device's streams.
  """

  weights: Weights | Model
  hidden: jax.Array


def not_averaged(weights: Weights) -> Model:
  """Returns the model before averaging begins."""
  return Model(weights, weights, np.bool_(False), np.int32(0))


@dataclasses.dataclass(frozen=True)
class Trainer:
  """Settings of a language model's training step; hashable.

  Attributes:
    model: the sizes.
    train: the training settings.
    shared: whether the weights are the bank of all cells.
  """

  model: LanguageModelConfig
  train: TextTrainConfig
  shared: bool = False

  def init(self, key: jax.Array) -> Weights:
    """Returns untrained weights; consumes the key."""
    return recurrent.init(key, self.model, shared=self.shared)

  def of_cell(self, weights: Weights, cell: jax.Array) -> Weights:
    """Returns the weights that a cell computes with."""
    return recurrent.choose(weights, cell) if self.shared else weights


def update(
  state: State,
  key: jax.Array,
  number: jax.Array,
  cell: jax.Array,
  batch: Batch,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[State, jax.Array]:
  """Performs one step: clips the gradient, decays the weights, descends.

  If the loss or its gradient is not finite, the weights stay as they are, and
  the hidden state is set to zero.

  Args:
    state: weights and hidden state before the step.
    key: the random key of the whole run.
    number: the number of this step, which is folded into the key.
    cell: int32 [N, 2]; or, with shared weights, [n, N, 2] with n a multiple of
      D: cells that train on equal shares of the streams, and whose gradients
      are averaged.
    batch: the bptt window, this device's streams, without masks; the learning
      rate is proportional to its length.
    trainer: the settings.
    axis_name: the mapped axis over which to average.

  Returns:
    The new state, and the loss; NaN where the step changed nothing.
  """
  key = jax.random.fold_in(key, number)
  gradients = _gradients if cell.ndim == 2 else _mean_gradients
  step = gradients(
    state, key, cell, batch, trainer=trainer, axis_name=axis_name
  )
  return _descend(state.weights, step, cell, batch.length, trainer)


def _descend(weights, step, cell, length, trainer) -> tuple[State, jax.Array]:
  """Returns the state after a step along its gradients, and its loss."""
  train = trainer.train
  sound = jnp.isfinite(step.loss + optax.tree.norm(step.gradients))
  rate = jnp.where(sound, train.learning_rate * length / train.bptt, 0)
  # Matrices that were not chosen have gradient 0, so they add nothing to the
  # norm.
  change = jax.tree.map(
    lambda x: jnp.where(sound, -rate * x, 0),
    language.clipped(step.gradients, train.clip),
  )
  hidden = jnp.where(sound, step.hidden, 0)
  loss = jnp.where(sound, step.loss, jnp.nan)
  kept = jax.tree.map(lambda x: x * (1 - rate * train.weight_decay), weights)
  if cell.ndim == 3 or not trainer.shared:
    return State(jax.tree.map(jnp.add, kept, change), hidden), loss
  rows = recurrent.bank_rows(cell)
  weights = Weights(
    *jax.tree.map(jnp.add, kept[:3], change[:3]),
    kept.nodes.at[rows].add(change.nodes, unique_indices=True),
  )
  return State(weights, hidden), loss


def update_averaged(
  state: State,
  key: jax.Array,
  number: jax.Array,
  cell: jax.Array,
  batch: Batch,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[State, jax.Array]:
  """Performs `update` on a `Model`, and updates the mean of its weights."""
  model, hidden = state
  (weights, hidden), loss = update(
    State(model.weights, hidden),
    key,
    number,
    cell,
    batch,
    trainer=trainer,
    axis_name=axis_name,
  )
  averaged = jnp.where(model.averaging, model.averaged + 1, 1)
  mean = jax.tree.map(
    functools.partial(_add_to_mean, averaged), model.mean, weights
  )
  model = Model(weights, mean, model.averaging, averaged)
  return State(model, hidden), loss


def _add_to_mean(count, mean, new):
  """Returns the mean of `count` values, `new` being the last; exact for one."""
  return jnp.where(count == 1, new, mean + (new - mean) / count)


def averages_from_now_on(losses: Sequence[float], patience: int) -> bool:
  """Returns whether averaging should begin, according to the last loss.

  Args:
    losses: validation losses after each epoch so far.
    patience: number of epochs before the last one that are left out of the
      comparison; averaging begins if the last loss is worse than the best of
      the earlier ones.
  """
  compared = losses[: max(len(losses) - 1 - patience, 0)]
  return bool(compared) and losses[-1] > min(compared)


def after_epoch(model: Model, losses: Sequence[float], patience: int) -> Model:
  """Returns the model with which the next epoch begins.

  Args:
    model: the model after the last window of an epoch.
    losses: validation losses after each epoch so far.
    patience: see `averages_from_now_on`.
  """
  if model.averaging or not averages_from_now_on(losses, patience):
    return model
  return model._replace(averaging=np.bool_(True), averaged=np.int32(0))


def _gradients(
  state, key, cell, batch, *, trainer, axis_name=None
) -> language.Step:
  """Computes the gradients of the weights of one cell."""
  streams = batch.tokens.shape[1]
  masks = language.masks(key, trainer.model, streams, axis_name)
  return language.gradients(
    trainer.of_cell(state.weights, cell),
    cell,
    batch._replace(masks=masks),
    state.hidden,
    slowness=trainer.train.slowness,
    axis_name=axis_name,
  )


def _mean_gradients(
  state, key, cells, batch, *, trainer, axis_name
) -> language.Step:
  """Computes the bank's gradients: the mean over cells on B / n streams."""
  weights, hidden = state
  numbers = parallel.own_part(jnp.arange(len(cells)), 0, axis_name)
  own = parallel.own_part(cells, 0, axis_name)
  shares = jnp.stack(jnp.split(batch.tokens, len(own), axis=1))
  states = hidden.reshape(len(own), -1, hidden.shape[1])

  def add(total, part):
    number, cell, tokens, hidden = part
    step = _gradients(
      State(weights, hidden),
      jax.random.fold_in(key, number),
      cell,
      batch._replace(tokens=tokens),
      trainer=trainer,
    )
    (*others, nodes), loss = total
    (*found, found_nodes) = step.gradients
    rows = recurrent.bank_rows(cell)
    nodes = nodes.at[rows].add(found_nodes, unique_indices=True)
    total = Weights(*map(jnp.add, others, found), nodes), loss + step.loss
    return total, step.hidden

  zeros = jax.tree.map(jnp.zeros_like, weights), jnp.zeros(())
  total, states = lax.scan(add, zeros, (numbers, own, shares, states))
  mean = jax.tree.map(lambda x: x / len(own), total)
  return language.Step(
    *parallel.mean(mean, axis_name), states.reshape(hidden.shape)
  )


def score(
  weights: Weights, cells: jax.Array, text: jax.Array, *, trainer: Trainer
) -> jax.Array:
  """Returns minus the mean nats per word of each architecture, float32 [A].

  Args:
    weights: the weights of the cell, or of all cells.
    cells: int32 [A, N, 2].
    text: the result of `language.windows`.
    trainer: the settings.
  """

  def one(cell):
    return -language.measure(trainer.of_cell(weights, cell), cell, text)

  return lax.map(one, cells)


@functools.lru_cache(maxsize=4)
def programs(
  trainer: Trainer, devices: int | None, averaged: bool = False
) -> tuple[Callable, Callable]:
  """Compiles `update` (or `update_averaged`) and `score` for every device.

  Shared weights are replicated on every device; hidden states are split by
  device, [D, ...], and so are tokens, [T + 1, D, B / D]. Without sharing,
  weights and cells are split by device, [D, ...], and the tokens are the same
  for all.
  """
  step = functools.partial(
    update_averaged if averaged else update,
    trainer=trainer,
    axis_name=parallel.AXIS if trainer.shared else None,
  )
  if trainer.shared:
    state_axes, batch_axes = State(None, 0), Batch(1, None)
    update_axes = (state_axes, None, None, None, batch_axes)
    score_axes, out_axes = (None, 0, None), (state_axes, None)
  else:
    update_axes, score_axes = (0, None, 0, 0, None), (0, 0, None)
    out_axes = 0
  return (
    parallel.spread(step, update_axes, out_axes, devices=devices, donate=(0,)),
    parallel.spread(
      functools.partial(score, trainer=trainer), score_axes, devices=devices
    ),
  )
