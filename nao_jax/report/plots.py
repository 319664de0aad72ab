"""Plots of a report, in the colours of `drawing.canvas`, which the page knows.

Grey is the pool, blue the proposals, vermilion the best, green held-out members
or random search. Every figure is narrow enough for a telephone.

Shapes: the letters of `analysis`.
"""

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from nao_jax.drawing import canvas
from nao_jax.report import formatting
from nao_jax.report.analysis import (
  Predictions,
  Shares,
  Trainings,
  standard_error,
)
from nao_jax.report.learning_curves import Band, Round
from nao_jax.report.run import Finalist, Run

POOL, PROPOSED, BEST, HELD_OUT = (
  colours[1]
  for colours in (canvas.GREY, canvas.BLUE, canvas.VERMILION, canvas.GREEN)
)
# Plots without held-out members use green for random search.
RANDOM = HELD_OUT
_GROUPS = {"searched": PROPOSED, "random": POOL}
# Areas of large and small dots; groups above this count have small ones.
_DOT, _SMALL, _MANY = 9, 3, 100
# Inches.
_WIDTH, _HEIGHT = 4.4, 3.0
_STYLE = canvas.STYLE | {
  "font.size": 9,
  "text.color": canvas.INK,
  "axes.edgecolor": canvas.WIRE,
  "axes.labelcolor": canvas.INK,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": "#cccccc",
  "grid.linewidth": 0.5,
  "xtick.color": canvas.WIRE,
  "ytick.color": canvas.WIRE,
  "xtick.labelcolor": canvas.INK,
  "ytick.labelcolor": canvas.INK,
  "legend.frameon": False,
  "legend.fontsize": 8,
}


class ScoreAxis(NamedTuple):
  """Axis of scores.

  Attributes:
    label: name of the scores.
    tick: formats a score.
  """

  label: str
  tick: Callable[[float], str]


class Line(NamedTuple):
  """A curve and its look.

  Attributes:
    band: the curve.
    colour: colour of the curve and of its range.
    label: name in the legend; None for no entry.
    look: format of `matplotlib.axes.Axes.plot`.
    width: width of the line, in points.
  """

  band: Band
  colour: str
  label: str | None
  look: str = "o-"
  width: float = 1.5


def axis_of(run: Run) -> ScoreAxis:
  """Returns the axis for the scores of a search."""
  evaluator = formatting.evaluator_in_words(run).removeprefix("with ")
  name = f"{run.cells.measure.name}, {evaluator}"
  return ScoreAxis(name, run.cells.measure.tick)


def styled(plot: Callable[..., Figure]) -> Callable[..., Figure]:
  """Decorates a function that makes a figure, to use the style of reports."""
  return functools.wraps(plot)(matplotlib.rc_context(_STYLE)(plot))


def new_axes(height: float = _HEIGHT) -> Axes:
  """Returns the axes of a new figure, whose height is in inches."""
  return Figure(figsize=(_WIDTH, height), layout="constrained").subplots()


def _show_scores(axes: Axes, axis: ScoreAxis) -> None:
  axes.set_ylabel(axis.label)
  axes.yaxis.set_major_locator(MaxNLocator(6))
  axes.yaxis.set_major_formatter(lambda value, _: axis.tick(value))


def legend(axes: Axes, columns: int = 3) -> None:
  """Puts the legend above the axes."""
  axes.figure.legend(loc="outside upper left", ncols=columns)


@styled
def curves(
  lines: Sequence[Line], xlabel: str, axis: ScoreAxis, columns: int = 2
) -> Figure:
  """Plots curves with their ranges; the horizontal axis starts at 0.

  Args:
    lines: the curves.
    xlabel: name of the horizontal axis, a key of `learning_curves.AXES`.
    axis: the vertical axis.
    columns: number of columns of the legend.
  """
  axes = new_axes()
  for band, colour, label, look, width in lines:
    if np.any(band.low < band.high):
      axes.fill_between(
        band.x, band.low, band.high, color=colour, alpha=0.2, lw=0
      )
    axes.plot(
      band.x, band.mean, look, color=colour, label=label, lw=width, ms=3.5
    )
  right = axes.dataLim.x1 if axes.dataLim.x1 > 0 else 1.0
  axes.set_xlim(-0.04 * right, 1.04 * right)
  axes.xaxis.set_major_locator(MaxNLocator(6, integer=xlabel != "minutes"))
  axes.set_xlabel(xlabel)
  _show_scores(axes, axis)
  legend(axes, columns)
  return axes.figure


