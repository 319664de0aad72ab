"""Scores from scratch: train each architecture alone, once in a lifetime.

All candidates of a space run in one program, in which the architecture is data;
an executor says where: on the devices of this process (`local.py`) or in those
of a cluster (`remote.py`). What a training gave is remembered in a file of
trials.

Shapes: N architectures, L tokens.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple, Protocol

from absl import logging
import jax
import numpy as np

from nao_jax.evaluators import Keep, Progress, forget
from nao_jax.measures import ACCURACY, Measure
from nao_jax.runs.progress import Each
from nao_jax.runs.trials import Trial, Trials
from nao_jax.spaces.space import Space


class News(NamedTuple):
  """What came of trainings since the last news.

  Attributes:
    finished: trials that there are now; their file has them.
    running: how many candidates are in training.
    state: of the executor, to go on from.
  """

  finished: list[Trial]
  running: int
  state: Any


class Executor(Protocol):
  """Where candidates train; its state is a tree of arrays.

  Attributes:
    epochs: of each training.
    each: what a whole training reads.
  """

  epochs: int
  each: Each

  def init(self, anybody: np.ndarray) -> Any:
    """The state in which no candidate trains.

    Args:
      anybody: int32 [L], some architecture.
    """

  def run(
    self,
    state: Any,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials: Trials,
    between: Callable[[], None],
  ) -> Iterator[News]:
    """Trains candidates until all have a trial.

    What comes of a candidate depends on nothing but its tokens and the limits.
    Whoever takes no more news leaves the others in training, and goes on with
    another call that has them among its rows.

    Args:
      state: from `init`, or of the last news.
      rows: int32 [L] of each, canonical, no two alike; the first ones go first.
      limits: float32 [epochs], the least score after each epoch of a candidate
        that goes on.
      trials: where the results go; what is found there is not trained.
      between: called about once a second; it may raise.

    Yields:
      News, often, and once more after the last trial.
    """


class ScratchState(NamedTuple):
  """What the evaluator is, between two rounds or within one.

  Attributes:
    limits: float32 [epochs], what `prune` asks for after each epoch.
    executor: the state of the executor.
  """

  limits: np.ndarray
  executor: Any


@dataclasses.dataclass(frozen=True)
class FromScratch:
  """An evaluator whose state is a ScratchState.

  A score is the best one after any epoch, as in the official search.

  Attributes:
    space: the architectures.
    executor: what trains them, and where.
    trials: what is known already, and where results go.
    prune: stop a candidate when it is worse after an epoch than half of the
      pool of the round before was; the first pool is never pruned.
    measure: what scores are for people.
  """

  space: Space
  executor: Executor
  trials: Trials
  prune: bool = False
  measure: Measure = ACCURACY

  def init(self, key: jax.Array) -> ScratchState:
    """Nobody trains, and nothing is asked for yet."""
    del key
    limits = np.full(self.executor.epochs, -np.inf, np.float32)
    anybody = np.int32([legal[0] for legal in self.space.choices])
    return ScratchState(limits, self.executor.init(anybody))

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
    return self.score_most(state, key, tokens, round_, progress, keep, late=0)

  def score_most(
    self,
    state: ScratchState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
    *,
    late: int,
  ) -> tuple[ScratchState, np.ndarray]:
    """As `score`, but that some candidates may be late; see `Asynchronous`."""
    del key
    canonical = self.space.canonical(tokens)
    state = self._train_missing(canonical, state, round_, progress, keep, late)
    trials = [self.trials.get(row) for row in canonical]
    ended = np.array([trial is not None for trial in trials])
    curves = [trial.curve for trial in trials if trial]
    state = state._replace(limits=middle(curves, len(state.limits)))
    scores = np.float32(
      [np.nan if not t or t.score is None else t.score for t in trials]
    )
    # Of nothing but failures all are as bad.
    worst = 0.0 if np.isnan(scores).all() else np.nanmin(scores)
    scores[ended & np.isnan(scores)] = worst
    return state, scores

  def _train_missing(
    self, rows, state, round_, progress, keep, late
  ) -> ScratchState:
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
    for news in self.executor.run(
      state.executor, missing, limits, self.trials, tally.show
    ):
      for trial in news.finished:
        tally.add(trial)
      state = state._replace(executor=news.state)
      keep(state, 1)
      tally.running = news.running
      tally.show()
      if tally.left <= late:
        break
    tally.summarise(round_, len(limits) if self.prune else None)
    return state

  def _told(self, progress: Progress) -> Progress:
    """Says how fast it goes too, where all trainings are of one length."""
    if self.prune:
      return progress
    return lambda *at: progress(*at, self.executor.each)


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

  @property
  def left(self) -> int:
    """Candidates without a trial."""
    return self._total - self.done

  def add(self, trial: Trial) -> None:
    """Counts and logs a training that ended."""
    self.done += 1
    self._trained.append(trial)
    self._best = max(self._best, _best([trial]))
    logging.info(
      "candidate %d of %d: %s", self.done, self._total, self._named(trial)
    )

  def show(self) -> None:
    """Shows how far it is."""
    notes = []
    if self.running is not None:
      waiting = self.left - self.running
      notes.append(f"{self.running} running, {waiting} waiting")
      if self._best > -np.inf:
        notes.append(f"best {self._shown(self._best)}")
    self._progress("train candidates", self.done, self._total, ", ".join(notes))

  def summarise(self, round_: int, epochs: int | None) -> None:
    """Logs what was decided; `epochs` of a training, if some were pruned."""
    sound = [trial for trial in self._trained if trial.score is not None]
    lost = sum(trial.lost for trial in self._trained)
    diverged = len(self._trained) - len(sound) - lost
    if diverged:
      logging.warning("round %d: %d candidates diverged", round_, diverged)
    if lost:
      logging.warning("round %d: %d candidates have no training", round_, lost)
    if epochs is not None:
      saved = sum(epochs - len(trial.curve) for trial in sound)
      logging.info("round %d: pruning saved %d epochs", round_, saved)

  def _named(self, trial: Trial) -> str:
    if trial.lost:
      return "failed"
    return "diverged" if trial.score is None else self._shown(trial.score)

  def _shown(self, score: float) -> str:
    return f"{self._measure.name} {self._measure.show(score)}"


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
