"""Parts shared by every training of a language model.

A training reads B streams of text in parallel, one bptt window at a time, and
carries the hidden state on to the next window. Windows differ in length (Merity
et al. 2018); they are padded to a multiple of `PADDED_TO` steps, so that few
programs are compiled.

Shapes: T steps of a bptt window, B streams, H width, D devices, S rows of the
streams, N nodes, V words in the vocabulary.
"""

from collections.abc import Iterator
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
from nao_jax.networks.recurrent import LanguageModelConfig, Masks, Weights
from nao_jax.settings import field

PADDED_TO = 10

# Number of logits that a score computes at a time: 4 MiB fit in a cache.
_LOGITS = 2**20

# As in the official code, lengths are normal with this deviation around `bptt`
# or, once in twenty, around half of it; they are at least `_SHORTEST` and at
# most `bptt + _LONGER`.
_DEVIATION, _SHORTEST, _LONGER = 5, 5, 20
_HALVED = 0.05


@dataclasses.dataclass(frozen=True)
class TextTrainConfig:
  """Settings of a language model's training; defaults from the official search.

  Attributes:
    epochs: passes over the training text; in a search, of all rounds together.
    batch: B, the number of streams over all devices.
    bptt: typical number of steps that gradients go back through.
    learning_rate: the learning rate for a window of `bptt` steps; it is
      proportional to the window's length.
    clip: largest global norm of the gradient.
    weight_decay: factor of the weights that is added to the clipped gradient.
    slowness: weight in the loss of the mean squared change of the cell's output
      from step to step (temporal activation regularisation).
  """

  epochs: int = field(1000, least=1)
  batch: int = field(256, least=1)
  bptt: int = field(35, least=_SHORTEST)
  learning_rate: float = field(0.25, above=0)
  clip: float = field(10.0, above=0)
  weight_decay: float = field(5e-7, least=0)
  slowness: float = field(1e-3, least=0)