@styled
def proposals(rounds: Sequence[Round], axis: ScoreAxis) -> Figure:
  """Plots scores of each round's proposals beside those of the other members.

  Args:
    rounds: the rounds to show, each with proposals and others.
    axis: the vertical axis.
  """
  axes, rng = new_axes(), np.random.default_rng(0)
  for group, shift, colour, proposed in (
    ("other members", -0.2, POOL, False),
    ("proposals", 0.2, PROPOSED, True),
  ):
    for place, row in enumerate(rounds):
      scores, middle = row.scores[row.proposed == proposed], place + shift
      at = middle + rng.uniform(-0.12, 0.12, len(scores))
      size = _SMALL if len(scores) > _MANY else _DOT
      axes.scatter(at, scores, s=size, color=colour, alpha=0.45, lw=0)
      low, median, high = np.quantile(scores, (0.25, 0.5, 0.75))
      label = None if place else group
      _bar(axes, middle, 0.16, (low, median, high), colour, label)
  axes.set_xticks(range(len(rounds)), [str(row.number) for row in rounds])
  axes.set_xlabel("round")
  axes.grid(axis="x", visible=False)
  _show_scores(axes, axis)
  legend(axes)
  return axes.figure


def _bar(
  axes: Axes, middle: float, half: float, values, colour: str, label=None
) -> None:
  """Draws a box with a line; values are lower end, line and upper end."""
  ends, (low, value, high) = (middle - half, middle + half), values
  axes.fill_between(ends, low, high, color=colour, alpha=0.2, lw=0)
  axes.plot(ends, [value] * 2, color=colour, lw=2, label=label)


@styled
def predictions(groups: Sequence[Predictions], axis: ScoreAxis) -> Figure:
  """Plots scores against predictions."""
  axes = new_axes()
  looks = {
    "fitted": ("o", POOL, "none"),
    "held out": ("D", HELD_OUT, HELD_OUT),
    "proposals": ("o", PROPOSED, PROPOSED),
  }
  for group in groups:
    mark, edge, face = looks[group.group]
    axes.scatter(
      group.predicted, group.scores, s=18, marker=mark, edgecolors=edge,
      facecolors=face, lw=0.9, alpha=0.8, label=group.group,
    )  # fmt: skip
  axes.xaxis.set_major_locator(MaxNLocator(5))
  axes.set_xlabel("predicted")
  _show_scores(axes, axis)
  legend(axes)
  return axes.figure


