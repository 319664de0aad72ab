"""Scores from scratch: train each architecture alone, once in a lifetime.

All candidates of a space run in one program, in which the architecture is data;
each local device trains another one. What a training gave is remembered in a
file of trials.

Shapes: N architectures, L tokens, D devices.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

from absl import logging
import jax
import numpy as np

from nao_jax.evaluators import Keep, Progress, forget
from nao_jax.measures import ACCURACY, Measure
from nao_jax.progress import Each
from nao_jax.spaces.space import Space
from nao_jax.trials import Trial, Trials


class Candidates(Protocol):
  """How candidates of one kind train.

  What comes of a candidate depends on nothing but its tokens: neither on the
  others nor on the number of devices.

  Attributes:
    epochs: of each training.
    places: how many candidates train at a time, D.
    each: what a whole training reads.
  """

  epochs: int
  places: int
  each: Each

  def start(self, tokens: np.ndarray) -> Any:
    """The state of a candidate before its first epoch, on the host."""

  def epoch(
    self,
    tokens: list[np.ndarray],
    states: list[Any],
    epochs: list[int],
    between: Callable[[], None],
  ) -> list[tuple[Any, float, float]]:
    """Trains D candidates for an epoch.

    Args:
      tokens: int32 [L] of each.
      states: of each, from `start` or from the epoch before.
      epochs: the number of this epoch for each, from 0.
      between: called about once a second; it may raise.

    Returns:
      For each the new state, the mean loss, and the score; higher is better.
    """


class ScratchState(NamedTuple):
  """What the evaluator is, between two rounds or within one.

  Attributes:
    limits: float32 [epochs], what `prune` asks for after each epoch.
    busy: bool [D], the places where a candidate trains; none between rounds.
    tokens: int32 [D, L], of the candidates in training.
    curves: float32 [D, epochs], their scores so far; NaN for those to come.
    training: a tree of arrays [D, ...], the states of their training.
  """

  limits: np.ndarray
  busy: np.ndarray
  tokens: np.ndarray
  curves: np.ndarray
  training: Any


@dataclasses.dataclass(frozen=True)
class FromScratch:
  """An evaluator whose state is a ScratchState.

  A score is the best one after any epoch, as in the official search.

  Attributes:
    space: the architectures.
    candidates: their training.
    trials: what is known already, and where results go.
    prune: stop a candidate when it is worse after an epoch than half of the
      pool of the round before was; the first pool is never pruned.
    measure: what scores are for people.
  """

  space: Space
  candidates: Candidates
  trials: Trials
  prune: bool = False
  measure: Measure = ACCURACY

  def init(self, key: jax.Array) -> ScratchState:
    """Nobody trains, and nothing is asked for yet."""
    del key
    limits = np.full(self.candidates.epochs, -np.inf, np.float32)
    return self._pack(limits, [None] * self.candidates.places)

  def replicate(self, state: ScratchState) -> ScratchState:
    """The state is the host's."""
    return state

  def score(
    self,
    state: ScratchState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[ScratchState, np.ndarray]:
    """Trains what was never trained, and looks up the others.

    See `Evaluator`. The key is not used: what a trial gives does not depend on
    the search. A candidate whose training diverged has the worst score of the
    others.
    """
    del key
    canonical = self.space.canonical(tokens)
    self._train_missing(canonical, state, round_, progress, keep)
    trials = [self.trials.get(row) for row in canonical]
    limits = middle([trial.curve for trial in trials], len(state.limits))
    state = self._pack(limits, [None] * self.candidates.places)
    scores = np.float32(
      [np.nan if t.score is None else t.score for t in trials]
    )
    # Of nothing but failures all are as bad.
    worst = 0.0 if np.isnan(scores).all() else np.nanmin(scores)
    return state, np.where(np.isnan(scores), np.float32(worst), scores)

  def _pack(self, limits, places: list["_Place | None"]) -> ScratchState:
    """The state with these candidates in training."""
    filled = [place or self._nobody for place in places]
    curves = np.full((len(places), len(limits)), np.nan, np.float32)
    for curve, place in zip(curves, filled, strict=True):
      curve[: len(place.curve)] = place.curve
    return ScratchState(
      limits,
      np.array([place is not None for place in places]),
      np.array([place.tokens for place in filled]),
      curves,
      jax.tree.map(lambda *x: np.stack(x), *(place.state for place in filled)),
    )

  @functools.cached_property
  def _nobody(self) -> "_Place":
    """What stands in a place where no candidate trains."""
    anybody = np.int32([legal[0] for legal in self.space.choices])
    return _Place(anybody, self.candidates.start(anybody))

  def _train_missing(self, rows, state, round_, progress, keep) -> None:
    rows = list({row.tobytes(): row for row in rows}.values())
    known = [self.trials.get(row) for row in rows]
    missing = [
      row for row, trial in zip(rows, known, strict=True) if trial is None
    ]
    limits = state.limits
    if not self.prune:
      limits = np.full_like(limits, -np.inf)
    tally = _Tally(
      len(rows), list(filter(None, known)), self.measure, self._told(progress)
    )
    if tally.done:
      logging.info(
        "round %d: %d of %d candidates were trained before",
        round_,
        tally.done,
        len(rows),
      )
    tally.show()
    for finished, places in self._run(
      missing, limits, _unpack(state), tally.show
    ):
      for row, trial in finished:
        self.trials.add(row, trial)
        tally.add(trial)
      keep(self._pack(state.limits, places), 1)
      tally.running = sum(place is not None for place in places)
      tally.show()
    tally.summarise(round_, len(limits) if self.prune else None)

  def _told(self, progress: Progress) -> Progress:
    """Says how fast it goes too, where all trainings are of one length."""
    if self.prune:
      return progress
    return lambda *at: progress(*at, self.candidates.each)

  def _next(self, waiting, begun, finished) -> "_Place | None":
    """The next candidate to train; what was trained meanwhile is finished."""
    while waiting:
      tokens = waiting.pop(0)
      trial = self.trials.get(tokens)
      if trial is None:
        fresh = _Place(tokens, self.candidates.start(tokens))
        return begun.get(tokens.tobytes(), fresh)
      finished.append((tokens, trial))
    return None

  def _run(
    self, rows, limits, resumed: list["_Place"], between: Callable[[], None]
  ) -> Iterator[tuple[list[tuple[np.ndarray, Trial]], list["_Place | None"]]]:
    """Trains candidates, D at a time; a free place goes to the next one.

    Yields:
      After each epoch, the candidates that finished with it, and the places of
      those that are in the middle of their training.
    """
    wanted = {row.tobytes() for row in rows}
    resumed = [place for place in resumed if place.tokens.tobytes() in wanted]
    begun = {place.tokens.tobytes(): place for place in resumed}
    waiting = [place.tokens for place in resumed]
    waiting += [row for row in rows if row.tobytes() not in begun]
    places = [None] * self.candidates.places
    while waiting or any(places):
      finished = []
      for at, place in enumerate(places):
        if place is None:
          places[at] = self._next(waiting, begun, finished)
      if not any(places):
        yield finished, places
        continue
      # A place without a candidate repeats another's work.
      busy = next(place for place in places if place)
      running = [place or busy for place in places]
      trained = self.candidates.epoch(
        [place.tokens for place in running],
        [place.state for place in running],
        [len(place.curve) for place in running],
        between,
      )
      for at, (place, result) in enumerate(zip(places, trained, strict=True)):
        if place is None:
          continue
        places[at] = place.after_epoch(*result)
        if trial := places[at].trial(limits):
          finished.append((place.tokens, trial))
          places[at] = None
      yield finished, list(places)


class _Tally:
  """What the user sees of a round's trainings.

  Attributes:
    done: candidates that have a trial.
    running: candidates in the middle of their training; None before the first
      look.
  """

  def __init__(
    self, total: int, known: list[Trial], measure: Measure, progress: Progress
  ):
    self.done, self.running = len(known), None
    self._total, self._measure, self._progress = total, measure, progress
    self._best, self._trained = _best(known), []

  def add(self, trial: Trial) -> None:
    """Counts and logs a training that ended."""
    self.done += 1
    self._trained.append(trial)
    self._best = max(self._best, _best([trial]))
    logging.info(
      "candidate %d of %d: %s",
      self.done,
      self._total,
      "diverged" if trial.score is None else self._named(trial.score),
    )

  def show(self) -> None:
    """Shows how far it is."""
    notes = []
    if self.running is not None:
      waiting = self._total - self.done - self.running
      notes.append(f"{self.running} running, {waiting} waiting")
      if self._best > -np.inf:
        notes.append(f"best {self._named(self._best)}")
    self._progress("train candidates", self.done, self._total, ", ".join(notes))

  def summarise(self, round_: int, epochs: int | None) -> None:
    """Logs what was decided; `epochs` of a training, if some were pruned."""
    sound = [trial for trial in self._trained if trial.score is not None]
    if len(sound) < len(self._trained):
      failed = len(self._trained) - len(sound)
      logging.warning("round %d: %d candidates diverged", round_, failed)
    if epochs is not None:
      saved = sum(epochs - len(trial.curve) for trial in sound)
      logging.info("round %d: pruning saved %d epochs", round_, saved)

  def _named(self, score: float) -> str:
    return f"{self._measure.name} {self._measure.show(score)}"


def _unpack(state: ScratchState) -> list["_Place"]:
  """The candidates in training."""
  return [
    _Place(
      state.tokens[at],
      jax.tree.map(lambda x, at=at: x[at], state.training),
      tuple(map(float, state.curves[at][~np.isnan(state.curves[at])])),
    )
    for at in np.flatnonzero(state.busy)
  ]


def middle(curves: list[tuple[float, ...]], epochs: int) -> np.ndarray:
  """What half of the candidates reached after each epoch, [epochs].

  One that ended early counts as worse than all others from then on.
  """
  rows = np.full((len(curves), epochs), -np.inf, np.float32)
  for row, curve in zip(rows, curves, strict=True):
    row[: len(curve)] = curve
  return np.median(np.where(np.isnan(rows), -np.inf, rows), axis=0)


def _best(trials) -> float:
  """The best score; minus infinity if there is none."""
  scores = [trial.score for trial in trials if trial.score is not None]
  return max(scores, default=-np.inf)


@dataclasses.dataclass(frozen=True)
class _Place:
  """A candidate in training.

  Attributes:
    tokens: int32 [L].
    state: of its training, on the host.
    curve: scores so far.
    diverged: whether its loss stopped being a number.
  """

  tokens: np.ndarray
  state: Any
  curve: tuple[float, ...] = ()
  diverged: bool = False

  def after_epoch(self, state, loss: float, score: float) -> "_Place":
    """The same, one epoch later."""
    return dataclasses.replace(
      self,
      state=state,
      # As exact as a state that is kept, so that who goes on has the same.
      curve=(*self.curve, float(np.float32(score))),
      diverged=not np.isfinite([loss, score]).all(),
    )

  def trial(self, limits: np.ndarray) -> Trial | None:
    """What came of it, if the training is over."""
    if self.diverged:
      return Trial(None, self.curve)
    epoch = len(self.curve) - 1
    if len(self.curve) == len(limits) or self.curve[epoch] < limits[epoch]:
      return Trial(max(self.curve), self.curve)
    return None
