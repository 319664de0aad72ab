"""Training from scratch on the devices of this process.

Shapes: L tokens, D devices, each of which trains one candidate.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import time
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nao_jax import parallel
from nao_jax.evaluators.scratch import Update
from nao_jax.runs import claims
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.trials import Trial, Trials


class Candidates(Protocol):
  """Interface of a kind of candidates that can be trained.

  The result of a candidate depends on its tokens alone: neither on other
  candidates nor on the number of devices.

  Attributes:
    epochs: number of epochs of each training.
    devices: number of local devices to use, D; all by default.
    each: work unit: the data that a whole training reads.
  """

  epochs: int
  devices: int | None
  each: WorkUnit

  def start(self, tokens: np.ndarray) -> Any:
    """Returns a candidate's state before its first epoch, on the host."""

  def epoch(
    self,
    tokens: list[np.ndarray],
    states: list[Any],
    epochs: list[int],
    between: Callable[[], None],
  ) -> list[tuple[Any, float, float]]:
    """Trains D candidates for an epoch.

    Args:
      tokens: D candidates, each int32 [L].
      states: D states, each from `start` or from the epoch before.
      epochs: the number of this epoch for each candidate, from 0.
      between: called about once a second; it may raise.

    Returns:
      For each candidate the new state, the mean loss and the score; a higher
      score is better, and minus infinity means that it was not measured.
    """


def measured_epochs(
  epochs: Sequence[int], total: int, last_only: bool
) -> np.ndarray:
  """Returns for each of D candidates whether to measure it, bool [D].

  Args:
    epochs: the number of the epoch for each candidate, from 0.
    total: number of epochs of a training.
    last_only: whether to measure after the last epoch alone.
  """
  return np.array([not last_only or at + 1 == total for at in epochs])


class Running(NamedTuple):
  """Candidates in training.

  Attributes:
    busy: bool [D], the places in which a candidate trains.
    tokens: int32 [D, L], the candidates.
    curves: float32 [D, epochs], scores so far; NaN for the other epochs.
    training: a tree of arrays [D, ...], the states of the trainings.
  """

  busy: np.ndarray
  tokens: np.ndarray
  curves: np.ndarray
  training: Any


@dataclasses.dataclass(frozen=True)
class Local:
  """Executor (see `scratch.Executor`) whose state is a `Running`.

  Attributes:
    candidates: the kind of candidates.
  """

  candidates: Candidates

  @property
  def epochs(self) -> int:
    """Number of epochs of each training."""
    return self.candidates.epochs

  @property
  def each(self) -> WorkUnit:
    """Work unit: the data that a whole training reads."""
    return self.candidates.each

  def init(self, template: np.ndarray) -> Running:
    """Implements `scratch.Executor.init`."""
    training = self.candidates.start(template)
    return pack(self._free(), of_one(template, training, self.epochs))

  def run(
    self,
    state: Running,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials: Trials,
    between: Callable[[], None],
  ) -> Iterator[Update]:
    """Implements `scratch.Executor.run`.

    A place that becomes free is given to the next candidate.

    Yields:
      An update after each epoch.
    """
    wanted = {row.tobytes() for row in rows}
    resumed = [x for x in _unpack(state) if x.tokens.tobytes() in wanted]
    begun = {place.tokens.tobytes(): place for place in resumed}
    waiting = [place.tokens for place in resumed]
    waiting += [row for row in rows if row.tobytes() not in begun]
    places = self._free()
    if not waiting:
      # Trainings that nobody waits for any more are given up.
      yield Update([], 0, pack(places, state))
    try:
      while waiting or any(places):
        finished = []
        for at, place in enumerate(places):
          if place is None:
            places[at] = self._next(waiting, begun, trials, finished)
        if any(places):
          finished += self._epoch(places, limits, trials, between)
          state = pack(places, state)
        elif not finished:
          # Other searches train what is left.
          time.sleep(claims.POLL)
          between()
          continue
        yield Update(finished, sum(x is not None for x in places), state)
    finally:
      # Nobody should wait for trainings that may never go on.
      trials.release()

  def _free(self) -> list[None]:
    """Returns as many free places as there are devices, D."""
    return [None] * parallel.count(self.candidates.devices)

  def _next(self, waiting, begun, trials, finished) -> "Place | None":
    """Returns the next candidate to train; None if there is none.

    Waiting candidates that have got a trial meanwhile are added to `finished`;
    those that another search trains wait behind the others.
    """
    for _ in range(len(waiting)):
      tokens = waiting.pop(0)
      trial, claimed = trials.claim(tokens)
      if claimed:
        place = begun.get(tokens.tobytes())
        return place or Place(tokens, self.candidates.start(tokens))
      if trial:
        finished.append(trial)
      else:
        waiting.append(tokens)
    return None

  def _epoch(self, places, limits, trials, between) -> list[Trial]:
    """Trains for an epoch, frees places, and returns the trials that ended."""
    # A place without a candidate repeats the work of another place.
    busy = next(place for place in places if place)
    running = [place or busy for place in places]
    trained = self.candidates.epoch(
      [place.tokens for place in running],
      [place.state for place in running],
      [len(place.curve) for place in running],
      between,
    )
    finished = []
    for at, (place, result) in enumerate(zip(places, trained, strict=True)):
      if place is None:
        continue
      places[at] = place.after_epoch(*result)
      if trial := places[at].trial(limits):
        trials.add(place.tokens, trial)
        finished.append(trial)
        places[at] = None
    return finished


