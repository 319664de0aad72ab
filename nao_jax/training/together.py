"""A feed whose training many processes share; see processes.py."""

from collections.abc import Callable, Iterator
import dataclasses

import jax
import numpy as np

from nao_jax.processes import Team, Told
from nao_jax.training.feeds import InMemory
from nao_jax.training.stand_alone import TrainState

_TRAIN, _MEASURE = "feed train", "feed measure"


@dataclasses.dataclass(frozen=True)
class Together:
  """A feed in the first process, which the others help.

  Attributes:
    feed: the same in all processes.
    team: the processes.
  """

  feed: InMemory
  team: Team

  def train(
    self, state: TrainState, key: jax.Array, step: int
  ) -> Iterator[tuple[TrainState, np.ndarray]]:
    """See `InMemory`; between two calls the others wait."""
    leaves = jax.tree.leaves(state)
    self.team.tell(_TRAIN, jax.random.key_data(key), np.int32(step), *leaves)
    for found in self.feed.train(state, key, step):
      yield found
      self.team.on()

  def measure(self, state: TrainState, part: str) -> dict:
    """See `InMemory`; of the state that `train` gave last."""
    self.team.tell(_MEASURE, text=part)
    return self.feed.measure(state, part)


class Helper:
  """What the other processes do; holds the state between two words."""

  def __init__(self, feed: InMemory, team: Team, template: TrainState):
    """Takes what `Together` takes, and a state of the same structure."""
    self._feed, self._team = feed, team
    self._structure, self._state = jax.tree.structure(template), None

  @property
  def handlers(self) -> dict[str, Callable]:
    """For `Team.help`."""
    return {_TRAIN: self._train, _MEASURE: self._measure}

  def _train(self, told: Told) -> None:
    key, step, *leaves = told.arrays
    self._state = jax.tree.unflatten(self._structure, leaves)
    calls = self._feed.train(
      self._state, jax.random.wrap_key_data(key), int(step)
    )
    for self._state, _ in calls:
      while not (told := self._team.hear()).goes_on:
        self._measure(told)

  def _measure(self, told: Told) -> None:
    self._feed.measure(self._state, told.text)
