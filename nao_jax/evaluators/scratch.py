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
from nao_jax.metrics import ACCURACY, Measure
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
    limits = state.limits if self.prune else _no_limits(state)
    known = self._known(canonical)
    tally = _Tally(
      f"round {round_}", "candidate", known, self.measure, self._told(progress)
    )
    state = self._train_missing(canonical, state, limits, tally, keep, late)
    if self.prune:
      tally.log_pruned(len(limits))
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

  def train(
    self,
    state: ScratchState,
    tokens: np.ndarray,
    what: str,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[ScratchState, list[Trial]]:
    """Trains what was never trained, all of it to the end; gives all trials.

    The score after the last epoch is what counts.

    Args:
      state: see `score`.
      tokens: int32 [N, L].
      what: one of the architectures is, for the messages.
      progress: see `score`.
      keep: see `score`.
    """
    rows = self.space.canonical(tokens)
    tally = _Tally(
      f"{what}s",
      what,
      self._known(rows),
      self.measure,
      self._told(progress),
      lambda trial: trial.last,
    )
    state = self._train_missing(rows, state, _no_limits(state), tally, keep, 0)
    return state, [self.trials.get(row) for row in rows]

  def _known(self, rows) -> dict[bytes, Trial | None]:
    """The trials of canonical architectures, as far as there are any."""
    return {row.tobytes(): self.trials.get(row) for row in rows}

  def _train_missing(
    self, rows, state, limits, tally, keep, late
  ) -> ScratchState:
    rows = list({row.tobytes(): row for row in rows}.values())
    missing = [row for row in rows if self.trials.get(row) is None]
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
    tally.summarise()
    return state

  def _told(self, progress: Progress) -> Progress:
    """Says how fast it goes too, where all trainings are of one length."""
    if self.prune:
      return progress
    return lambda *at: progress(*at, self.executor.each)


def _no_limits(state: ScratchState) -> np.ndarray:
  """What every candidate satisfies after each epoch."""
  return np.full_like(state.limits, -np.inf)


class _Tally:
  """What the user sees of some trainings.

  Attributes:
    done: candidates that have a trial.
    running: candidates in the middle of their training; None before the first
      look.
  """

  def __init__(
    self,
    title: str,
    what: str,
    trials: dict[bytes, Trial | None],
    measure: Measure,
    progress: Progress,
    score: Callable[[Trial], float | None] = lambda trial: trial.score,
  ):
    self._score = score
    known = list(filter(None, trials.values()))
    self.done, self.running = len(known), None
    self._title, self._what, self._total = title, what, len(trials)
    self._measure, self._progress = measure, progress
    self._best, self._trained = self._best_of(known), []
    if known:
      logging.info(
        "%s: %d of %d %ss were trained before",
        title,
        self.done,
        self._total,
        what,
      )

  @property
  def left(self) -> int:
    """Candidates without a trial."""
    return self._total - self.done

  def add(self, trial: Trial) -> None:
    """Counts and logs a training that ended."""
    self.done += 1
    self._trained.append(trial)
    self._best = max(self._best, self._best_of([trial]))
    logging.info(
      "%s %d of %d: %s", self._what, self.done, self._total, self._named(trial)
    )

  def show(self) -> None:
    """Shows how far it is."""
    notes = []
    if self.running is not None:
      waiting = self.left - self.running
      notes.append(f"{self.running} running, {waiting} waiting")
      if self._best > -np.inf:
        notes.append(f"best {self._shown(self._best)}")
    title = f"train {self._what}s"
    self._progress(title, self.done, self._total, ", ".join(notes))

  @property
  def _sound(self) -> list[Trial]:
    """The trainings that ended, and well."""
    return [trial for trial in self._trained if trial.score is not None]

  def log_pruned(self, epochs: int) -> None:
    """Logs how much was saved of trainings of so many epochs."""
    saved = sum(epochs - len(trial.curve) for trial in self._sound)
    logging.info("%s: pruning saved %d epochs", self._title, saved)

  def summarise(self) -> None:
    """Warns of trainings that came to nothing."""
    lost = sum(trial.lost for trial in self._trained)
    diverged = len(self._trained) - len(self._sound) - lost
    for count, fault in ((diverged, "diverged"), (lost, "have no training")):
      if count:
        logging.warning("%s: %d %ss %s", self._title, count, self._what, fault)

  def _named(self, trial: Trial) -> str:
    if trial.lost:
      return "failed"
    score = self._score(trial)
    return "diverged" if score is None else self._shown(score)

  def _best_of(self, trials: list[Trial]) -> float:
    """The best score; minus infinity if there is none."""
    scores = map(self._score, trials)
    return max((s for s in scores if s is not None), default=-np.inf)

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