def train(
  candidates: Candidates, tokens: np.ndarray, limits: np.ndarray
) -> Trial:
  """Trains one candidate to the end and returns its trial.

  Args:
    candidates: the kind of candidate, with a single place.
    tokens: int32 [L].
    limits: float32 [epochs]; a training whose score after an epoch is lower is
      stopped.
  """
  place = Place(tokens, candidates.start(tokens))
  while (trial := place.trial(limits)) is None:
    ((state, loss, score),) = candidates.epoch(
      [tokens], [place.state], [len(place.curve)], lambda: None
    )
    place = place.after_epoch(state, loss, score)
  return trial


def of_one(tokens: np.ndarray, training: Any, epochs: int) -> Running:
  """Returns a state of one place, of a training that has not begun."""
  return Running(
    np.array([True]),
    tokens[None],
    np.full((1, epochs), np.nan, np.float32),
    jax.tree.map(lambda x: np.asarray(x)[None], training),
  )


def pack(places: list["Place | None"], like: Running) -> Running:
  """Returns the state in which these candidates train; free places hold zeros.

  So a state depends on what trains alone, and not on what has trained.

  Args:
    places: D candidates, None where no candidate trains; D may be 0.
    like: gives the shapes; it may have another number of places.
  """
  state = jax.tree.map(
    lambda x: np.zeros((len(places), *x.shape[1:]), x.dtype), like
  )
  state.curves[:] = np.nan
  for at, place in enumerate(places):
    if place is not None:
      state.busy[at], state.tokens[at] = True, place.tokens
      state.curves[at, : len(place.curve)] = place.curve
      arrays = map(jax.tree.leaves, (state.training, place.state))
      for array, value in zip(*arrays, strict=True):
        array[at] = value
  return state


def _unpack(state: Running) -> list["Place"]:
  """Returns the candidates in training."""
  return [
    Place(
      state.tokens[at],
      jax.tree.map(lambda x, at=at: x[at], state.training),
      tuple(map(float, state.curves[at][~np.isnan(state.curves[at])])),
    )
    for at in np.flatnonzero(state.busy)
  ]


@dataclasses.dataclass(frozen=True)
class Place:
  """Candidate in training.

  Attributes:
    tokens: int32 [L].
    state: the state of its training, on the host.
    curve: scores so far; minus infinity after epochs that were not measured.
    diverged: whether its loss is no longer finite.
  """

  tokens: np.ndarray
  state: Any
  curve: tuple[float, ...] = ()
  diverged: bool = False

  def after_epoch(self, state: Any, loss: float, score: float) -> "Place":
    """Returns the candidate one epoch later."""
    return dataclasses.replace(
      self,
      state=state,
      # Rounded like a kept state: a resumed training gives the same curve.
      curve=(*self.curve, float(np.float32(score))),
      diverged=not np.isfinite(loss) or np.isnan(score),
    )

  def trial(self, limits: np.ndarray) -> Trial | None:
    """Returns the trial if the training has ended, else None."""
    if self.diverged:
      return Trial(None, self.curve)
    if not self.curve:
      return None
    epoch = len(self.curve) - 1
    if len(self.curve) == len(limits) or self.curve[epoch] < limits[epoch]:
      score = max(self.curve)
      return Trial(score if np.isfinite(score) else None, self.curve)
    return None
