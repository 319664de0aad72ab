"""A complete final training for a task, from settings to its test part."""

import os
import pathlib
import time
from typing import Any

from absl import logging
import numpy as np

from nao_jax import parallel, settings
from nao_jax.distributed.team import leading
from nao_jax.distributed.training import FeedHelper, TeamFeed
from nao_jax.runs import streams
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.workdir import Workdir
from nao_jax.settings import flatten
from nao_jax.tasks.task import DEFAULT_OPTIONS, RunOptions, Task
from nao_jax.tasks.training import FinalTraining, keys, pack, restore
from nao_jax.training.feeds import Call, Feed


@in_32_bits
def run(
  task: Task,
  config: Any,
  *,
  workdir: str | os.PathLike,
  options: RunOptions = DEFAULT_OPTIONS,
) -> dict | None:
  """Trains one architecture and measures it once on the test part.

  Args:
    task: the data.
    config: all settings, as the task's `open_training` takes them.
    workdir: the workdir of the run; a stopped run is resumed; a finished one is
      not repeated, its result is returned.
    options: devices, checkpoints, progress and processes. Several processes
      train together.

  Returns:
    The content of result.json; None in a helper process.

  Raises:
    UserError: a setting, the data or the workdir does not allow the training,
      which is raised before anything long runs; or the training diverged.
    Stopped: a signal stopped the run; the same call resumes it.
  """
  settings.validate(config)
  parallel.check(options.devices)
  training, feed = task.open_training(config, options.devices)
  if (team := options.team) is not None:
    team.compare(training.identity)
    if not team.first:
      return team.help(FeedHelper(feed, team, training.init()).handlers)
    feed = TeamFeed(feed, team)
  with (
    leading(team),
    Workdir(
      workdir,
      flatten(training),
      "result.json",
      options.checkpoints,
      plain=options.plain,
      loggers=options.loggers,
    ) as journal,
  ):
    if result := journal.finished(*training.numbers):
      logging.info("%s holds this training, finished; nothing to do", workdir)
    else:
      state = _train(training, feed, journal)
      result = training.result(state, feed)
      journal.finish(result)
      journal.tracking.artefacts("result.json", "history.jsonl")
    _show(training.lines(result), journal.path / "result.json")
  return result


def _train(training: FinalTraining, feed: Feed, journal: Workdir) -> Any:
  """Trains from the last checkpoint to the end; returns the last state."""
  state, key = training.init(), keys(training.config.seed)[1]
  journal.check_space(pack(training, state))
  if (restored := restore(training, journal.checkpoints)) is not None:
    state = restored
    logging.info(
      "resuming after %d of %d %s",
      training.done(state),
      training.total,
      training.phase,
    )
  log = _Log(training, journal, state)
  epochs = training.config.train.epochs
  while training.epochs_done(state) < epochs:
    for call in feed.train(state, key):
      state = _after(call, training, feed, log)
      if state is None:
        state = training.recover(call)
        log.rewind(state)
        break
      last = call.ends_epoch and training.epochs_done(state) == epochs
      journal.keep(pack(training, state), len(call.losses), last=last)
      log.show()
  return state


def _after(call: Call, training: FinalTraining, feed: Feed, log: "_Log") -> Any:
  """Returns the state after a call; None if the training diverged."""
  if call.diverged:
    return None
  log.add(call)
  if not call.ends_epoch:
    return call.state
  ended = training.end_epoch(call.state, feed)
  if ended is None:
    return None
  state, measured = ended
  log.report(training.epochs_done(state) - 1, measured)
  return state


class _Log:
  """Progress and reports of a training."""

  def __init__(self, training: FinalTraining, journal: Workdir, state: Any):
    self._training, self._journal = training, journal
    self.rewind(state)

  def rewind(self, state: Any) -> None:
    """Discards the reports that are not part of the state."""
    self._journal.rewind("epoch", self._training.epochs_done(state))
    self._done = self._training.done(state)
    self._start_epoch(None)

  def _start_epoch(self, start: tuple[float, int] | None) -> None:
    """Starts to count; `start` is (seconds, work done)."""
    self._losses, self._start = [], start
    best = self._journal.lowest(self._training.metric)
    self._journal.progress.best = best

  def add(self, call: Call) -> None:
    """Counts the work and the losses of one call."""
    self._losses += call.losses.tolist()
    self._done += call.work
    self._end = time.monotonic(), self._done
    # The first call after a start compiles, and does not count for the rate.
    self._start = self._start or self._end

  def show(self) -> None:
    """Shows the progress so far."""
    training = self._training
    self._journal.progress(
      training.phase, self._done, training.total, each=training.each
    )

  def report(self, epoch: int, measured: dict) -> None:
    """Reports a finished epoch.

    Args:
      epoch: its number, from 0.
      measured: further entries of the report.
    """
    report = {"epoch": epoch}
    if self._losses:
      # If the epoch was resumed after a stop, only the steps since then.
      report["steps"] = len(self._losses)
      report["loss"] = float(np.mean(self._losses))
    (start, first), (end, last) = self._start, self._end
    if last > first:
      each = self._training.each
      rate = (last - first) * each.count / (end - start)
      report[f"{each.name}_per_second"] = round(rate, 1)
    report |= measured
    self._journal.report("epoch", report)
    logging.info(
      "epoch %d: %s",
      epoch,
      ", ".join(f"{k} {v:.6g}" for k, v in report.items() if k != "epoch"),
    )
    self._start_epoch((time.monotonic(), self._done))


def _show(lines: tuple[str, ...], file: pathlib.Path) -> None:
  *others, last = lines
  for line in (*others, f"{last}; in {file}"):
    streams.console().print(line, highlight=False, markup=False, soft_wrap=True)