@styled
def gains(
  sizes: Sequence[float], size: np.ndarray, gain: np.ndarray, ylabel: str
) -> Figure:
  """Plots gains by step size: mean, standard error, 10th to 90th percentile.

  Args:
    sizes: the step sizes of the horizontal axis.
    size: float [C], the step size of each gain, one of `sizes`.
    gain: float [C], the gains, at least one.
    ylabel: name of the gains.
  """
  axes = new_axes()
  parts = [gain[np.isclose(size, x)] for x in sizes]
  at = [place for place, part in enumerate(parts) if len(part)]
  parts = [parts[place] for place in at]
  low, high = np.transpose([np.percentile(part, (10, 90)) for part in parts])
  axes.fill_between(
    at, low, high, color=PROPOSED, alpha=0.2, lw=0, label="10 to 90 %"
  )
  axes.errorbar(
    at, [part.mean() for part in parts],
    [np.nan_to_num(standard_error(part)) for part in parts],
    fmt="o", color=PROPOSED, ms=3, capsize=2, label="mean ± standard error",
  )  # fmt: skip
  shown = range(0, len(sizes), -(-len(sizes) // 8))
  axes.set_xticks(shown, [f"{sizes[place]:g}" for place in shown])
  axes.set_xlim(-0.6, len(sizes) - 0.4)
  axes.axhline(0, color=canvas.WIRE, lw=0.8)
  axes.set_xlabel("step size")
  axes.set_ylabel(ylabel)
  legend(axes)
  return axes.figure


@styled
def ops(names: Sequence[str], best: Shares, rest: Shares, parts: str) -> Figure:
  """Plots how often each op occurs among the best and among the rest.

  Args:
    names: names of the P ops.
    best: shares in the best quarter of the pool.
    rest: shares in the rest.
    parts: name of the parts of a cell that have an op.
  """
  axes, at = new_axes(0.9 + 0.34 * len(names)), np.arange(len(names))
  for label, shares, colour, shift in (
    (f"best {best.count}", best, BEST, -0.19),
    (f"other {rest.count}", rest, POOL, 0.19),
  ):
    axes.barh(
      at + shift, 100 * shares.mean, 0.34,
      xerr=100 * np.nan_to_num(shares.error), color=colour, alpha=0.75,
      label=label, error_kw={"ecolor": canvas.INK, "lw": 0.9},
    )  # fmt: skip
  axes.set_yticks(at, [name.replace("_", " ") for name in names])
  axes.invert_yaxis()
  axes.grid(axis="y", visible=False)
  axes.set_xlabel(f"% of {parts} (± standard error)")
  legend(axes)
  return axes.figure


@styled
def trainings(groups: dict[str, Trainings], ylabel: str) -> Figure:
  """Plots every training of every cell, and means with standard deviations."""
  axes, place, middles = new_axes(), 0, []
  for name, group in groups.items():
    colour = _GROUPS[name]
    places = place + np.arange(len(group.cells))
    for at, cell in zip(places, group.cells, strict=True):
      axes.scatter([at] * len(cell), cell, s=18, color=colour, alpha=0.7, lw=0)
    if len(group.values):
      mean, deviation = group.mean, np.nan_to_num(group.deviation)
      half = (places[-1] - places[0]) / 2 + 0.35
      values = (mean - deviation, mean, mean + deviation)
      _bar(axes, places.mean(), half, values, colour)
    middles.append(places.mean())
    place = places[-1] + 2
  axes.set_xticks(middles, [f"{name} cells" for name in groups])
  axes.grid(axis="x", visible=False)
  axes.set_ylabel(ylabel)
  return axes.figure


@styled
def finalists(groups: dict[str, list[Finalist]], ylabel: str) -> Figure:
  """Plots curves of all finalists, and their places beside their ranks."""
  figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
  left, right = figure.subplots(1, 2, width_ratios=(3, 2))
  for group, entries in groups.items():
    look = {"color": _GROUPS[group], "lw": 1, "ms": 3}
    look["zorder"] = 2.5 if group == "searched" else 2.0
    for number, one in enumerate(entries):
      label = None if number else f"{group} finalists"
      epochs = range(1, len(one.curve) + 1)
      left.plot(epochs, one.curve, ".-", label=label, **look)
      if one.place is None:
        right.plot([1], [one.rank], "o", **look)
      else:
        right.plot([0, 1], [one.place, one.rank], "o-", **look)
  left.set_xlabel("epoch")
  left.set_ylabel(ylabel)
  left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  right.set_xticks([0, 1], ["search", "trained"])
  right.set_xlim(-0.2, 1.2)
  right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
  right.invert_yaxis()
  right.set_ylabel("rank")
  legend(left, 2)
  return figure


@styled
def front(
  costs: np.ndarray,
  scores: np.ndarray,
  on_front: np.ndarray,
  limit: float | None,
  xlabel: str,
  axis: ScoreAxis,
) -> Figure:
  """Plots scores against costs, and the front.

  Args:
    costs: float [N], costs of the pool.
    scores: float [N], its scores.
    on_front: bool [N], whether no member is at least as good in both and better
      in one.
    limit: the cost limit of the search, if any.
    xlabel: name of the cost.
    axis: the vertical axis.
  """
  axes = new_axes()
  rest, order = ~on_front, np.argsort(costs[on_front])
  axes.plot(costs[rest], scores[rest], "o", color=POOL, ms=3, label="pool")
  axes.step(
    costs[on_front][order], scores[on_front][order], "o-", where="post",
    color=BEST, ms=4, label="front",
  )  # fmt: skip
  if limit is not None:
    axes.axvline(limit, color=canvas.WIRE, ls="--", lw=1, label="limit")
  axes.set_xlabel(xlabel)
  _show_scores(axes, axis)
  legend(axes)
  return axes.figure
