"""Files of a search, beside those of every run.

pool.sqlite      architectures and their scores by round: pool_file.py
pool/*.npz       the same, which checkpoints leave out: pool_parts.py
rounds/*.npz     arrays of the strategy's report in each round
final.json       measurements of the trainings after the rounds, so far
report.html      a report of the whole search
"""

from collections.abc import Sequence
import itertools
import json
import os
from typing import Any

from absl import logging
import numpy as np

from nao_jax import pool as pools
from nao_jax.metrics import ACCURACY, Measure
from nao_jax.objectives import CostConstraint, outcome
from nao_jax.pool import Pool
from nao_jax.runs import checkpoint, streams
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.files import write
from nao_jax.runs.loggers import Logger
from nao_jax.runs.workdir import Workdir
from nao_jax.search import round_files
from nao_jax.search.pool_file import PoolFile
from nao_jax.search.pool_parts import PoolParts
from nao_jax.search.state import Journal, SearchState
from nao_jax.spaces.space import Space


class SearchJournal(Workdir, Journal):
  """Journal of a search that may be interrupted at any moment."""

  def __init__(
    self,
    path: str | os.PathLike,
    settings: dict,
    rounds: int,
    measure: Measure = ACCURACY,
    checkpoints: CheckpointConfig = DEFAULT,
    *,
    plain: bool = False,
    loggers: Sequence[Logger] = (),
  ):
    """Opens the workdir of a search.

    Args:
      path: see `Workdir`.
      settings: see `Workdir`.
      rounds: number of rounds of the whole search, to be shown.
      measure: the metric.
      checkpoints: when states within a round are saved.
      plain: see `Workdir`.
      loggers: see `Workdir`.
    """
    super().__init__(
      path, settings, "best.json", checkpoints, plain=plain, loggers=loggers
    )
    self._rounds, self._measure = rounds, measure
    self._pool_file = PoolFile(self.path / "pool.sqlite")
    self._pool_parts = PoolParts(self.path / "pool")
    self._enter(0)

  def restore(self, template: SearchState) -> SearchState | None:
    """Returns the state that was saved last; None if no state was saved.

    Raises:
      UserError: files of the pool are damaged, or the disk is too full.
    """
    self._pool_file.check()
    self.check_space(template)
    # Up to version 0.2.0 the last of a pool's columns was a table of scores.
    table = (*template.pool[:5], template.pool.scores)
    state = checkpoint.restore(
      self.checkpoints, template, earlier=template._replace(pool=table)
    )
    done = 0 if state is None else int(state.round)
    self.rewind("round", done)
    self._enter(done)
    if state is None:
      return None
    if not isinstance(state.pool, Pool):
      state = state._replace(pool=pools.of_table(*state.pool))
    state = state._replace(pool=self._pool_parts.whole(done, state.pool))
    self._name_best(state)
    self._pool_file.write(state.pool)
    if done <= self._rounds:
      logging.info("resuming in round %d", done)
    return state._replace(round=done)

  def keep(self, state: SearchState, steps: int, *, last: bool = False) -> None:
    """Saves a state like `Workdir.keep` and shows the best score so far."""
    self._name_best(state)
    left = state._replace(pool=self._pool_parts.rest(state.pool))
    super().keep(left, steps, last=last)

  def end_round(self, state: SearchState, report: dict) -> None:
    """Writes the report and the state of a round that has ended.

    Args:
      state: the state after the round.
      report: {name: value}; arrays are written to a separate file, other values
        are JSON-like.
    """
    arrays = {k: v for k, v in report.items() if isinstance(v, np.ndarray)}
    report = {k: v for k, v in report.items() if k not in arrays}
    if arrays:
      round_files.write(self.path / "rounds", report["round"], arrays)
    self.report("round", report)
    self._pool_file.write(state.pool)
    self._pool_parts.add(report["round"], state.pool)
    self.print_round(report)
    self._enter(state.round)
    self.keep(state, 0, last=True)

  def keep_training(self, state: Any, steps: int) -> None:
    """Saves a state like `Workdir.keep`, for trainings after the rounds."""
    Workdir.keep(self, state, steps)

  def keep_pool(self, pool: Pool) -> None:
    """Writes a pool with proposals made after the rounds to its database."""
    self._pool_file.write(pool)

  def report_stage(
    self, stage: str, row: dict, curves: dict[str, list[float]]
  ) -> None:
    """Appends a report of trainings after the rounds.

    Args:
      stage: name of the trainings.
      row: the report, JSON-like.
      curves: {name: a number for each epoch}, for loggers.
    """
    self.append({"stage": stage} | row)
    epochs = itertools.zip_longest(*curves.values())
    for epoch, values in enumerate(epochs, 1):
      # A curve that has ended gives None, which is not logged.
      self.tracking.metrics(dict(zip(curves, values, strict=True)), epoch)

  def save_final(self, found: dict) -> None:
    """Writes measurements of trainings after the rounds to final.json."""
    write(self.path / "final.json", json.dumps(found, indent=2) + "\n")

  def print_round(self, report: dict) -> None:
    """Prints a table of one round."""
    # Without a terminal rich assumes 80 columns, too few for a round's table.
    streams.show(
      [dict(_cells(report, self._measure))],
      f"round {report['round']} of {self._rounds}",
      wide=165,
    )

  def _name_best(self, state: SearchState) -> None:
    """Shows the best score of the last round that has scores.

    Shared weights change between rounds, so scores of different rounds cannot
    be compared.
    """
    rounds = np.flatnonzero(state.pool.counts)
    if len(rounds):
      best = state.pool.in_round(rounds[-1])[1].max()
      shown = f"{self._measure.name} {self._measure.show(best)}"
      self.progress.best = f"{shown} (round {rounds[-1]})"

  def _enter(self, round_: int) -> None:
    self.progress.prefix = f"round {round_} of {self._rounds}:"


