"""Trainings that many processes share; see processes.py.

Of each source of data there are two: what leads in the first process, in the
place of the source, and what helps in the others. Their calls take part in the
same training, and between two of them the helpers wait for a word.
"""

from collections.abc import Callable, Iterator
import dataclasses

import jax
import numpy as np

from nao_jax.distributed.processes import Team, Told
from nao_jax.training.feeds import InMemory, Streamed
from nao_jax.training.stand_alone import TrainState
from nao_jax.training.stand_alone_language import (
  Call,
  Model,
  Reader,
)
from nao_jax.training.stand_alone_language import TrainState as ReaderState

_TRAIN, _MEASURE, _READ = "feed train", "feed measure", "read"


@dataclasses.dataclass(frozen=True)
class TeamFeed:
  """A feed in the first process, which the others help.

  Attributes:
    feed: the same in all processes.
    team: the processes.
  """

  feed: InMemory | Streamed
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


class FeedHelper:
  """What the other processes do; holds the state between two words."""

  def __init__(
    self, feed: InMemory | Streamed, team: Team, template: TrainState
  ):
    """Takes what `TeamFeed` takes, and a state of the same structure."""
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


@dataclasses.dataclass(frozen=True)
class TeamReader:
  """A reader in the first process, which the others help to train.

  Attributes:
    reader: of the same text in all processes.
    team: the processes.
  """

  reader: Reader
  team: Team

  @property
  def words(self) -> int:
    """See `Reader`."""
    return self.reader.words

  def words_read(self, state: ReaderState) -> int:
    """See `Reader`."""
    return self.reader.words_read(state)

  def train(self, state: ReaderState, key: jax.Array) -> Iterator[Call]:
    """See `Reader`; between two calls the others wait.

    Whoever takes no more of them after one that diverged may train again.
    """
    leaves = jax.tree.leaves(_for_an_epoch(state))
    self.team.tell(_READ, jax.random.key_data(key), *leaves)
    for call in self.reader.train(state, key):
      yield call
      self.team.on()

  def measure(self, model: Model, part: str) -> dict:
    """See `Reader`; this process does it alone."""
    return self.reader.measure(model, part)


class ReaderHelper:
  """What the other processes do."""

  def __init__(self, reader: Reader, team: Team, template: ReaderState):
    """Takes what `TeamReader` takes, and a state of the same structure."""
    self._reader, self._team = reader, team
    self._structure = jax.tree.structure(_for_an_epoch(template))

  @property
  def handlers(self) -> dict[str, Callable]:
    """For `Team.help`."""
    return {_READ: self._train}

  def _train(self, told: Told) -> None:
    key, *leaves = told.arrays
    state = jax.tree.unflatten(self._structure, leaves)
    for call in self._reader.train(state, jax.random.wrap_key_data(key)):
      if call.diverged:
        return
      self._team.heard()


def _for_an_epoch(state: ReaderState) -> ReaderState:
  """What training to the end of an epoch needs of a state."""
  return state._replace(validation=(), best=())
