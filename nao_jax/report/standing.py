"""Section about the place of a search among all cells of its space.

Shapes: F functions of the space.
"""

from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import canvas
from nao_jax.evaluators.table import Table as TrueScores
from nao_jax.report import plots
from nao_jax.report.page import Plot, Section, Table, texts
from nao_jax.report.run import Run


def section(run: Run, truth: TrueScores) -> Section:
  """Shows where winner, finalists and pool stand among all cells of a space.

  Args:
    run: the search.
    truth: true scores of all cells of its space, in per cent.
  """
  tokens = run.pool.tokens
  groups = {"pool": truth.lookup(tokens[run.members(run.scored[-1])])}
  for name in ("random", "searched"):
    finalists = run.finalists.get(name, ())
    if cells := [one.tokens for one in finalists if one.tokens]:
      groups[name] = truth.lookup(np.array(cells))
  winner = truth.lookup(tokens[run.winner])
  groups["winner"] = winner[None]
  everything = truth.scores[np.isfinite(truth.scores)]
  rows = [
    {
      "cells": name,
      "number": len(scores),
      "mean": f"{scores.mean():.2f}",
      "best": f"{scores.max():.2f}",
      "better than, of all cells": f"{_share(everything, scores.mean()):.1%}",
    }
    for name, scores in (groups | {"all": everything}).items()
  ]
  paragraphs = texts(
    "standing",
    score=f"{winner:.2f}",
    share=f"{_share(everything, winner):.1%}",
    best=f"{everything.max():.2f}",
    count=f"{len(everything):,}",
  )
  caption = (
    "All cells in the order of their true scores, and those of this search; "
    "scores below the axis are drawn at its foot."
  )
  figure = plot(everything, groups, "true score, %")
  return Section(
    "Among all cells",
    paragraphs,
    [Plot(figure, caption)],
    [Table.of(rows, "True scores, from the table.")],
  )


def _share(everything: np.ndarray, score: float) -> float:
  return float(np.mean(everything < score))


@plots.styled
def plot(
  everything: np.ndarray, groups: dict[str, np.ndarray], label: str
) -> Figure:
  """Plots true scores of groups of cells on the curve of all.

  Args:
    everything: true scores of all cells, [F].
    groups: true scores of the `pool`, of `random` and `searched` finalists and
      of the `winner`, each [n]; those that exist.
    label: name of the scores.
  """
  axes = plots.new_axes()
  ordered = np.sort(everything)
  share = np.arange(1, len(ordered) + 1) / len(ordered)
  axes.plot(share, ordered, color=canvas.WIRE, lw=1, label="all cells")
  # Colours, and areas of dots.
  looks = {
    "pool": (plots.POOL, 3),
    "random": (plots.RANDOM, 36),
    "searched": (plots.PROPOSED, 36),
    "winner": (plots.BEST, 81),
  }
  # The worst cells learn nothing, and would hide the order of the others.
  low, high = np.quantile(ordered, 0.05), ordered[-1]
  for name, scores in groups.items():
    colour, size = looks[name]
    at = np.searchsorted(ordered, scores, side="right") / len(ordered)
    axes.scatter(
      at, np.maximum(scores, low), s=size, color=colour, label=name,
      alpha=0.7, lw=0, zorder=3,
    )  # fmt: skip
  axes.set_ylim(low - (high - low) / 20, high + (high - low) / 20)
  axes.set_xlabel("share of all cells that are no better")
  axes.set_ylabel(label)
  plots.legend(axes)
  return axes.figure
