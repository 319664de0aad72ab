"""Sections about trainings from scratch: finalists and final comparison."""

import collections

import numpy as np

from nao_jax.controller import metrics
from nao_jax.report import analysis, formatting, plots
from nao_jax.report.analysis import Trainings
from nao_jax.report.page import Plot, Section, Table, texts
from nao_jax.report.run import Finalist, Run


def finalists(run: Run) -> Section | None:
  """Compares the finalists' places in the search with their ranks after it."""
  if not run.finalists:
    return None
  name = f"validation {run.cells.measure.name}"
  searched, random = run.finalists["searched"], run.finalists["random"]
  values, others = (analysis.utility(run, x) for x in (searched, random))
  gains = np.sign(np.subtract.outer(values, others))
  tau = None
  placed = np.array([one.place is not None for one in searched])
  if placed.sum() >= 3:
    places = np.array([-one.place for one in searched if one.place])
    tau = f"{metrics.kendall_tau(places, values[placed]):.2f}"
  paragraphs = texts(
    "finalists",
    searched=len(searched),
    proposed=len(searched) - int(placed.sum()),
    share=round(100 * run.settings.get("finalist_share", 0.0)),
    by_signals=run.settings.get("finalist.by_signals", False),
    random=len(random),
    pairs=gains.size,
    stages=_stages(run),
    better=f"{np.sum(gains + 1) / 2:g}",
    tau=tau,
    evaluator=formatting.evaluator_in_words(run),
  )
  caption = (
    "Left, validation after each epoch"
    f"{' of the last training' if _stages(run) else ''}; right, from the place "
    "in the search to "
    "the rank after training; cells without a place there are dots."
  )
  figure = plots.finalists(run.finalists, name)
  return Section(
    "Finalists", paragraphs, [Plot(figure, caption)], [_ranks(run, name)]
  )


def _ranks(run: Run, name: str) -> Table:
  """Lists all finalists by rank."""
  scores = run.pool.scores_of(run.scored[-1])
  rows = [
    {
      "rank": one.rank,
      "cell": group,
      "place in the search": one.place or formatting.NONE,
      "score there": formatting.score(
        run, None if one.row is None else scores[one.row]
      ),
    }
    | _results(run, one, name)
    for group, finalists in run.finalists.items()
    for one in finalists
  ]
  rows.sort(key=lambda row: row["rank"])
  caption = "One training each; the variation between trainings is unknown."
  return Table.of(rows, caption, words=2)


def _stages(run: Run) -> list[tuple[int, int]]:
  """Returns cells of each group and epochs of each stage, if there are any."""
  found = {}
  for own in run.finalists.values():
    counts = collections.Counter(n for one in own for n, _ in one.stages)
    for epochs, count in counts.items():
      found[epochs] = max(count, found.get(epochs, 0))
  return [(found[epochs], epochs) for epochs in sorted(found)]


def _results(run: Run, finalist: Finalist, name: str) -> dict[str, str]:
  """Returns measurements of all stages by the title of their columns."""
  if not finalist.stages:
    return {name: _result(run, finalist.value)}
  values = dict(finalist.stages)
  return {
    f"{name}, {epochs} epochs": (
      _result(run, values[epochs]) if epochs in values else formatting.NONE
    )
    for _, epochs in _stages(run)
  }


def _result(run: Run, value: float) -> str:
  return "diverged" if np.isnan(value) else formatting.measurement(run, value)


def comparison(run: Run) -> Section:
  """Compares searched and random cells on the test part."""
  title, name = "Searched and random cells", f"test {run.cells.measure.name}"
  groups = analysis.trainings(run.compared)
  if not groups:
    to_come = run.best is None and run.settings["final.cells"]
    return Section(title, texts("no_comparison", to_come=to_come))
  rows = [
    {
      "": group,
      "cells": len(own.cells),
      "trainings": len(own.values),
      name: formatting.measurement(run, own.mean),
      "standard deviation": formatting.measurement(run, own.deviation),
      "diverged": own.diverged,
    }
    for group, own in groups.items()
  ]
  caption = (
    "A dot is a training, a column of dots a cell; lines are means over all "
    "trainings, bands one standard deviation either way."
  )
  plot = Plot(plots.trainings(groups, name), caption)
  return Section(title, _verdict(run, groups), [plot], [Table.of(rows)])


def _verdict(run: Run, groups: dict[str, Trainings]) -> list[str]:
  """Says whether the searched cells are better than the random ones."""
  found = analysis.advantage(groups) or analysis.Estimate(np.nan)
  low, high = found.interval or (None, None)
  clear = found.interval is not None and not low <= 0 <= high

  def signed(value: float | None) -> str | None:
    missing = value is None or np.isnan(value)
    return None if missing else formatting.measurement(run, value, "+")

  return texts(
    "comparison",
    finalists=bool(run.finalists),
    difference=signed(found.value),
    better="higher" if run.cells.measure.higher_is_better else "lower",
    low=signed(low),
    high=signed(high),
    clear=clear,
    ended=run.best is not None,
  )
