"""Scores from scratch: train each architecture alone, once in a lifetime.

All candidates of a space run in one program, in which the architecture is data
(networks/candidate.py); each local device trains another one. What a training
gave is remembered in a file of trials.

Shapes: N architectures, L tokens, D devices, B images a batch.
"""

from collections.abc import Iterator
import dataclasses
import functools

from absl import logging
import jax
import numpy as np

from nao_jax import parallel
from nao_jax.data.augment import epoch_indices, eval_batches
from nao_jax.data.images import ImageData
from nao_jax.evaluators.shared import Progress
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.training.candidate import Trainer
from nao_jax.training.feeds import program
from nao_jax.training.recipe import Images, largest_divisor
from nao_jax.training.stand_alone import (
  TrainState,
  measure_batches,
  train_steps,
)
from nao_jax.trials import Trial, Trials

# How much work one call to the devices holds at most.
STEPS_A_CALL = 25


@dataclasses.dataclass(frozen=True)
class FromScratch:
  """An evaluator whose state is what `prune` compares with.

  A score is the best validation accuracy after any epoch, as in the official
  search. It depends on nothing but the architecture and the settings: neither
  on the other candidates nor on the number of devices.

  Attributes:
    space: the architectures.
    trainer: the settings of each training.
    data: train and validation part are used, the test part never.
    trials: what is known already, and where results go.
    seed: of weights, order and augmentation, the same for all candidates.
    prune: stop a candidate when it is worse after an epoch than half of the
      pool of the round before was; the first pool is never pruned.
    devices: how many local devices to use; all by default.
  """

  space: Space
  trainer: Trainer
  data: ImageData
  trials: Trials
  seed: int
  prune: bool = False
  devices: int | None = None

  def init(self, key: jax.Array) -> np.ndarray:
    """The accuracies that `prune` asks for, [epochs]: none yet."""
    del key
    return np.zeros(self.trainer.train.epochs, np.float32)

  def replicate(self, state: np.ndarray) -> np.ndarray:
    """The state is the host's."""
    return state

  def score(
    self,
    state: np.ndarray,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Trains what was never trained, and looks up the others.

    Args:
      state: from `init` or from the round before.
      key: not used: what a trial gives does not depend on the search.
      tokens: int32 [N, L], the pool.
      round_: number of this round, for messages.
      progress: told how many candidates are trained.

    Returns:
      The new state and the scores, float32 [N]. A candidate whose training
      diverged has the worst score of the others.
    """
    del key
    canonical = self.space.canonical(tokens)
    limits = state if self.prune else np.zeros_like(state)
    self._train_missing(canonical, limits, round_, progress)
    trials = [self.trials.get(row) for row in canonical]
    curves = [t.curve for t in trials if len(t.curve) == len(state)]
    if curves:
      state = np.median(np.float32(curves), axis=0)
    scores = np.float32(
      [np.nan if t.score is None else t.score for t in trials]
    )
    worst = 0.0 if np.isnan(scores).all() else np.nanmin(scores)
    return state, np.where(np.isnan(scores), np.float32(worst), scores)

  def _train_missing(self, rows, limits, round_, progress) -> None:
    rows = list({row.tobytes(): row for row in rows}.values())
    known = [self.trials.get(row) for row in rows]
    missing = [
      row for row, trial in zip(rows, known, strict=True) if trial is None
    ]
    done, failed, saved = len(rows) - len(missing), 0, 0
    best = max((trial.score or 0.0 for trial in known if trial), default=0.0)
    if done:
      logging.info(
        "round %d: %d of %d candidates were trained before",
        round_,
        done,
        len(rows),
      )
    progress("train candidates", done, len(rows))
    for finished, running in self._run(missing, limits):
      for row, trial in finished:
        self.trials.add(row, trial)
        done += 1
        failed += trial.score is None
        best = max(best, trial.score or 0.0)
        if trial.score is not None:
          saved += len(limits) - len(trial.curve)
        logging.info(
          "candidate %d of %d: %s",
          done,
          len(rows),
          "diverged" if trial.score is None else f"accuracy {trial.score:.4f}",
        )
      waiting = len(rows) - done - running
      note = f"{running} running, {waiting} waiting, best {best:.4f}"
      progress("train candidates", done, len(rows), note)
    if failed:
      logging.warning("round %d: %d candidates diverged", round_, failed)
    if self.prune:
      logging.info("round %d: pruning saved %d epochs", round_, saved)

  def _run(
    self, rows, limits
  ) -> Iterator[tuple[list[tuple[np.ndarray, Trial]], int]]:
    """Trains candidates, D at a time; a free place goes to the next one.

    Yields:
      After each epoch, the candidates that finished with it, and how many are
      in the middle of their training.
    """
    waiting = list(rows)
    places = [None] * parallel.count(self.devices)
    while waiting or any(places):
      for at, place in enumerate(places):
        if place is None and waiting:
          places[at] = self._start(waiting.pop(0))
      # A place without a candidate repeats another's work.
      busy = next(place for place in places if place)
      trained = self._epoch([place or busy for place in places])
      finished = []
      for at, (place, result) in enumerate(zip(places, trained, strict=True)):
        if place is None:
          continue
        places[at] = place.after_epoch(*result)
        if trial := places[at].trial(limits):
          finished.append((place.tokens, trial))
          places[at] = None
      yield finished, sum(place is not None for place in places)

  def _start(self, tokens: np.ndarray) -> "_Place":
    cells = np.asarray(cnn.to_cells(tokens))
    key = self._keys[0]
    state = self.trainer.init(key, self.data.image_shape, cells)
    return _Place(tokens, cells, jax.device_get(state))

  def _epoch(self, places: list["_Place"]) -> list[tuple]:
    """One epoch of each: (state, mean loss, validation accuracy)."""
    inputs = [(place.state, (place.cells,)) for place in places]
    states, architecture = parallel.distribute(
      jax.tree.map(lambda *x: np.stack(x), *inputs), devices=self.devices
    )
    calls = np.stack([self._calls(len(place.curve)) for place in places], 1)
    axes = (0, None, None, 0, 0)
    steps = program(_steps, self.trainer, self.devices, axes, 0)
    losses = []
    for indices in calls:
      states, loss = steps(
        states, self._step_key, self._train, indices, architecture
      )
      losses.append(np.asarray(loss))
    axes = (0, None, None, None, 0)
    measure = program(_measure, self.trainer, self.devices, axes, 0)
    measured = measure(states, self._valid, *self._valid_batches, architecture)
    accuracies = np.asarray(measured.right) / len(self.data.validation.labels)
    states = jax.device_get(states)
    return [
      (jax.tree.map(lambda x, at=at: x[at], states), np.mean(loss), accuracy)
      for at, (loss, accuracy) in enumerate(
        zip(np.concatenate(losses, 1), accuracies, strict=True)
      )
    ]

  def _calls(self, epoch: int) -> np.ndarray:
    """An epoch's examples: [calls, steps, B]."""
    batch = self.trainer.train.batch
    key = jax.random.fold_in(self._keys[1], epoch)
    order = np.asarray(epoch_indices(key, self.trainer.examples, batch))
    return order.reshape(-1, largest_divisor(len(order), STEPS_A_CALL), batch)

  @functools.cached_property
  def _keys(self) -> jax.Array:
    """Of the first weights, of the order, and of the steps."""
    return jax.random.split(jax.random.key(self.seed), 3)

  @functools.cached_property
  def _step_key(self) -> jax.Array:
    return parallel.replicate(self._keys[2], devices=self.devices)

  @functools.cached_property
  def _train(self) -> Images:
    return self._place_images("train")

  @functools.cached_property
  def _valid(self) -> Images:
    return self._place_images("validation")

  def _place_images(self, part: str) -> Images:
    images = Images(*getattr(self.data, part), self.data.mean, self.data.std)
    return parallel.replicate(images, devices=self.devices)

  @functools.cached_property
  def _valid_batches(self):
    count = len(self.data.validation.labels)
    batches = eval_batches(count, self.trainer.train.batch)
    return parallel.replicate(batches, devices=self.devices)


def _steps(state, key, data, indices, architecture, *, trainer, axis_name):
  del axis_name  # Each device has a candidate of its own.
  return train_steps(
    state, key, data, indices, trainer=trainer, architecture=architecture
  )


def _measure(
  state, data, indices, counted, architecture, *, trainer, axis_name
):
  del axis_name
  return measure_batches(
    state, data, indices, counted, trainer=trainer, architecture=architecture
  )


@dataclasses.dataclass(frozen=True)
class _Place:
  """A candidate in training.

  Attributes:
    tokens: int32 [L].
    cells: int32 [2, nodes, 4], the same.
    state: of its training, on the host.
    curve: validation accuracies so far.
    diverged: whether its loss stopped being a number.
  """

  tokens: np.ndarray
  cells: np.ndarray
  state: TrainState
  curve: tuple[float, ...] = ()
  diverged: bool = False

  def after_epoch(self, state, loss: float, accuracy: float) -> "_Place":
    """The same, one epoch later."""
    return dataclasses.replace(
      self,
      state=state,
      curve=(*self.curve, float(accuracy)),
      diverged=not np.isfinite(loss),
    )

  def trial(self, limits: np.ndarray) -> Trial | None:
    """The outcome, if the training is over."""
    if self.diverged:
      return Trial(None, self.curve)
    epoch = len(self.curve) - 1
    if len(self.curve) == len(limits) or self.curve[epoch] < limits[epoch]:
      return Trial(max(self.curve), self.curve)
    return None
