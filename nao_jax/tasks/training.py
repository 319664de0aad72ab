"""Interface of a final training, and the content of its checkpoints.

`Task.open_training` returns a `FinalTraining`, which determines the result, and
a `feeds.Feed`, which holds the data; `final_training.run` trains with both.
"""

import os
from typing import Any, Protocol

import jax
import numpy as np

from nao_jax.errors import UserError
from nao_jax.runs import checkpoint
from nao_jax.runs.progress import WorkUnit
from nao_jax.training.feeds import Call, Feed


class FinalTraining(Protocol):
  """A network and its training: all that determines the result.

  Implementations are frozen dataclasses, whose fields are a run's settings.
  States are pytrees of arrays.

  Attributes:
    config: the settings; among them `arch`, `seed` and `train.epochs`.
    tokens: the architecture.
    identity: digests of the data: {description for messages: JSON-like value}.
    metric: entry of an epoch's report; lower is better.
    numbers: entries of a result that `lines` needs, such as `test.loss`.
    phase: name of the work, for progress.
    each: work unit.
    total: number of units of the whole training.
  """

  config: Any
  tokens: tuple[int, ...]
  identity: dict[str, Any]
  metric: str
  numbers: tuple[str, ...]
  phase: str
  each: WorkUnit
  total: int

  def init(self) -> Any:
    """Returns the state before the first step."""

  def done(self, state: Any) -> int:
    """Returns the number of units of work done."""

  def epochs_done(self, state: Any) -> int:
    """Returns the number of epochs done."""

  def end_epoch(self, state: Any, feed: Feed) -> tuple[Any, dict] | None:
    """Ends an epoch.

    Args:
      state: the state after the last step of an epoch.
      feed: the data.

    Returns:
      The state with which the next epoch begins, and entries for the report;
      None if the training diverged.
    """

  def recover(self, call: Call) -> Any:
    """Returns the state from which a training that diverged goes on.

    Raises:
      UserError: it cannot go on.
    """

  def result(self, state: Any, feed: Feed) -> dict:
    """Measures the state at the end; returns the content of result.json."""

  def lines(self, result: dict) -> tuple[str, ...]:
    """Describes a result in lines of text."""


def keys(seed: int) -> jax.Array:
  """Returns two random keys: of the initial state, and of the training."""
  return jax.random.split(jax.random.key(seed))


def pack(training: FinalTraining, state: Any) -> tuple[Any, np.ndarray]:
  """Returns the content of a checkpoint: the state and its architecture."""
  return state, np.int32(training.tokens)


def restore(training: FinalTraining, directory: str | os.PathLike) -> Any:
  """Restores the newest state in a directory of checkpoints.

  Returns:
    The state; None if there is no checkpoint.

  Raises:
    UserError: the state is of another architecture.
  """
  template = pack(training, training.init())
  found = checkpoint.restore(directory, template, exact=True)
  if found is None:
    return None
  state, tokens = found
  if tuple(tokens.tolist()) != training.tokens:
    raise UserError(
      f"{directory}: holds another architecture, "
      f"{' '.join(map(str, tokens))}; this is {training.config.arch}"
    )
  return state
