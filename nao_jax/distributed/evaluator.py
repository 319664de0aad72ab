"""An evaluator whose training is shared by many processes."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from nao_jax.distributed.team import Command, Team
from nao_jax.evaluators import Evaluator, Keep, Progress, forget


@dataclasses.dataclass(frozen=True)
class TeamEvaluator:
  """An evaluator in the first process, with the other processes as helpers.

  Attributes:
    evaluator: the evaluator, the same in all processes.
    team: the processes.
    name: prefix of the evaluator's commands, the same in all processes.
  """

  evaluator: Evaluator
  team: Team
  name: str

  def init(self, key: jax.Array) -> Any:
    """Implements `Evaluator.init`."""
    self.team.send(f"{self.name} init", jax.random.key_data(key))
    return self.evaluator.init(key)

  def replicate(self, state: Any) -> Any:
    """Implements `Evaluator.replicate`; sends the state to the helpers."""
    self.team.send(f"{self.name} replicate", *jax.tree.leaves(state))
    return self.evaluator.replicate(state)

  def score(
    self,
    state: Any,
    key: jax.Array,
    tokens: np.ndarray,
    round_: int,
    progress: Progress,
    keep: Keep = forget,
  ) -> tuple[Any, np.ndarray]:
    """Implements `Evaluator.score`."""
    self.team.send(
      f"{self.name} score", jax.random.key_data(key), tokens, np.int32(round_)
    )
    then_continue = self.team.then_continue
    return self.evaluator.score(
      state, key, tokens, round_, then_continue(progress), then_continue(keep)
    )


class EvaluatorHelper:
  """A helper of `TeamEvaluator`; holds the state between two commands."""

  def __init__(self, evaluator: Evaluator, team: Team, name: str):
    """Takes the same arguments as `TeamEvaluator` in the first process."""
    self._evaluator, self._team, self._name = evaluator, team, name
    self._state = None

  @property
  def handlers(self) -> dict[str, Callable]:
    """The handlers for `Team.help`."""
    calls = (self._init, self._replicate, self._score)
    return {f"{self._name} {call.__name__[1:]}": call for call in calls}

  def _init(self, command: Command) -> None:
    key = jax.random.wrap_key_data(command.arrays[0])
    self._state = self._evaluator.init(key)

  def _replicate(self, command: Command) -> None:
    state = jax.tree.unflatten(jax.tree.structure(self._state), command.arrays)
    self._state = self._evaluator.replicate(state)

  def _score(self, command: Command) -> None:
    key, tokens, round_ = command.arrays
    self._state, _ = self._evaluator.score(
      self._state,
      jax.random.wrap_key_data(key),
      tokens,
      int(round_),
      self._team.wait_to_continue,
      self._team.wait_to_continue,
    )
