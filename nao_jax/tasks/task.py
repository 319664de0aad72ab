"""Interface of a task: the cells and data of a search.

`experiment.run` takes a `Task` and the settings of a search. A task describes
its `Cells` before the data are loaded, and opens the data as an `OpenTask`,
which evaluates cells. Its final trainings, if any, are described in
`training`. `images.Images` and `texts.Texts` are the tasks that ship; a new one
implements `Cells`, `OpenTask` and `Task`, and may inherit their defaults.

Shapes: A architectures, L tokens, P ops, B positions of a cell with an op.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from nao_jax.distributed.team import Team
from nao_jax.evaluators import Evaluator
from nao_jax.evaluators.local import Candidates
from nao_jax.metrics import Measure
from nao_jax.objectives import CostConstraint
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.loggers import Logger
from nao_jax.search.config import ExperimentConfig, FinalConfig, FinalistConfig
from nao_jax.spaces.space import Space
from nao_jax.strategies.proxies import Proxy
from nao_jax.tasks.training import FinalTraining
from nao_jax.training.feeds import Feed

if TYPE_CHECKING:
  from matplotlib.figure import Figure


class Cells(Protocol):
  """The kind of cells of a search, as determined by the settings alone.

  No data are needed, so reports know the cells of any search.

  Tokens are those of `space.plain`.

  Attributes:
    settings: the settings of the search, flat: {dotted name: value}.
    space: the search space.
    measure: the metric.
    description: the cells in words, in the plural.
    parts: name of the parts of a cell that have an op, in the plural.
    example: name of one example of the data.
    data: name of the data.
    op_names: names of the P ops.
  """

  settings: dict[str, Any]
  space: Space
  measure: Measure
  description: str
  parts: str
  example: str
  data: str
  op_names: tuple[str, ...]

  def ops(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the ops of architectures [A, L], int [A, B]."""
    raise NotImplementedError

  def figures(self, tokens: np.ndarray) -> dict[str, "Figure"]:
    """Draws an architecture [L]; returns {caption: figure}."""
    raise NotImplementedError

  def draw(self, tokens: np.ndarray, files: Sequence[os.PathLike]) -> None:
    """Draws an architecture [L] into files; suffixes determine their formats.

    Raises:
      NotImplementedError: there are several figures, so the class needs a
        method `draw` of its own.
    """
    figures = self.figures(tokens)
    if len(figures) != 1:
      raise NotImplementedError(
        f"{type(self).__name__}.figures gives {len(figures)} figures, and a "
        "file holds one; implement `draw`, too"
      )
    # Late: a fifth of what a search imports is for drawings, at its end.
    from nao_jax.drawing import canvas

    (figure,) = figures.values()
    canvas.save(figure, files)

  def costs(self, tokens: np.ndarray, best: dict) -> list[tuple[str, str, str]]:
    """Returns the costs of an architecture [L] for a table.

    Args:
      tokens: the architecture.
      best: the content of best.json; empty before a search has ended.

    Returns:
      Rows of network, parameters and multiply-adds; empty if costs are unknown.
    """
    del tokens, best
    return []


# Returns the kind of cells for the settings of a run; raises KeyError where a
# setting is missing.
CellsOf = Callable[[dict[str, Any]], Cells]


class Stage(NamedTuple):
  """Trainings from scratch after a search.

  Attributes:
    budget: the settings that are specific to these trainings: `finalist` of
      the search, also with more epochs, or `final`.
    seed: seed of the trainings.
    part: the part of the data that is measured: `validation` or `test`.
    last_only: whether to measure only after the last epoch.
  """

  budget: FinalistConfig | FinalConfig
  seed: int
  part: str
  last_only: bool


class OpenTask(Protocol):
  """A task with its data and the settings of a search.

  Attributes:
    config: the settings, completed from the data.
    identity: digests of whatever determines a result besides the settings:
      {name: JSON-like value}.
    constraint: cost constraint of the search, if any.
  """

  config: ExperimentConfig
  identity: dict[str, Any]
  constraint: CostConstraint | None = None

  @property
  def outcome(self) -> dict[str, Any]:
    """Entries of best.json that `Cells.costs` needs; none by default."""
    return {}

  def proxies(self) -> tuple[Proxy, ...]:
    """Returns signals, which choose the first pool and correct predictions."""
    return ()

  def ranking(self) -> tuple[Proxy, ...]:
    """Returns quick signals by which finalists rank beside their scores."""
    return ()

  def check_memory(self) -> None:
    """Raises UserError if the memory does not suffice for a training.

    It may be one of the search or after it; nothing is checked by default.
    """

  def shared(self) -> Evaluator:
    """Returns the evaluator that trains shared weights.

    Raises:
      NotImplementedError: the task has no shared weights; its settings should
        allow `evaluator=scratch` only.
    """
    raise NotImplementedError

  def candidates(self) -> tuple[Candidates, dict[str, Any]]:
    """Returns the candidates of a search from scratch, and their protocol.

    The protocol holds everything except the tokens that determines a score,
    JSON-like: results are shared between runs with the same protocol.
    """
    raise NotImplementedError

  def retrained(self, stage: Stage) -> tuple[Candidates, dict[str, Any]]:
    """Returns candidates of a stage after the search, and their protocol."""
    raise NotImplementedError


class Task(Protocol):
  """A kind of cells and the data to search them with."""

  def cells(self, settings: dict[str, Any]) -> Cells:
    """Returns the kind of cells for the settings of a search, flat."""
    raise NotImplementedError

  def open(self, config: ExperimentConfig, devices: int | None) -> OpenTask:
    """Reads the data of a search.

    Args:
      config: valid settings.
      devices: number of devices of each process to use; all by default.

    Raises:
      UserError: the data cannot be read or do not fit the settings.
    """
    raise NotImplementedError

  def open_training(
    self, config: Any, devices: int | None
  ) -> tuple[FinalTraining, Feed]:
    """Reads the data of a final training, and checks its memory.

    Args:
      config: valid settings of the task's final trainings.
      devices: number of devices of each process to use; all by default.

    Raises:
      UserError: the data cannot be read, the settings do not fit the data, or
        memory does not suffice.
      NotImplementedError: the task has no final training.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """Options of a run that do not affect its result.

  Attributes:
    devices: number of devices of each process to use; all by default.
    checkpoints: when the state is saved.
    plain: whether to show progress as plain lines even on a terminal.
    team: the processes that train together; only the first one needs a workdir.
    loggers: further places for metrics and results, such as trackers.
  """

  devices: int | None = None
  checkpoints: CheckpointConfig = DEFAULT
  plain: bool = False
  team: Team | None = None
  loggers: tuple[Logger, ...] = ()


DEFAULT_OPTIONS = RunOptions()
