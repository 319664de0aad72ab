"""Scores from shared weights: a supernet is trained on the pool and scores it.

Shapes: N architectures, L tokens, D devices, B images a batch.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data.augment import eval_batches
from nao_jax.data.images import Examples, ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.errors import UserError
from nao_jax.evaluators import Keep, Progress, forget
from nao_jax.networks.build import Network
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs.progress import WorkUnit
from nao_jax.training.recipe import Images
from nao_jax.training.supernet import Trainer, TrainState, draw_members, score
from nao_jax.training.supernet_feeds import SupernetFeed

# The most architectures to score on a device in one call; progress is shown and
# interrupts are served between calls.
ARCHITECTURES_A_CALL = 10

# Steps in succession without a finite gradient that end a search.
MOST_BAD = 25

NO_SCORES = np.zeros(0, np.float32)

# Ways in which a step may choose the architecture that it trains.
SAMPLINGS = ("uniform", "parameters")


def score_pool(
  score: Callable[[np.ndarray], jax.Array],
  cells: np.ndarray,
  state: Any,
  progress: Callable[[int], None],
  keep: Keep,
  *,
  a_call: int,
  devices: int | None,
) -> np.ndarray:
  """Scores architectures in chunks that the devices share.

  Args:
    score: maps cells [D, n, ...] to their scores [D, n].
    cells: [N, ...].
    state: state of the evaluator; its `scores` are those of the first
      architectures, which are not scored again.
    progress: called with the number of scored architectures.
    keep: called with the state with the scores so far, and the size of the last
      chunk.
    a_call: n, the most architectures that a device scores in one call.
    devices: see `parallel.spread`.

  Returns:
    The scores, float32 [N].
  """
  parts, scores = parallel.count(devices), state.scores
  size = min(a_call * parts, len(cells))
  size += -size % parts
  progress(len(scores))
  for start in range(len(scores), len(cells), size):
    chunk = cells[start : start + size]
    padded = np.resize(chunk, (size, *chunk.shape[1:]))
    shares = padded.reshape(parts, -1, *chunk.shape[1:])
    found = parallel.gather(score(parallel.own_rows(shares, devices=devices)))
    found = np.asarray(found).reshape(-1)[: len(chunk)]
    scores = np.concatenate([scores, found])
    keep(state._replace(scores=scores), len(chunk))
    progress(len(scores))
  return scores


class SharedState(NamedTuple):
  """State of the evaluator, between two rounds or within one.

  Attributes:
    supernet: state of the supernet's training.
    scores: float32 [n], scores of the first members of the pool; empty until
      all steps of a round are done, and between rounds.
    trained: int32 [], number of members of the pool in the round before, which
      have had their training if only new members train.
    bad: int32 [], number of last steps in succession without a finite gradient.
  """

  supernet: TrainState
  scores: np.ndarray
  trained: np.ndarray
  bad: np.ndarray = np.int32(0)


@dataclasses.dataclass(frozen=True)
class SharedWeights:
  """Evaluator that trains a supernet; its state is a `SharedState`.

  Attributes:
    trainer: settings of the training.
    data: train and validation part are used, the test part never. Of a
      stream, too, the validation part is in memory.
    rounds: number of calls of `score`; the epochs are divided evenly among
      them.
    devices: number of devices of each process to use; all by default.
    sampling: how a step draws a member of the pool to train: `uniform`, all
      with the same probability; or `parameters`, in proportion to a power of
      the number of parameters of its stand-alone network, as larger networks
      need more training (Luo et al. 2019).
    power: that power; 1 in the paper.
    score_images: number of validation images to score with, drawn at random but
      the same in all searches; 0 for all.
    alone: the network of one architecture, whose parameters count; the
      trainer's by default.
    only_new: whether to train only members that were not in the pool in a
      round before; all members are scored. It needs a pool from which no
      member is removed.
    each_step: n, number of architectures that a step trains, each on its share
      of the batch: 1 or a multiple of the devices; see `check_each_step`.
  """

  trainer: Trainer
  data: ImageData | ImageStream
  rounds: int
  devices: int | None = None
  sampling: str = "uniform"
  only_new: bool = False
  each_step: int = 1
  power: float = 1.0
  score_images: int = 0
  alone: Network | None = None

  def init(self, key: jax.Array) -> SharedState:
    """Returns the state with an untrained supernet; consumes the key."""
    supernet = self.trainer.init(key, self._valid)
    return self.replicate(SharedState(supernet, NO_SCORES, np.int32(0)))

  def replicate(self, state: SharedState) -> SharedState:
    """Implements `Evaluator.replicate`."""
    supernet = parallel.replicate(state.supernet, devices=self.devices)
    return state._replace(supernet=supernet)

  def score(
    self,
    state: SharedState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[SharedState, np.ndarray]:
    """Trains the supernet on the pool for a round, then scores the pool.

    Implements `Evaluator.score`; scores are validation accuracies.

    Raises:
      UserError: the training diverged; see `count_bad`.
    """
    state = self.train(state, key, tokens, round_, progress, keep)
    scores = self.measure(state, tokens, progress, keep)
    trained = np.int32(len(tokens))
    return state._replace(scores=NO_SCORES, trained=trained), scores

  def measure(
    self,
    state: SharedState,
    tokens: np.ndarray,
    progress: Progress,
    keep: Keep = forget,
  ) -> np.ndarray:
    """Returns the scores of any architectures with the present weights, [N].

    The first architectures have the state's scores already. Arguments are those
    of `score`.
    """
    each = WorkUnit(len(self._scored_with.labels), "images")
    return score_pool(
      lambda shares: self._score_chunk(
        state.supernet.params, shares, self._valid, *self._valid_batches
      ),
      self.trainer.network.to_cells(tokens),
      state,
      lambda done: progress("score pool", done, len(tokens), "", each),
      keep,
      a_call=ARCHITECTURES_A_CALL,
      devices=self.devices,
    )

  def train(
    self,
    state: SharedState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> SharedState:
    """Takes the steps of the round that are left; returns the state.

    Arguments and errors are those of `score`.
    """
    keys = jax.random.split(key)
    each = WorkUnit(self.trainer.train.batch, "images")
    number = self.trainer.train.epochs // self.rounds
    epochs = range(round_ * number, (round_ + 1) * number)
    steps = number * self.trainer.steps_per_epoch
    numbers = round_ * steps + np.arange(steps, dtype=np.int32)
    cells = self._cells(state, keys[1], tokens, numbers)
    done = int(state.supernet.step) - round_ * steps
    progress("train supernet", done, steps, "", each)
    losses = []
    for supernet, found in self.feed.train(
      state.supernet, keys, epochs, cells, done
    ):
      losses += found.tolist()
      bad = count_bad(state.bad, found, int(supernet.step), steps)
      state = state._replace(supernet=supernet, bad=bad)
      keep(state, len(found))
      done += len(found)
      progress("train supernet", done, steps, "", each)
    if (loss := mean_loss(losses)) is not None:
      logging.info("round %d: mean training loss %.4f", round_, loss)
    return state

  def _cells(self, state, key, tokens, numbers) -> np.ndarray:
    """Draws the architectures of each step, [steps, n, 2, nodes, 4]."""
    first = int(state.trained) if self.only_new else 0
    # Without new members the whole pool is trained.
    pool = tokens[first:] if first < len(tokens) else tokens
    chances = None
    if self.sampling == "parameters":
      weights = self._parameters(pool) ** self.power
      chances = np.float32(weights / weights.sum())
    elif self.each_step > 1:
      chances = np.full(len(pool), 1 / len(pool), np.float32)
    members = draw_members(
      key, numbers, len(pool), chances, each=self.each_step
    )
    return self.trainer.network.to_cells(pool)[np.asarray(members)]

  def _parameters(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the parameters of the stand-alone networks, [N].

    They are counted at the sizes of the supernet.
    """
    size, _, channels = self.data.image_shape
    network = self.alone or self.trainer.network
    counts = [cost(network, row, size, channels).parameters for row in tokens]
    return np.array(counts, np.float64)

  @functools.cached_property
  def feed(self) -> SupernetFeed:
    """Source of the training examples."""
    return SupernetFeed(self.trainer, self.data, self.devices)

  @functools.cached_property
  def _score_chunk(self):
    network: NetworkConfig = self.trainer.network
    return parallel.spread(
      functools.partial(score, network=network, bfloat16=self.trainer.bfloat16),
      in_axes=(None, 0, None, None, None),
      devices=self.devices,
    )

  @property
  def _scored_with(self) -> Examples:
    images, labels = self.data.validation
    if not 0 < self.score_images < len(labels):
      return self.data.validation
    # Data sets may be in the order of their classes.
    order = np.random.default_rng(0).permutation(len(labels))
    rows = np.sort(order[: self.score_images])
    return Examples(images[rows], labels[rows])

  @functools.cached_property
  def _valid(self) -> Images:
    images = Images(*self._scored_with, self.data.mean, self.data.std)
    return parallel.replicate(images, devices=self.devices)

  @functools.cached_property
  def _valid_batches(self):
    batches = eval_batches(
      len(self._scored_with.labels), self.trainer.train.batch
    )
    return parallel.replicate(batches, devices=self.devices)


