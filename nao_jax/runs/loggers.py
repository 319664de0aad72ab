"""Places to which a run writes its metrics, parameters and artefacts."""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import io
import json
import pathlib
from typing import Any, Protocol

from absl import logging
import tensorboardX

from nao_jax.errors import UserError, in_a_line
from nao_jax.runs import files, tracker_file

_COLUMNS = ("step", "name", "value")


class Logger(Protocol):
  """Interface of a place for metrics, parameters and artefacts.

  A logger may raise any exception: the run warns once and goes on without it.
  Only a UserError of `start` ends the run.
  """

  def start(
    self, workdir: pathlib.Path, parameters: dict[str, Any], step: int
  ) -> None:
    """Starts, or continues after a stop.

    Args:
      workdir: the workdir of the run.
      parameters: all settings, {dotted name: JSON-like value}.
      step: the first round or epoch to come; metrics of later ones that are
        there come again, with the same values.
    """

  def metrics(self, values: dict[str, float], step: int) -> None:
    """Logs numbers of a round or an epoch."""

  def artefact(self, file: pathlib.Path) -> None:
    """Logs a file of the workdir; by default does nothing."""

  def stop(self, state: str) -> None:
    """Ends: `finished`, `stopped` or `failed (..)`; by default does nothing."""


class TensorBoard(Logger):
  """Logger of metrics to event files in the workdir."""

  def start(
    self, workdir: pathlib.Path, parameters: dict[str, Any], step: int
  ) -> None:
    """Implements `Logger.start`."""
    del parameters  # They are in config.json.
    self._events = tensorboardX.SummaryWriter(str(workdir), purge_step=step)

  def metrics(self, values: dict[str, float], step: int) -> None:
    """Implements `Logger.metrics`."""
    for name, value in values.items():
      self._events.add_scalar(name, value, step)
    self._events.flush()

  def stop(self, state: str) -> None:
    """Implements `Logger.stop`."""
    # All is flushed; on a disk that is full, closing would wait.
    if state == "finished":
      self._events.close()


def unseen(
  values: dict[str, float], step: int, seen: dict[str, int]
) -> dict[str, float]:
  """Returns the values that do not come again; seen has names' last steps."""
  return {k: v for k, v in values.items() if step > seen.get(k, -1)}


@dataclasses.dataclass
class Lines(Logger):
  """Logger of metrics to a text file, one metric a line.

  Attributes:
    ending: `csv` or `jsonl`.
    file: the file; `metrics.csv` or `metrics.jsonl` in the workdir if empty.
  """

  ending: str
  file: str = ""

  def start(
    self, workdir: pathlib.Path, parameters: dict[str, Any], step: int
  ) -> None:
    """Implements `Logger.start`.

    Raises:
      UserError: the file is another run's.
    """
    del parameters
    self._path = pathlib.Path(self.file or workdir / f"metrics.{self.ending}")
    head = self._text([_COLUMNS]) if self.ending == "csv" else ""
    text = self._complete() or head
    if self.file:
      # Earlier versions did not note the files of runs, which may resume.
      if text != head and not step:
        self._check_own(workdir)
      tracker_file.remember(workdir, self._name, True)
    rows = self._rows(text)
    self._seen = {name: int(last) for last, name, _ in rows}
    files.write(self._path, text)

  def _complete(self) -> str:
    """Returns the text of the file up to the last newline.

    What follows is torn: a full disk or a loss of power ended it.
    """
    if not self._path.exists():
      return ""
    content = self._path.read_bytes()
    return content[: content.rfind(b"\n") + 1].decode()

  def _check_own(self, workdir: pathlib.Path) -> None:
    if not tracker_file.known(workdir, self._name):
      raise UserError(
        f"`track={self._name}`: holds something else than the metrics of "
        f"`workdir={workdir}`; give another file"
      )

  @property
  def _name(self) -> str:
    return f"{self.ending}:{self.file}"

  def _rows(self, text: str) -> Sequence[Sequence[Any]]:
    lines = io.StringIO(text, newline="")
    if self.ending == "csv":
      return [*csv.reader(lines)][1:]
    rows = [json.loads(line) for line in lines]
    return [[row[name] for name in _COLUMNS] for row in rows]

  def _text(self, rows: Iterable[Sequence[Any]]) -> str:
    if self.ending == "jsonl":
      found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
      return "".join(f"{json.dumps(row)}\n" for row in found)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()

  def metrics(self, values: dict[str, float], step: int) -> None:
    """Implements `Logger.metrics`; those that are there are left alone."""
    values = unseen(values, step, self._seen)
    with self._path.open("a", encoding="utf-8") as file:
      file.write(self._text((step, *item) for item in values.items()))


class Tracking:
  """TensorBoard and the loggers of a run, of which none can stop it."""

  def __init__(
    self,
    workdir: pathlib.Path,
    parameters: dict[str, Any],
    loggers: Sequence[Logger] = (),
  ):
    """Starts nothing yet; see `Logger` for the arguments."""
    self._workdir, self._parameters = workdir, parameters
    self._loggers: list[Logger] = [TensorBoard(), *loggers]
    self._started = False

  def start(self, step: int) -> None:
    """Starts all loggers, see `Logger.start`."""
    self._each("start", self._workdir, self._parameters, step)
    self._started = True

  def metrics(self, values: dict[str, Any], step: int) -> None:
    """Logs those of the values that are numbers."""
    numbers = {k: v for k, v in values.items() if isinstance(v, (int, float))}
    self._each("metrics", numbers, step)

  def artefacts(self, *names: str) -> None:
    """Logs files of the workdir, as far as they exist."""
    for name in names:
      if (self._workdir / name).exists():
        self._each("artefact", self._workdir / name)

  def stop(self, state: str) -> None:
    """Stops all loggers, if they were started."""
    if self._started:
      self._started = False
      self._each("stop", state)

  def _each(self, method: str, *arguments: Any) -> None:
    for logger in [*self._loggers]:
      try:
        getattr(logger, method)(*arguments)
      except Exception as error:
        # TensorBoard's files are part of the workdir, and before anything
        # long the user can give another place.
        refused = method == "start" and isinstance(error, UserError)
        if refused or isinstance(logger, TensorBoard):
          raise
        self._loggers.remove(logger)
        logging.warning(
          "%s: %.300s; it gets no more of this run, which goes on",
          type(logger).__name__,
          in_a_line(error),
        )