def origin_text(origin: int) -> str:
  """Returns the origin of an architecture in words."""
  if origin == pools.GIVEN:
    return "given, or chosen by signals, at the start"
  return "a random draw" if origin == pools.RANDOM else f"round {origin}"


def _cells(report: dict, measure: Measure):
  for which in ("best", "mean"):
    yield f"{which}\n{measure.name}", measure.show(report[which])
  yield "best is from", origin_text(report["best_origin"])
  if "kendall_tau" in report:
    held_out = report["held_out"]
    yield (
      f"pairwise\n({held_out} held out)",
      f"{report['pairwise_accuracy']:.3f}",
    )
    yield "Kendall\ntau", f"{report['kendall_tau']:.3f}"
  if "exact_reconstruction" in report:
    exact = report["exact_reconstruction"]
    yield "exactly\nrebuilt", f"{exact:.3f}"
    yield "up to\nswaps", f"{report['equivalent_reconstruction']:.3f}"
    yield "new by step", _by_step_size(report)
  if "pending" in report:
    yield "pending", str(report["pending"])
  if "new" in report:
    yield "accepted", str(report["new"])
  if report.get("random"):
    yield "random", str(report["random"])


def _by_step_size(report: dict) -> str:
  """Returns counts by step size, summed to at most six groups."""
  sizes, counts = report["step_sizes"], report["new_by_step_size"]
  width = -(-len(counts) // 6)
  groups = [slice(at, at + width) for at in range(0, len(counts), width)]
  return "  ".join(
    f"{sizes[group][0]:g}-{sizes[group][-1]:g}: {sum(counts[group])}"
    for group in groups
  )


def result(space: Space, pool: Pool, constraint: CostConstraint | None) -> dict:
  """Returns the contents of best.json."""
  row = pool.best
  rows, scores = pool.in_round(np.flatnonzero(pool.counts)[-1])
  costs = constraint and outcome(
    constraint, pool.tokens[rows], scores, space.text
  )
  return (costs or {}) | {
    "space": space.name,
    "tokens": pool.tokens[row].tolist(),
    "text": space.text(pool.tokens[row]),
    "origin": int(pool.origins[row]),
    "score": float(scores.max()),
  }