class Window(NamedTuple):
  """A bptt window of the training text.

  Attributes:
    start: its first row in the streams.
    length: number of rows; the row after each one is its target.
  """

  start: int
  length: int

  @property
  def padded(self) -> int:
    """The length, rounded up to a multiple of `PADDED_TO`."""
    return -(-self.length // PADDED_TO) * PADDED_TO


def longest(train: TextTrainConfig) -> int:
  """Returns the padded steps of the longest possible bptt window."""
  return Window(0, train.bptt + _LONGER).padded


def random_windows(
  seed: int, epoch: int, rows: int, bptt: int
) -> Iterator[Window]:
  """Yields the bptt windows of one epoch; together they cover all the text.

  Args:
    seed: the seed of the whole run.
    epoch: the epoch's number.
    rows: number of rows of the streams; the last one is only a target.
    bptt: the typical length.
  """
  rng = np.random.default_rng([seed, epoch])
  start = 0
  while start < rows - 1:
    middle = bptt / 2 if rng.random() < _HALVED else bptt
    drawn = max(_SHORTEST, int(rng.normal(middle, _DEVIATION)))
    length = min(drawn, bptt + _LONGER, rows - 1 - start)
    yield Window(start, length)
    start += length


def by_device(streams: np.ndarray, devices: int | None = None) -> np.ndarray:
  """Returns the streams of this process: int32 [S, B] to [S, D, B / D].

  Each process gets neighbouring streams, that is, one piece of the text, which
  no other process gets.

  Args:
    streams: the result of `text.streams`, the same in all processes.
    devices: see `parallel.spread`.
  """
  shape = len(streams), parallel.count(devices), -1
  return parallel.own_rows(streams.reshape(shape), 1, devices=devices).copy()


def cut(streams: np.ndarray, window: Window) -> np.ndarray:
  """Returns a window's rows and the one after, padded: int32 [T + 1, ...].

  Args:
    streams: int32 [S, ...].
    window: the bptt window.
  """
  rows = np.arange(window.start, window.start + window.padded + 1)
  return streams[np.minimum(rows, len(streams) - 1)]


def masks(
  key: jax.Array,
  model: LanguageModelConfig,
  streams: int,
  axis_name: str | None,
) -> Masks:
  """Returns dropout masks for this device's streams; consumes the key.

  They are drawn for all streams at once, and so do not depend on the number of
  devices.
  """
  whole = 1 if axis_name is None else lax.axis_size(axis_name)
  drawn = recurrent.draw_masks(key, model, streams * whole)
  words, *rest = drawn
  own = functools.partial(parallel.own_part, axis=0, axis_name=axis_name)
  return Masks(words, *jax.tree.map(own, rest))


class Batch(NamedTuple):
  """A bptt window as a training step reads it.

  Attributes:
    tokens: int32 [T + 1, B], the result of `cut`, or a device's part of it.
    length: int32 [], number of steps that count.
    masks: the dropout masks; None if the step draws them.
  """

  tokens: jax.Array
  length: jax.Array
  masks: Masks | None = None


class Step(NamedTuple):
  """Results of the gradient computation for a bptt window.

  Attributes:
    gradients: gradients of the weights, averaged over all streams.
    loss: nats per word, averaged over all streams, without the penalty.
    hidden: [B, H], the state after the window.
  """

  gradients: Weights
  loss: jax.Array
  hidden: jax.Array


def gradients(
  weights: Weights,
  cell: jax.Array,
  batch: Batch,
  hidden: jax.Array,
  *,
  slowness: float,
  axis_name: str | None = None,
) -> Step:
  """Computes the gradients of the mean loss of one bptt window.

  Args:
    weights: the weights of the cell.
    cell: int32 [N, 2].
    batch: the window with its dropout masks.
    hidden: [B, H], the state before the window.
    slowness: the weight of the penalty.
    axis_name: the mapped axis over which to average.
  """
  found, (loss, hidden) = jax.grad(objective, has_aux=True)(
    weights, cell, batch, hidden, slowness
  )
  found, loss = parallel.mean((found, loss), axis_name)
  return Step(found, loss, hidden)


def objective(
  weights: Weights,
  cell: jax.Array,
  batch: Batch,
  hidden: jax.Array,
  slowness: float,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Returns the loss that `gradients` differentiates; same arguments.

  Returns:
    The loss with its penalty; the loss without it, and the state after the
    window.
  """
  tokens, length, masks = batch
  outputs = recurrent.apply(weights, cell, tokens[:-1], hidden, masks, length)
  loss = _mean(_losses(weights, outputs.dropped, tokens[1:]), length)
  changes = jnp.square(outputs.raw[1:] - outputs.raw[:-1])
  penalty = _mean(changes.mean(-1), length - 1)
  return loss + slowness * penalty, (loss, outputs.hidden)


def _losses(weights, outputs, targets):
  """Returns the loss of each word in nats, [T, B]."""
  return optax.softmax_cross_entropy_with_integer_labels(
    recurrent.logits(weights, outputs), targets
  )


def _losses_by_parts(weights, outputs, targets):
  """Computes `_losses` a few steps at a time, so that logits stay in a cache.

  Logits are [V, words]: see unroll.py for the order of factors.
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
  """Returns the mean over the first `length` rows of [T, B]."""
  counts = jnp.arange(len(values)) < length
  total = jnp.sum(jnp.where(counts[:, None], values, 0))
  return total / jnp.maximum(length * values.shape[1], 1)


def clipped(gradients: Weights, largest: float) -> Weights:
  """Returns the gradients, scaled to a global norm of at most `largest`."""
  norm = optax.tree.norm(gradients)
  factor = jnp.minimum(1, largest / jnp.maximum(norm, 1e-12))
  return jax.tree.map(lambda x: x * factor, gradients)


def windows(streams: np.ndarray, steps: int) -> np.ndarray:
  """Cuts a text into windows for `measure`: int32 [windows, steps + 1, B].

  Consecutive windows share a row, as the last target is the next input. The end
  of the last window is filled with -1, which `measure` does not count.
  """
  count = -(-(len(streams) - 1) // steps)
  padded = np.full((count * steps + 1, streams.shape[1]), -1, np.int32)
  padded[: len(streams)] = streams
  starts = steps * np.arange(count)[:, None]
  return padded[starts + np.arange(steps + 1)]


def measure(weights: Weights, cell: jax.Array, text: jax.Array) -> jax.Array:
  """Returns the mean nats per word of a text, from a zero state; no dropout.

  Args:
    weights: the weights of the cell.
    cell: int32 [N, 2].
    text: the result of `windows`.
  """
  width = weights.embedding.shape[1]

  def step(hidden, rows):
    counts = rows[1:] >= 0
    tokens = jnp.maximum(rows, 0)
    outputs = recurrent.apply(weights, cell, tokens[:-1], hidden)
    losses = _losses_by_parts(weights, outputs.raw, tokens[1:])
    total = jnp.sum(jnp.where(counts, losses, 0))
    return outputs.hidden, (total, jnp.sum(counts))

  _, (totals, counts) = lax.scan(step, jnp.zeros((text.shape[2], width)), text)
  return totals.sum() / counts.sum()
