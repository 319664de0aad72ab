"""Progress of trainings from scratch, for the user."""

from collections.abc import Callable

from absl import logging
import numpy as np

from nao_jax.evaluators import Progress
from nao_jax.metrics import Measure
from nao_jax.runs.trials import Trial


class Tally:
  """Counter of trainings that shows their progress.

  Attributes:
    done: number of candidates that have a trial.
    running: number of candidates in training; None before the first update.
    elsewhere: returns the other processes that train some of the rest.
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
    self.elsewhere: Callable[[], list[str]] = list
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
    """Number of candidates without a trial."""
    return self._total - self.done

  def add(self, trial: Trial) -> None:
    """Counts and logs a training that has ended."""
    self.done += 1
    self._trained.append(trial)
    self._best = max(self._best, self._best_of([trial]))
    logging.info(
      "%s %d of %d: %s", self._what, self.done, self._total, self._result(trial)
    )

  def show(self) -> None:
    """Reports the progress."""
    notes = []
    if self.running is not None:
      waiting = self.left - self.running
      notes.append(f"{self.running} running, {waiting} waiting")
    if owners := self.elsewhere():
      others = " and others" if len({*owners}) > 1 else ""
      notes.append(f"{len(owners)} trained by {owners[0]}{others}")
    if self.running is not None and self._best > -np.inf:
      notes.append(f"best {self._shown(self._best)}")
    title = f"train {self._what}s"
    self._progress(title, self.done, self._total, ", ".join(notes))

  @property
  def _sound(self) -> list[Trial]:
    """Trials that have a score."""
    return [trial for trial in self._trained if trial.score is not None]

  def log_pruned(self, epochs: int) -> None:
    """Logs how many epochs pruning saved, of `epochs` for each training."""
    saved = sum(epochs - len(trial.curve) for trial in self._sound)
    logging.info("%s: pruning saved %d epochs", self._title, saved)

  def summarise(self) -> None:
    """Warns of trainings without a score."""
    lost = sum(trial.lost for trial in self._trained)
    diverged = len(self._trained) - len(self._sound) - lost
    for count, fault in ((diverged, "diverged"), (lost, "have no training")):
      if count:
        logging.warning("%s: %d %ss %s", self._title, count, self._what, fault)

  def _result(self, trial: Trial) -> str:
    if trial.lost:
      return "failed"
    score = self._score(trial)
    return "diverged" if score is None else self._shown(score)

  def _best_of(self, trials: list[Trial]) -> float:
    """Returns the best score; minus infinity if there is none."""
    scores = map(self._score, trials)
    return max((s for s in scores if s is not None), default=-np.inf)

  def _shown(self, score: float) -> str:
    return f"{self._measure.name} {self._measure.show(score)}"
