"""Scores from scratch: each architecture is trained by itself, once.

All candidates of a space share one program, whose input is the architecture. An
executor trains them on the devices of this process (`local.py`) or of a cluster
(`remote.py`). The results of trainings are saved in a file of trials.

Shapes: N architectures, L tokens.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nao_jax.evaluators import Evaluator, Keep, Progress, forget
from nao_jax.evaluators.tally import Tally
from nao_jax.metrics import ACCURACY, Measure
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.trials import Trial, Trials
from nao_jax.spaces.space import Space


class Update(NamedTuple):
  """Changes since the previous update.

  Attributes:
    finished: new trials, which have been added to the file of trials.
    running: number of candidates in training.
    state: state of the executor, from which it can resume.
  """

  finished: list[Trial]
  running: int
  state: Any


class Executor(Protocol):
  """Interface of executors, which train candidates; states are trees of arrays.

  Attributes:
    epochs: number of epochs of each training.
    each: work unit: the data that a whole training reads.
  """

  epochs: int
  each: WorkUnit

  def init(self, template: np.ndarray) -> Any:
    """Returns the state in which no candidate trains.

    Args:
      template: int32 [L], any architecture; the state gets the shapes of its
        training.
    """

  def run(
    self,
    state: Any,
    rows: list[np.ndarray],
    limits: np.ndarray,
    trials: Trials,
    between: Callable[[], None],
  ) -> Iterator[Update]:
    """Trains candidates until all have a trial.

    The result of a candidate depends on its tokens and the limits alone. A
    caller that stops iterating leaves the other candidates in training; a later
    call that has them among its rows resumes them.

    Args:
      state: from `init` or from the last update.
      rows: distinct canonical candidates, each int32 [L]; they start in this
        order.
      limits: float32 [epochs]; a candidate whose score after an epoch is lower
        is stopped.
      trials: receives the results; a candidate with a trial there is not
        trained, and for one that another search trains its trial is awaited.
      between: called about once a second; it may raise.

    Yields:
      Updates: frequent ones, and one after the last trial.
    """


class ScratchState(NamedTuple):
  """State of the evaluator, between two rounds or within one.

  Attributes:
    limits: float32 [epochs], the least score after each epoch with `prune`.
    executor: the state of the executor.
  """

  limits: np.ndarray
  executor: Any


@dataclasses.dataclass(frozen=True)
class FromScratch(Evaluator):
  """Evaluator that trains from scratch; its state is a `ScratchState`.

  A score is the best one after any epoch, as in the official search.

  Attributes:
    space: the search space.
    executor: trains the candidates.
    trials: known results; new results are added.
    prune: whether to stop a candidate whose score after an epoch is below the
      median of the round before; the first pool is never pruned.
    measure: the metric, for messages.
  """

  space: Space
  executor: Executor
  trials: Trials
  prune: bool = False
  measure: Measure = ACCURACY

  def init(self, key: jax.Array) -> ScratchState:
    """Returns a state with no candidate in training and no limits."""
    del key
    limits = np.full(self.executor.epochs, -np.inf, np.float32)
    template = np.int32([legal[0] for legal in self.space.choices])
    return ScratchState(limits, self.executor.init(template))

  def score(
    self,
    state: ScratchState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[ScratchState, np.ndarray]:
    """Trains candidates without a trial and looks up the others.

    Implements `Evaluator.score`. The key is not used, as a trial does not
    depend on the search. A candidate whose training diverged gets the worst
    score of the others.
    """
    return self.score_async(
      state, key, tokens, round_, progress, keep, max_pending=0
    )

  def score_async(
    self,
    state: ScratchState,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
    *,
    max_pending: int,
  ) -> tuple[ScratchState, np.ndarray]:
    """Scores like `score`, but returns while some candidates are pending.

    An evaluator needs this method for `search.asynchronous`; the other
    arguments are those of `score`. In the state, candidates may be in training.

    Args:
      max_pending: the call ends when at most this many scores are missing.

    Returns:
      The new state and the scores, float32 [N]; NaN for pending ones.
    """
    del key
    canonical = self.space.canonical(tokens)
    limits = state.limits if self.prune else _no_limits(state)
    known = self._known(canonical)
    tally = Tally(
      f"round {round_}",
      "candidate",
      known,
      self.measure,
      self._with_unit(progress),
    )
    state = self._train_missing(
      canonical, state, limits, tally, keep, max_pending
    )
    if self.prune:
      tally.log_pruned(len(limits))
    trials = [self.trials.get(row) for row in canonical]
    ended = np.array([trial is not None for trial in trials])
    curves = [trial.curve for trial in trials if trial]
    state = state._replace(limits=middle(curves, len(state.limits)))
    scores = np.float32(
      [np.nan if not t or t.score is None else t.score for t in trials]
    )
    # If all candidates failed, they all get the same score.
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
    """Trains architectures without a trial, all of them to the last epoch.

    Messages show the score after the last epoch, and name an architecture
    `what`. The other arguments are those of `score`.

    Returns:
      The new state and N trials.
    """
    rows = self.space.canonical(tokens)
    tally = Tally(
      f"{what}s",
      what,
      self._known(rows),
      self.measure,
      self._with_unit(progress),
      lambda trial: trial.last,
    )
    state = self._train_missing(rows, state, _no_limits(state), tally, keep, 0)
    return state, [self.trials.get(row) for row in rows]

  def _known(self, rows) -> dict[bytes, Trial | None]:
    """Returns the trial of each canonical architecture, None if missing."""
    return {row.tobytes(): self.trials.get(row) for row in rows}

  def _train_missing(
    self, rows, state, limits, tally, keep, max_pending
  ) -> ScratchState:
    rows = list({row.tobytes(): row for row in rows}.values())
    missing = [row for row in rows if self.trials.get(row) is None]
    tally.elsewhere = lambda: self.trials.elsewhere(missing)
    tally.show()
    for update in self.executor.run(
      state.executor, missing, limits, self.trials, tally.show
    ):
      for trial in update.finished:
        tally.add(trial)
      state = state._replace(executor=update.state)
      keep(state, 1)
      tally.running = update.running
      tally.show()
      if tally.left <= max_pending:
        break
    tally.summarise()
    return state

  def _with_unit(self, progress: Progress) -> Progress:
    """Adds the work unit to the progress, unless trainings may be pruned.

    Pruned trainings differ in length, so a speed would be wrong.
    """
    if self.prune:
      return progress
    return lambda *at: progress(*at, self.executor.each)


def _no_limits(state: ScratchState) -> np.ndarray:
  """Returns limits that stop no candidate."""
  return np.full_like(state.limits, -np.inf)


def middle(curves: list[tuple[float, ...]], epochs: int) -> np.ndarray:
  """Returns the median score of candidates after each epoch, [epochs].

  A candidate that ended early counts as minus infinity from then on.
  """
  rows = np.full((len(curves), epochs), -np.inf, np.float32)
  for row, curve in zip(rows, curves, strict=True):
    row[: len(curve)] = curve
  return np.median(np.where(np.isnan(rows), -np.inf, rows), axis=0)
