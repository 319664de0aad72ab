"""What every training of a language model shares.

A training reads B streams of text side by side, a stretch at a time, and hands
the state on to the next stretch. Stretches differ in length (Merity et al.
2018); so that few programs are compiled, they are padded to a multiple of
`PADDED_TO` steps.

Shapes: T steps of a stretch, B streams, H width, D devices.
"""

from collections.abc import Callable, Iterator
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
from nao_jax.networks.recurrent import (
  LanguageModelConfig,
  Masks,
  Outputs,
  Weights,
)
from nao_jax.settings import field

PADDED_TO = 10

# Logits that a score computes at a time: 4 MiB stay in a cache.
_LOGITS = 2**20

# The official lengths are normal around `bptt`, or, once in twenty, around half
# of it, with this deviation, at least so long, and at most so much longer.
_DEVIATION, _SHORTEST, _LONGER = 5, 5, 20
_HALVED = 0.05


@dataclasses.dataclass(frozen=True)
class TextTrainConfig:
  """How a language model trains; the defaults are the official search's.

  Attributes:
    epochs: over the training text; of a search, all rounds together.
    batch: B, streams, over all devices.
    bptt: steps that gradients go back through, in the middle.
    learning_rate: for a stretch of `bptt` steps; others in proportion.
    clip: largest global norm of the gradient.
    weight_decay: times the weights, added to the clipped gradient.
    slowness: of the loss of the mean squared change of the cell's output from
      step to step (temporal activation regularisation).
  """

  epochs: int = field(1000, least=1)
  batch: int = field(256, least=1)
  bptt: int = field(35, least=_SHORTEST)
  learning_rate: float = field(0.25, above=0)
  clip: float = field(10.0, above=0)
  weight_decay: float = field(5e-7, least=0)
  slowness: float = field(1e-3, least=0)


