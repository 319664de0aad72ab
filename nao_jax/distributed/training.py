"""Trainings that many processes share; see distributed/processes.py.

Each source of data has two classes: one replaces it in the first process, the
other helps in the other processes. Their calls take part in the same training,
and between two calls the helpers wait for a command.
"""

from collections.abc import Callable, Iterator
import dataclasses

import jax
import numpy as np

from nao_jax.distributed.processes import Command, Team
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
  """A source of images in the first process, with the others as helpers.

  Attributes:
    feed: the source, the same in all processes.
    team: the processes.
  """

  feed: InMemory | Streamed
  team: Team

  def train(
    self, state: TrainState, key: jax.Array, step: int
  ) -> Iterator[tuple[TrainState, np.ndarray]]:
    """Trains like `InMemory.train`; the helpers wait between two calls."""
    leaves = jax.tree.leaves(state)
    self.team.tell(_TRAIN, jax.random.key_data(key), np.int32(step), *leaves)
    for found in self.feed.train(state, key, step):
      yield found
      self.team.on()

  def measure(self, state: TrainState, part: str) -> dict:
    """Measures like `InMemory.measure`, the last state that `train` yielded."""
    self.team.tell(_MEASURE, text=part)
    return self.feed.measure(state, part)


class FeedHelper:
  """A helper of `TeamFeed`; holds the state between two commands."""

  def __init__(
    self, feed: InMemory | Streamed, team: Team, template: TrainState
  ):
    """Takes the arguments of `TeamFeed`, and a state of the same structure."""
    self._feed, self._team = feed, team
    self._structure, self._state = jax.tree.structure(template), None

  @property
  def handlers(self) -> dict[str, Callable]:
    """The handlers for `Team.help`."""
    return {_TRAIN: self._train, _MEASURE: self._measure}

  def _train(self, command: Command) -> None:
    key, step, *leaves = command.arrays
    self._state = jax.tree.unflatten(self._structure, leaves)
    calls = self._feed.train(
      self._state, jax.random.wrap_key_data(key), int(step)
    )
    for self._state, _ in calls:
      while not (command := self._team.hear()).goes_on:
        self._measure(command)

  def _measure(self, command: Command) -> None:
    self._feed.measure(self._state, command.text)


@dataclasses.dataclass(frozen=True)
class TeamReader:
  """A reader in the first process, with the other processes as helpers.

  Attributes:
    reader: the reader, of the same text in all processes.
    team: the processes.
  """

  reader: Reader
  team: Team

  @property
  def words(self) -> int:
    """Number of words that an epoch predicts."""
    return self.reader.words

  def words_read(self, state: ReaderState) -> int:
    """Returns the number of words predicted so far; see `Reader.words_read`."""
    return self.reader.words_read(state)

  def train(self, state: ReaderState, key: jax.Array) -> Iterator[Call]:
    """Trains like `Reader.train`; the helpers wait between two calls.

    After a call that diverged, the caller may leave the iteration and train
    again.
    """
    leaves = jax.tree.leaves(_for_an_epoch(state))
    self.team.tell(_READ, jax.random.key_data(key), *leaves)
    for call in self.reader.train(state, key):
      yield call
      self.team.on()

  def measure(self, model: Model, part: str) -> dict:
    """Measures like `Reader.measure`, in this process alone."""
    return self.reader.measure(model, part)


class ReaderHelper:
  """A helper of `TeamReader`."""

  def __init__(self, reader: Reader, team: Team, template: ReaderState):
    """Takes `TeamReader`'s arguments, and a state of the same structure."""
    self._reader, self._team = reader, team
    self._structure = jax.tree.structure(_for_an_epoch(template))

  @property
  def handlers(self) -> dict[str, Callable]:
    """The handlers for `Team.help`."""
    return {_READ: self._train}

  def _train(self, command: Command) -> None:
    key, *leaves = command.arrays
    state = jax.tree.unflatten(self._structure, leaves)
    for call in self._reader.train(state, jax.random.wrap_key_data(key)):
      if call.diverged:
        return
      self._team.heard()


def _for_an_epoch(state: ReaderState) -> ReaderState:
  """Returns the parts of a state needed to train to the end of an epoch."""
  return state._replace(validation=(), best=())
