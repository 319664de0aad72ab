"""The files of a run, and how it stops and resumes from them.

config.json      every setting, seed, versions, git revision, command
history.jsonl    one line a round or an epoch
events.*         the same for TensorBoard
trackers.json    identities of the run in other trackers; see tracker_file.py
status.json      progress, and the seconds of each phase; see status.py
checkpoints*/    the last states
best.json, or    the result; it is written last and marks the run as
result.json      finished
"""

from collections.abc import Sequence
import contextlib
import json
import os
import pathlib
import shutil
import time
import typing

from nao_jax.errors import Stopped, UserError, in_a_line, storage_fault
from nao_jax.runs import checkpoint, config_file, files, json_file, lock, paths
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.compile_time import CompileTime
from nao_jax.runs.interruption import Interruption
from nao_jax.runs.loggers import Logger, Tracking
from nao_jax.runs.progress import Progress
from nao_jax.runs.status import StatusFile


class Workdir:
  """The directory of one run, which may be interrupted at any moment.

  Use it as a context manager: no other process can use the directory, Ctrl-C
  and SIGTERM wait until the state is saved, the progress bar is removed from
  the terminal at the end, and a full disk raises a UserError.

  Attributes:
    path: the directory.
    progress: shows the progress to the user; raises Stopped, as `keep` does.
    tracking: TensorBoard and further loggers, started by `rewind`.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    settings: dict,
    outcome: str,
    checkpoints: CheckpointConfig = DEFAULT,
    *,
    plain: bool = False,
    loggers: Sequence[Logger] = (),
  ):
    """Takes the directory of a new run, or of a run to resume.

    Args:
      path: created if it does not exist.
      settings: JSON-like; all settings that determine the result.
      outcome: name of the file that is written last.
      checkpoints: when `keep` saves.
      plain: whether to show lines on a terminal, too.
      loggers: further places for metrics and results.

    Raises:
      UserError: the directory cannot be written, holds something else, or
        another process works there.
    """
    # A program may change its working directory.
    self.path = paths.expanded(path).absolute()
    self._outcome = self.path / outcome
    self._states = "checkpoints"
    self._config = checkpoints
    self._kept, self._steps, self._saved_at = None, 0, time.monotonic()
    self._interruption = Interruption()
    self._compiling = CompileTime()
    self.tracking = Tracking(self.path, settings, loggers)
    self._status = StatusFile(self.path, lambda: self._compiling.seconds)
    self.progress = Progress(
      before=self._stop_if_asked, record=self._status.record, plain=plain
    )
    try:
      with contextlib.ExitStack() as stack:
        stack.enter_context(_claim(self.path))
        config_file.write_or_compare(self.path, settings)
        self._held = stack.pop_all()
    except OSError as error:
      raise UserError(
        f"`workdir={path}`: cannot be written ({error.strerror}); give another"
      ) from error

  def __enter__(self) -> typing.Self:
    self._held.enter_context(self._interruption)
    self._held.enter_context(self._compiling)
    self._held.callback(self.progress.close)
    return self

  def __exit__(self, kind, error, trace) -> None:
    with self._held:
      self._status.end(_state(error))
      self.tracking.stop(_state(error))
    if fault := storage_fault(error):
      raise UserError(
        f"`workdir={self.path}`: {fault}; what was saved before is safe: when "
        "that is mended, the same command resumes the run"
      ) from error

  def check_space(self, state: typing.Any) -> None:
    """Raises UserError if there is no room for checkpoints of such a state."""
    needed = checkpoint.bytes_on_disk(state)
    free = shutil.disk_usage(self.path).free
    if free < needed:
      raise UserError(
        f"`workdir={self.path}`: checkpoints need {needed / 1e6:.0f} MB, and "
        f"{free / 1e6:.0f} MB are free; make room or give another directory"
      )

  def keep(self, state: typing.Any, steps: int, *, last: bool = False) -> None:
    """Saves a state if a save is due.

    Args:
      state: a pytree of arrays, from which the run can go on; its arrays must
        not change until the next call of `keep` or `progress`.
      steps: number of steps since the last call.
      last: save it in any case.

    Raises:
      Stopped: a signal asked to stop; the state is saved.
    """
    self._kept = state
    self._steps += steps
    minutes = (time.monotonic() - self._saved_at) / 60
    due = minutes >= self._config.minutes
    due |= 0 < self._config.steps <= self._steps
    if due or last:
      self._save()
    self._stop_if_asked()

  def _save(self) -> None:
    checkpoint.save(self.checkpoints, self._kept)
    self._kept, self._steps, self._saved_at = None, 0, time.monotonic()

  def _stop_if_asked(self) -> None:
    if self._interruption.signal is None:
      return
    if self._kept is not None:
      self._save()
    raise Stopped(
      f"stopped; all is saved in {self.path}, and the same command resumes "
      "the run",
      self._interruption.signal,
    )

  @property
  def checkpoints(self) -> pathlib.Path:
    """The folder of the states."""
    return self.path / self._states

  def begin_stage(self, name: str, state: typing.Any) -> typing.Any:
    """Starts a stage, whose states are saved in a separate folder.

    Args:
      name: name of the stage; a run begins each once.
      state: the initial state.

    Returns:
      The state that was saved last in this stage; by default the given one.
    """
    self._states = f"checkpoints_{name}"
    self._kept, self._steps = None, 0
    self.check_space(state)
    saved = checkpoint.restore(self.checkpoints, state)
    return state if saved is None else saved

  def end_stage(self) -> None:
    """Deletes the states of a stage whose results are saved elsewhere."""
    self._kept, self._steps = None, 0
    shutil.rmtree(self.checkpoints, ignore_errors=True)

  def finished(self, *numbers: str) -> dict | None:
    """Returns the result if this run has ended, else None.

    Args:
      numbers: entries that must be numbers, such as `test.loss`.

    Raises:
      UserError: the file is damaged.
    """
    if not self._outcome.exists():
      return None
    place = str(self._outcome)
    advice = "move it away, and the same command writes it again"
    found = json_file.read(
      place, place=place, wanted="the outcome of a run", advice=advice
    )
    for name in numbers:
      if not isinstance(_entry(found, name), (int, float)):
        raise UserError(f"{place}: `{name}` is not a number; {advice}")
    return found

  def finish(self, outcome: dict) -> None:
    """Writes the result; from now on the run counts as finished."""
    files.write(self._outcome, json.dumps(outcome, indent=2) + "\n")
    self._status.end("finished")

  def history(self) -> list[dict]:
    """Returns all reports; raises UserError if one is damaged."""
    if not self._history.exists():
      return []
    return json_file.read_lines(
      self._history, wanted="a report", advice="take that line out"
    )

  def lowest(self, name: str) -> str:
    """Describes the report with the lowest value of this name, if any."""
    numbers = (int, float)
    rows = [x for x in self.history() if isinstance(x.get(name), numbers)]
    if not rows:
      return ""
    best = min(rows, key=lambda row: row[name])
    return f"{name.replace('_', ' ')} {best[name]:.4g} (epoch {best['epoch']})"

  def rewind(self, axis: str, position: int) -> None:
    """Drops the reports of work that is not in the restored state.

    Args:
      axis: the entry of a report that counts: `round` or `epoch`.
      position: the first round or epoch to drop.
    """
    rows = self.history()
    for number, row in enumerate(rows, 1):
      if "stage" not in row and type(row.get(axis)) is not int:
        raise UserError(
          f"{self._history}: line {number}: `{axis}` is not a whole number; "
          "take that line out"
        )
    # A stage after the rounds reports again when it ends again.
    rows = [r for r in rows if "stage" not in r and r[axis] < position]
    files.write(self._history, "".join(json.dumps(row) + "\n" for row in rows))
    self.tracking.start(position)

  def report(self, axis: str, report: dict) -> None:
    """Appends a report; its numbers go to TensorBoard and other loggers, too.

    Args:
      axis: the entry that is their step.
      report: JSON-like.
    """
    self.append(report)
    others = {k: v for k, v in report.items() if k != axis}
    self.tracking.metrics(others, report[axis])

  def append(self, report: dict) -> None:
    """Appends a report, JSON-like, to the history alone."""
    with self._history.open("a") as file:
      file.write(json.dumps(report) + "\n")

  @property
  def _history(self) -> pathlib.Path:
    return self.path / "history.jsonl"


def _state(error: BaseException | None) -> str:
  """Describes how a run ended."""
  if error is None:
    return "finished"
  if isinstance(error, Stopped | KeyboardInterrupt):
    return "stopped"
  return f"failed ({in_a_line(error)})"


def _claim(path: pathlib.Path) -> lock.Lock:
  """Locks the directory; creates it if it does not exist."""
  path.mkdir(parents=True, exist_ok=True)
  _refuse_foreign(path)
  lock.check_possible(path)
  return lock.Lock(path, f"`workdir={path}`")


def _entry(found: dict, name: str):
  """Returns the value of a dotted name such as `test.loss`, or None."""
  for part in name.split("."):
    found = found.get(part) if isinstance(found, dict) else None
  return found


def _refuse_foreign(path: pathlib.Path) -> None:
  names = {file.name for file in path.iterdir() if file.suffix != ".partial"}
  if "config.json" not in names and names - {lock.NAME}:
    raise UserError(
      f"`workdir={path}`: holds files but no config.json, so it is no run to "
      "resume; give an empty or a new directory"
    )