def check_each_step(
  each_step: int, batch: int, members: int, devices: int | None
) -> None:
  """Checks the number of architectures that a step trains.

  Args:
    each_step: n, the number to check.
    batch: B, examples or streams in a step.
    members: number of members of the first pool.
    devices: see `parallel.spread`.

  Raises:
    UserError: n architectures cannot share the devices or the batch evenly, or
      the pool has fewer members.
  """
  parts, what = parallel.count(devices), f"`architectures_per_step={each_step}`"
  if each_step < 1 or (each_step > 1 and each_step % parts):
    raise UserError(
      f"{what}: an architecture trains on one device, or one on all "
      f"{parts}; give 1 or a multiple of {parts} (`devices`)"
    )
  if batch % each_step:
    raise UserError(
      f"{what}: they share `train.batch={batch}` evenly; give a divisor of it"
    )
  if each_step > members:
    raise UserError(
      f"{what}: there are {members} members (`search.pool_size`); give that "
      "or less"
    )


def mean_loss(losses: list[float]) -> float | None:
  """Returns the mean of the finite losses; None if there are none."""
  finite = np.isfinite(losses)
  return float(np.mean(losses, where=finite)) if finite.any() else None


def count_bad(
  bad: int, losses: np.ndarray, step: int, steps: int, *, when: str = ""
) -> np.int32:
  """Counts the last steps in succession that left the weights unchanged.

  Args:
    bad: the count before these steps.
    losses: losses of these steps, [n]; not finite where the gradient is not.
    step: number of the last of these steps, for messages.
    steps: number of steps of the whole round; if it is less than MOST_BAD, that
      many bad steps end the search.
    when: addition to messages, such as the epoch of the steps.

  Returns:
    The count after these steps.

  Raises:
    UserError: the count reached MOST_BAD or `steps`.
  """
  numbers = range(step - len(losses) + 1, step + 1)
  # A restored array must not be changed in place.
  bad, skipped = int(bad), []
  for number, loss in zip(numbers, losses, strict=True):
    if np.isfinite(loss):
      bad = 0
      continue
    bad += 1
    skipped.append(str(number))
    if bad >= min(MOST_BAD, steps):
      raise UserError(
        f"the shared weights diverged: no loss of the last {bad} steps, to "
        f"step {number}{when}, is finite; give a smaller `sgd.learning_rate`, "
        "and another `workdir`"
      )
  if skipped:
    logging.warning(
      "steps without a finite gradient, which changed nothing%s: %s",
      when,
      ", ".join(skipped),
    )
  return np.int32(bad)
