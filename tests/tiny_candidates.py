"""Candidates whose training costs nothing but the time that it is to take."""

import dataclasses
import os
import pathlib
import signal
import time

import numpy as np

from nao_jax.runs.progress import WorkUnit
from nao_jax.spaces import slots

SPACE = slots.space("tiny", dict.fromkeys("abc", (1, 2, 3, 4)))


@dataclasses.dataclass(frozen=True)
class TinyCandidates:
  """Two epochs; a score is a weighted sum of the tokens.

  Attributes:
    folder: each training leaves a file there when it begins.
    seconds: of an epoch.
    deadly: the sum of tokens that kills the process in the second epoch.
    broken: one that raises an exception.
    data: as large as what real ones bring.
  """

  folder: str
  seconds: float = 0.0
  deadly: int = -1
  broken: int = -1
  data: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(1000))
  epochs: int = 2
  devices: int | None = 1

  @property
  def each(self):
    return WorkUnit(1, "images")

  def start(self, tokens):
    return np.zeros((), np.float32)

  def epoch(self, tokens, states, epochs, between):
    (row,), (state,), (epoch,) = tokens, states, epochs
    name = "-".join(map(str, [*row, epoch, time.time_ns()]))
    pathlib.Path(self.folder, name).touch()
    time.sleep(self.seconds)
    between()
    if epoch and sum(row) == self.deadly:
      os.kill(os.getpid(), signal.SIGKILL)
    if sum(row) == self.broken:
      raise RuntimeError("out of memory, says the test")
    score = float(np.dot(row, [1, 2, 4]) + self.data.sum()) / (2 - epoch)
    return [(state + 1, 0.5, score)]

  def begun(self):
    """Counts how often a training of each architecture began: {text: times}."""
    names = [
      path.name.split("-") for path in pathlib.Path(self.folder).iterdir()
    ]
    first = [" ".join(name[:3]) for name in names if name[3] == "0"]
    return {name: first.count(name) for name in first}
