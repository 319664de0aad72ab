"""Trainings that many processes share; see team.py.

`TeamFeed` replaces a feed in the first process, and `FeedHelper` helps in the
other processes. Their calls take part in the same training, and between two
calls the helpers wait for a command.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax

from nao_jax.distributed.team import Command, Team
from nao_jax.training.feeds import Call, Feed

_TRAIN, _MEASURE = "feed train", "feed measure"


@dataclasses.dataclass(frozen=True)
class TeamFeed:
  """A feed in the first process, with the other processes as helpers.

  Attributes:
    feed: the feed, of the same data in all processes.
    team: the processes.
  """

  feed: Feed
  team: Team

  def train(self, state: Any, key: jax.Array) -> Iterator[Call]:
    """Implements `Feed.train`; the helpers wait between two calls.

    The caller may leave the iteration and train again, from another state.
    """
    leaves = jax.tree.leaves(self.feed.for_helpers(state))
    self.team.send(_TRAIN, jax.random.key_data(key), *leaves)
    for call in self.feed.train(state, key):
      yield call
      self.team.send_continue()

  def measure(self, state: Any, part: str) -> dict:
    """Implements `Feed.measure`.

    Processes that measure together measure the last state that `train` yielded.
    """
    if self.feed.measures_together:
      self.team.send(_MEASURE, text=part)
    return self.feed.measure(state, part)


class FeedHelper:
  """A helper of `TeamFeed`; holds the state between two commands."""

  def __init__(self, feed: Feed, team: Team, template: Any):
    """Takes the arguments of `TeamFeed`, and a state of the same structure."""
    self._feed, self._team = feed, team
    self._structure = jax.tree.structure(feed.for_helpers(template))
    self._state = None

  @property
  def handlers(self) -> dict[str, Callable]:
    """The handlers for `Team.help`."""
    return {_TRAIN: self._train, _MEASURE: self._measure}

  def _train(self, command: Command) -> None:
    while command.what == _TRAIN:
      command = self._train_until_command(command)

  def _train_until_command(self, command: Command) -> Command:
    """Trains to the end, or until told to train again; returns the command."""
    key, *leaves = command.arrays
    self._state = jax.tree.unflatten(self._structure, leaves)
    for call in self._feed.train(self._state, jax.random.wrap_key_data(key)):
      self._state = call.state
      while not (command := self._team.receive()).continues:
        if command.what == _TRAIN:
          return command
        self._measure(command)
    return command

  def _measure(self, command: Command) -> None:
    self._feed.measure(self._state, command.text)
