"""Scores from scratch: train each architecture alone, once in a lifetime.

All candidates of a space run in one program, in which the architecture is data;
each local device trains another one. What a training gave is remembered in a
file of trials.

Shapes: N architectures, L tokens, D devices.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any, Protocol

from absl import logging
import jax
import numpy as np

from nao_jax.evaluators.shared import Progress
from nao_jax.measures import ACCURACY, Measure
from nao_jax.spaces.space import Space
from nao_jax.trials import Trial, Trials


class Candidates(Protocol):
  """How candidates of one kind train.

  What comes of a candidate depends on nothing but its tokens: neither on the
  others nor on the number of devices.

  Attributes:
    epochs: of each training.
    places: how many candidates train at a time, D.
  """

  epochs: int
  places: int

  def start(self, tokens: np.ndarray) -> Any:
    """The state of a candidate before its first epoch, on the host."""

  def epoch(
    self, tokens: list[np.ndarray], states: list[Any], epochs: list[int]
  ) -> list[tuple[Any, float, float]]:
    """Trains D candidates for an epoch.

    Args:
      tokens: int32 [L] of each.
      states: of each, from `start` or from the epoch before.
      epochs: the number of this epoch for each, from 0.

    Returns:
      For each the new state, the mean loss, and the score; higher is better.
    """


@dataclasses.dataclass(frozen=True)
class FromScratch:
  """An evaluator whose state is what `prune` compares with.

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

  def init(self, key: jax.Array) -> np.ndarray:
    """What `prune` asks for after each epoch, [epochs]: nothing yet."""
    del key
    return np.full(self.candidates.epochs, -np.inf, np.float32)

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
    limits = state if self.prune else np.full_like(state, -np.inf)
    self._train_missing(canonical, limits, round_, progress)
    trials = [self.trials.get(row) for row in canonical]
    state = middle([trial.curve for trial in trials], len(state))
    scores = np.float32(
      [np.nan if t.score is None else t.score for t in trials]
    )
    # Of nothing but failures all are as bad.
    worst = 0.0 if np.isnan(scores).all() else np.nanmin(scores)
    return state, np.where(np.isnan(scores), np.float32(worst), scores)

  def _train_missing(self, rows, limits, round_, progress) -> None:
    rows = list({row.tobytes(): row for row in rows}.values())
    known = [self.trials.get(row) for row in rows]
    missing = [
      row for row, trial in zip(rows, known, strict=True) if trial is None
    ]
    done, failed, saved = len(rows) - len(missing), 0, 0
    best = _best(trial for trial in known if trial)
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
        best = max(best, _best([trial]))
        if trial.score is not None:
          saved += len(limits) - len(trial.curve)
        logging.info(
          "candidate %d of %d: %s",
          done,
          len(rows),
          self._shown(trial),
        )
      waiting = len(rows) - done - running
      note = f"{running} running, {waiting} waiting"
      if best > -np.inf:
        note += f", best {self.measure.name} {self.measure.show(best)}"
      progress("train candidates", done, len(rows), note)
    if failed:
      logging.warning("round %d: %d candidates diverged", round_, failed)
    if self.prune:
      logging.info("round %d: pruning saved %d epochs", round_, saved)

  def _shown(self, trial: Trial) -> str:
    if trial.score is None:
      return "diverged"
    return f"{self.measure.name} {self.measure.show(trial.score)}"

  def _next(self, waiting, finished) -> "_Place | None":
    """The next candidate to train; what was trained meanwhile is finished."""
    while waiting:
      tokens = waiting.pop(0)
      trial = self.trials.get(tokens)
      if trial is None:
        return _Place(tokens, self.candidates.start(tokens))
      finished.append((tokens, trial))
    return None

  def _run(
    self, rows, limits
  ) -> Iterator[tuple[list[tuple[np.ndarray, Trial]], int]]:
    """Trains candidates, D at a time; a free place goes to the next one.

    Yields:
      After each epoch, the candidates that finished with it, and how many are
      in the middle of their training.
    """
    waiting = list(rows)
    places = [None] * self.candidates.places
    while waiting or any(places):
      finished = []
      for at, place in enumerate(places):
        if place is None:
          places[at] = self._next(waiting, finished)
      if not any(places):
        yield finished, 0
        continue
      # A place without a candidate repeats another's work.
      busy = next(place for place in places if place)
      running = [place or busy for place in places]
      trained = self.candidates.epoch(
        [place.tokens for place in running],
        [place.state for place in running],
        [len(place.curve) for place in running],
      )
      for at, (place, result) in enumerate(zip(places, trained, strict=True)):
        if place is None:
          continue
        places[at] = place.after_epoch(*result)
        if trial := places[at].trial(limits):
          finished.append((place.tokens, trial))
          places[at] = None
      yield finished, sum(place is not None for place in places)


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
      curve=(*self.curve, float(score)),
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
