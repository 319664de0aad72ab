"""Steps of a search's language models: weights of one cell, or of all.

Of shared weights each stretch of text trains one architecture, drawn from the
pool; its matrices are chosen from the bank once, and only they are
differentiated. The rest of the bank decays, as dense stochastic gradient
descent would have it.

There the state goes on from stretch to stretch although the architecture
changes, as in the official code: to a cell, the state of another is a start
like any other, nearer to what it will meet than zeros, and the weights that
made it are partly its own. A score begins at zeros.

A step may also train n architectures, each on its share of the streams, spread
over the devices as in training/supernet.py.

Shapes: B streams, D devices, N nodes, A architectures, n of them a step.
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
from nao_jax.training.language import TextTrainConfig


class Model(NamedTuple):
  """Weights, and their mean.

  Attributes:
    weights: of the cell, after the last step.
    mean: over all steps since averaging began; before, the weights.
    averaging: bool [], whether it has begun.
    averaged: int32 [], how many steps the mean is over.
  """

  weights: Weights
  mean: Weights
  averaging: jax.Array
  averaged: jax.Array


def not_averaged(weights: Weights) -> Model:
  """The model before averaging begins."""
  return Model(weights, weights, np.bool_(False), np.int32(0))


@dataclasses.dataclass(frozen=True)
class Trainer:
  """The settings; hashable.

  Attributes:
    model: the sizes.
    train: the training.
    shared: whether the weights are the bank of all cells.
  """

  model: LanguageModelConfig
  train: TextTrainConfig
  shared: bool = False

  def init(self, key: jax.Array) -> Weights:
    """Untrained weights; consumes the key."""
    return recurrent.init(key, self.model, shared=self.shared)

  def of_cell(self, weights: Weights, cell: jax.Array) -> Weights:
    """Those that a cell computes with."""
    return recurrent.choose(weights, cell) if self.shared else weights


def update(
  weights: Weights,
  hidden: jax.Array,
  key: jax.Array,
  number: jax.Array,
  cell: jax.Array,
  tokens: jax.Array,
  length: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[Weights, jax.Array, jax.Array]:
  """One step: clip, decay, descend.

  Where the loss or its gradient is not finite, the weights stay as they are,
  and the text goes on from a zero state.

  Args:
    weights: of the cell, or of all.
    hidden: [B / D, H], the state before, of this device's streams.
    key: of the whole run.
    number: of this step; the key folds it in.
    cell: int32 [N, 2]; or, of shared weights, [n, N, 2] with n a multiple of D:
      cells on equal shares of the streams, whose gradients are averaged.
    tokens: int32 [T + 1, B / D].
    length: steps that count; the learning rate is in proportion.
    trainer: the settings.
    axis_name: the mapped axis over which to average.

  Returns:
    The new weights, the new state, and the loss; NaN where the step changed
    nothing.
  """
  train = trainer.train
  several = cell.ndim == 3
  step = (_mean_gradients if several else _gradients)(
    weights,
    jax.random.fold_in(key, number),
    cell,
    tokens,
    hidden,
    length,
    trainer=trainer,
    axis_name=axis_name,
  )
  sound = jnp.isfinite(step.loss + optax.tree.norm(step.gradients))
  rate = jnp.where(sound, train.learning_rate * length / train.bptt, 0)
  # What is not chosen has gradient 0, and so no part in the norm.
  change = jax.tree.map(
    lambda x: jnp.where(sound, -rate * x, 0),
    language.clipped(step.gradients, train.clip),
  )
  hidden = jnp.where(sound, step.hidden, 0)
  loss = jnp.where(sound, step.loss, jnp.nan)
  kept = jax.tree.map(lambda x: x * (1 - rate * train.weight_decay), weights)
  if several or not trainer.shared:
    return jax.tree.map(jnp.add, kept, change), hidden, loss
  rows = recurrent.bank_rows(cell)
  weights = Weights(
    *jax.tree.map(jnp.add, kept[:3], change[:3]),
    kept.nodes.at[rows].add(change.nodes, unique_indices=True),
  )
  return weights, hidden, loss


def update_averaged(
  model: Model,
  hidden: jax.Array,
  key: jax.Array,
  number: jax.Array,
  cell: jax.Array,
  tokens: jax.Array,
  length: jax.Array,
  *,
  trainer: Trainer,
  axis_name: str | None = None,
) -> tuple[Model, jax.Array, jax.Array]:
  """As `update`, with the mean of the weights."""
  weights, hidden, loss = update(
    model.weights,
    hidden,
    key,
    number,
    cell,
    tokens,
    length,
    trainer=trainer,
    axis_name=axis_name,
  )
  averaged = jnp.where(model.averaging, model.averaged + 1, 1)
  mean = jax.tree.map(
    functools.partial(_add_to_mean, averaged), model.mean, weights
  )
  return Model(weights, mean, model.averaging, averaged), hidden, loss


def _add_to_mean(count, mean, new):
  """The mean of `count` values, `new` being the last; of one, its bits."""
  return jnp.where(count == 1, new, mean + (new - mean) / count)


def averages_from_now_on(losses: Sequence[float], patience: int) -> bool:
  """Whether the last loss says that averaging should begin.

  Args:
    losses: of validation after each epoch so far.
    patience: how many epochs before the last one are not compared with it; it
      has to be worse than the best of those before them.
  """
  compared = losses[: max(len(losses) - 1 - patience, 0)]
  return bool(compared) and losses[-1] > min(compared)


def after_epoch(model: Model, losses: Sequence[float], patience: int) -> Model:
  """The model with which the next epoch begins.

  Args:
    model: after the last stretch of an epoch.
    losses: of validation after each epoch so far.
    patience: see `averages_from_now_on`.
  """
  if model.averaging or not averages_from_now_on(losses, patience):
    return model
  return model._replace(averaging=np.bool_(True), averaged=np.int32(0))


def _gradients(
  weights, key, cell, tokens, hidden, length, *, trainer, axis_name=None
) -> language.Step:
  """Of the weights of one cell."""
  streams = tokens.shape[1]
  return language.gradients(
    trainer.of_cell(weights, cell),
    cell,
    tokens,
    length,
    hidden,
    language.masks(key, trainer.model, streams, axis_name),
    slowness=trainer.train.slowness,
    axis_name=axis_name,
  )


def _mean_gradients(
  weights, key, cells, tokens, hidden, length, *, trainer, axis_name
) -> language.Step:
  """Of the whole bank: the mean over cells, each on B / n streams."""
  numbers = parallel.own_part(jnp.arange(len(cells)), 0, axis_name)
  own = parallel.own_part(cells, 0, axis_name)
  shares = jnp.stack(jnp.split(tokens, len(own), axis=1))
  states = hidden.reshape(len(own), -1, hidden.shape[1])

  def add(total, part):
    number, cell, *rest = part
    number_key = jax.random.fold_in(key, number)
    step = _gradients(weights, number_key, cell, *rest, length, trainer=trainer)
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
  """Minus the mean nats a word of architectures, float32 [A].

  Args:
    weights: of the cell, or of all.
    cells: int32 [A, N, 2].
    text: what `language.windows` gives.
    trainer: the settings.
  """

  def one(cell):
    return -language.measure(trainer.of_cell(weights, cell), cell, text)

  return lax.map(one, cells)


@functools.lru_cache(maxsize=4)
def programs(
  trainer: Trainer, devices: int | None, averaged: bool = False
) -> tuple[Callable, Callable]:
  """`update` (or `update_averaged`) and `score`, compiled for every device.

  Shared weights are whole on every device; states come by device, [D, ...],
  and so do tokens, [T + 1, D, B / D]. The weights of one cell come by device,
  [D, ...], and so does their cell; then the tokens are the same for all.
  """
  step = functools.partial(
    update_averaged if averaged else update,
    trainer=trainer,
    axis_name=parallel.AXIS if trainer.shared else None,
  )
  if trainer.shared:
    update_axes, score_axes = (
      (None, 0, None, None, None, 1, None),
      (None, 0, None),
    )
    out_axes = (None, 0, None)
  else:
    update_axes, score_axes = (0, 0, None, 0, 0, None, None), (0, 0, None)
    out_axes = 0
  return (
    parallel.spread(
      step, update_axes, out_axes, devices=devices, donate=(0, 1)
    ),
    parallel.spread(
      functools.partial(score, trainer=trainer), score_axes, devices=devices
    ),
  )