class Stretch(NamedTuple):
  """A piece of the training text.

  Attributes:
    start: its first row in the streams.
    length: how many rows it has; the rows after each are what to predict.
  """

  start: int
  length: int

  @property
  def padded(self) -> int:
    """Its length rounded up."""
    return -(-self.length // PADDED_TO) * PADDED_TO


def longest(train: TextTrainConfig) -> int:
  """Steps of the longest stretch there can be, padded."""
  return Stretch(0, train.bptt + _LONGER).padded


def stretches(seed: int, epoch: int, rows: int, bptt: int) -> Iterator[Stretch]:
  """The pieces of one epoch; together they are all the text.

  Args:
    seed: of the whole run.
    epoch: its number.
    rows: of the streams; the last one is only predicted.
    bptt: the length in the middle.
  """
  rng = np.random.default_rng([seed, epoch])
  start = 0
  while start < rows - 1:
    middle = bptt / 2 if rng.random() < _HALVED else bptt
    drawn = max(_SHORTEST, int(rng.normal(middle, _DEVIATION)))
    length = min(drawn, bptt + _LONGER, rows - 1 - start)
    yield Stretch(start, length)
    start += length


def by_device(streams: np.ndarray, devices: int | None = None) -> np.ndarray:
  """The streams of this process: int32 [S, B] to [S, D, B / D].

  They are neighbours in the text: what a process lays out is one piece of it,
  and no other process's.

  Args:
    streams: what `text.streams` gives, the same in all processes.
    devices: see `parallel.spread`.
  """
  shape = len(streams), parallel.count(devices), -1
  return parallel.own_rows(streams.reshape(shape), 1, devices=devices).copy()


def cut(streams: np.ndarray, stretch: Stretch) -> np.ndarray:
  """The rows of a stretch and the one after, padded: int32 [T + 1, ...].

  Args:
    streams: int32 [S, ...].
    stretch: of them.
  """
  rows = np.arange(stretch.start, stretch.start + stretch.padded + 1)
  return streams[np.minimum(rows, len(streams) - 1)]


def masks(
  key: jax.Array,
  model: LanguageModelConfig,
  streams: int,
  axis_name: str | None,
) -> Masks:
  """Dropout for this device's share of the streams; consumes the key.

  They are drawn for all of them, and so do not depend on the devices.
  """
  whole = 1 if axis_name is None else lax.axis_size(axis_name)
  drawn = recurrent.draw_masks(key, model, streams * whole)
  words, *rest = drawn
  own = functools.partial(parallel.own_part, axis=0, axis_name=axis_name)
  return Masks(words, *jax.tree.map(own, rest))


class Step(NamedTuple):
  """What comes of a stretch.

  Attributes:
    gradients: of the weights, averaged over all streams.
    loss: nats a word, averaged likewise, without the penalty.
    hidden: [B, H], the state after it.
  """

  gradients: Weights
  loss: jax.Array
  hidden: jax.Array


def gradients(
  weights: Weights,
  cell: jax.Array,
  tokens: jax.Array,
  length: jax.Array,
  hidden: jax.Array,
  masks: Masks,
  *,
  slowness: float,
  axis_name: str | None = None,
  apply: Callable[..., Outputs] = recurrent.apply,
) -> Step:
  """The gradients of the mean loss of one stretch.

  Args:
    weights: of the cell.
    cell: int32 [N, 2].
    tokens: int32 [T + 1, B], what `cut` gives, or a device's share of it.
    length: steps that count.
    hidden: [B, H], the state before.
    masks: dropout.
    slowness: weight of the penalty.
    axis_name: the mapped axis over which to average.
    apply: reads the text. Another model than the cell's takes and gives the
      same; its softmax is tied, too.
  """

  found, (loss, hidden) = jax.grad(objective, has_aux=True)(
    weights, cell, tokens, length, hidden, masks, slowness, apply
  )
  found, loss = parallel.mean((found, loss), axis_name)
  return Step(found, loss, hidden)


def objective(
  weights: Weights,
  cell: jax.Array,
  tokens: jax.Array,
  length: jax.Array,
  hidden: jax.Array,
  masks: Masks,
  slowness: float,
  apply: Callable[..., Outputs] = recurrent.apply,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """What `gradients` differentiates; see there.

  Returns:
    The loss with its penalty; the loss, and the state after the stretch.
  """
  outputs = apply(weights, cell, tokens[:-1], hidden, masks, length)
  loss = _mean(_losses(weights, outputs.dropped, tokens[1:]), length)
  changes = jnp.square(outputs.raw[1:] - outputs.raw[:-1])
  penalty = _mean(changes.mean(-1), length - 1)
  return loss + slowness * penalty, (loss, outputs.hidden)


def _losses(weights, outputs, targets):
  """Nats of each word, [T, B]."""
  return optax.softmax_cross_entropy_with_integer_labels(
    recurrent.logits(weights, outputs), targets
  )


def _losses_by_parts(weights, outputs, targets):
  """As `_losses`, of a few steps at a time, whose logits stay in a cache.

  Logits are [V, words]: see unroll.py on the order of factors.
  """
  steps = len(targets)
  least = targets.size * len(weights.embedding) / _LOGITS
  even = (n for n in range(1, steps) if steps % n == 0 and n >= least)
  parts = next(even, steps)

  def losses(part):
    outputs, targets = part
    logits = weights.embedding @ outputs.T + weights.bias[:, None]
    of_targets = jnp.take_along_axis(logits, targets[None], 0)[0]
    return jax.nn.logsumexp(logits, 0) - of_targets

  rows = outputs.reshape(parts, -1, outputs.shape[-1])
  found = lax.map(losses, (rows, targets.reshape(parts, -1)))
  return found.reshape(targets.shape)


def _mean(values, length):
  """Over the first `length` rows of [T, B]."""
  counts = jnp.arange(len(values)) < length
  total = jnp.sum(jnp.where(counts[:, None], values, 0))
  return total / jnp.maximum(length * values.shape[1], 1)


def clipped(gradients: Weights, largest: float) -> Weights:
  """The gradients, scaled down to a global norm of at most `largest`."""
  norm = optax.tree.norm(gradients)
  factor = jnp.minimum(1, largest / jnp.maximum(norm, 1e-12))
  return jax.tree.map(lambda x: x * factor, gradients)


def windows(streams: np.ndarray, steps: int) -> np.ndarray:
  """All of a text for `measure`: int32 [windows, steps + 1, B].

  Neighbours share a row, as what is predicted is read next. The text ends
  wherever it does: what is missing is -1, which `measure` does not count.
  """
  count = -(-(len(streams) - 1) // steps)
  padded = np.full((count * steps + 1, streams.shape[1]), -1, np.int32)
  padded[: len(streams)] = streams
  starts = steps * np.arange(count)[:, None]
  return padded[starts + np.arange(steps + 1)]


def measure(
  weights: Weights,
  cell: jax.Array,
  text: jax.Array,
  *,
  apply: Callable[..., Outputs] = recurrent.apply,
  states: int = 1,
) -> jax.Array:
  """Mean nats a word of a text, read from a zero state; no dropout.

  Args:
    weights: of the cell.
    cell: int32 [N, 2].
    text: what `windows` gives.
    apply: reads the text, see `gradients`.
    states: how many times H numbers its state has.
  """
  width = states * weights.embedding.shape[1]

  def step(hidden, rows):
    counts = rows[1:] >= 0
    tokens = jnp.maximum(rows, 0)
    outputs = apply(weights, cell, tokens[:-1], hidden)
    losses = _losses_by_parts(weights, outputs.raw, tokens[1:])
    total = jnp.sum(jnp.where(counts, losses, 0))
    return outputs.hidden, (total, jnp.sum(counts))

  _, (totals, counts) = lax.scan(step, jnp.zeros((text.shape[2], width)), text)
  return totals.sum() / counts.sum()
