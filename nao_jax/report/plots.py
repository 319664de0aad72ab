"""Plots of a report, in the colours of `drawing.canvas`, which the page knows.

Grey is the pool, blue the proposals, vermilion the best, green held-out members
or random search. Every figure is narrow enough for a telephone.

Shapes: the letters of `analysis`.
"""

from collections.abc import Callable, Sequence
import functools

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
import numpy as np

from nao_jax.drawing import canvas
from nao_jax.report.analysis import Foreseen, Group, Shares, Step
from nao_jax.report.learning_curves import AXES, Band, Round
from nao_jax.strategies.projection import Plane

POOL, NEW, BEST, HELD_OUT = (
  colours[1]
  for colours in (canvas.GREY, canvas.BLUE, canvas.VERMILION, canvas.GREEN)
)
# Plots without held-out members use green for random search.
RANDOM = HELD_OUT
# Areas of large and small dots; groups above this count have small ones.
_DOT, _SMALL, _MANY = 9, 3, 100
# Inches.
WIDTH, HEIGHT = 4.4, 3.0
BAND, _SPREAD = (0.1, 0.9), "10 to 90 %"
STYLE = canvas.STYLE | {
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

Show = Callable[[float], str]


def _styled(plot):
  """Decorates a function that makes a figure, to use the style of reports."""
  return functools.wraps(plot)(matplotlib.rc_context(STYLE)(plot))


def _axes(height: float = HEIGHT) -> Axes:
  figure = Figure(figsize=(WIDTH, height), layout="constrained")
  return figure.subplots()


def _scores_on(axis, show: Show) -> None:
  """Formats the ticks of an axis of scores."""
  axis.set_major_locator(MaxNLocator(6))
  axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


def _from_zero(axes: Axes, label: str) -> None:
  """Starts the x axis at 0."""
  right = axes.dataLim.x1 if axes.dataLim.x1 > 0 else 1.0
  axes.set_xlim(-0.04 * right, 1.04 * right)
  axes.xaxis.set_major_locator(MaxNLocator(6, integer=label != "minutes"))
  axes.set_xlabel(label)


def _legend(axes: Axes, columns: int = 3) -> None:
  axes.figure.legend(loc="outside upper left", ncols=columns)


@_styled
def progress(
  rounds: list[Round],
  xlabel: str,
  show: Show,
  ylabel: str,
  random: Band | None = None,
) -> Figure:
  """Plots best and mean of the pool by round, and the spread of the pool.

  Args:
    rounds: at least one round.
    xlabel: name of the x axis, a key of `AXES`.
    show: formats a score.
    ylabel: name of the scores.
    random: the best of random searches, if there are any.
  """
  x = [AXES[xlabel](row) for row in rounds]
  axes = _axes()
  best = [row.scores.max() for row in rounds]
  mean = [row.scores.mean() for row in rounds]
  low, high = np.transpose([np.quantile(row.scores, BAND) for row in rounds])
  axes.fill_between(x, low, high, color=POOL, alpha=0.25, lw=0, label=_SPREAD)
  axes.plot(x, mean, "o-", color=POOL, ms=3.5, label="mean")
  axes.plot(x, best, "o-", color=BEST, ms=3.5, label="best")
  if random is not None:
    searches = "1 run" if random.count == 1 else f"{random.count} runs"
    label = f"best of random search, {searches}"
    _band(axes, random, RANDOM, "D", label)
  axes.set_ylabel(ylabel)
  _from_zero(axes, xlabel)
  _scores_on(axes.yaxis, show)
  _legend(axes, 3 if random is None else 2)
  return axes.figure


def _band(axes: Axes, band: Band, colour: str, mark: str, label: str) -> None:
  """Draws the mean of several searches and their range."""
  if band.count > 1:
    axes.fill_between(
      band.x, band.low, band.high, color=colour, alpha=0.2, lw=0
    )
  axes.plot(band.x, band.mean, f"{mark}-", color=colour, ms=4, label=label)


@_styled
def several(
  curves: dict[str, tuple[Band, Band]],
  xlabel: str,
  show: Show,
  ylabel: str,
) -> Figure:
  """Plots curves of several runs: the best solid, the mean of the pool dashed.

  Args:
    curves: {letters of the runs: (best, mean)}.
    xlabel: name of the x axis.
    show: formats a score.
    ylabel: name of the scores.
  """
  axes = _axes()
  marks = "osD^vP*X"
  for number, (name, (best, mean)) in enumerate(curves.items()):
    colour = (NEW, BEST, HELD_OUT, POOL)[number % 4]
    mark = marks[number % len(marks)]
    _band(axes, best, colour, mark, name)
    look = {"ms": 2.5, "lw": 0.8, "alpha": 0.7}
    axes.plot(mean.x, mean.mean, f"{mark}--", color=colour, **look)
  axes.set_ylabel(ylabel)
  _from_zero(axes, xlabel)
  _scores_on(axes.yaxis, show)
  axes.figure.legend(loc="outside upper left", ncols=8)
  return axes.figure


@_styled
def proposed(rounds: list[Round], show: Show, ylabel: str) -> Figure:
  """Plots scores of each round's proposals beside those of the other members.

  Args:
    rounds: the rounds to show, each with proposals.
    show: formats a score.
    ylabel: name of the scores.
  """
  axes, rng = _axes(), np.random.default_rng(0)
  parts = (("the others", -0.2, POOL, False), ("proposals", 0.2, NEW, True))
  for label, aside, colour, newest in parts:
    for place, row in enumerate(rounds):
      scores = row.scores[row.newest == newest]
      at = place + aside + rng.uniform(-0.12, 0.12, len(scores))
      size = _SMALL if len(scores) > _MANY else _DOT
      axes.scatter(at, scores, s=size, color=colour, alpha=0.45, lw=0)
      low, middle, high = np.quantile(scores, (0.25, 0.5, 0.75))
      beam = (place + aside - 0.16, place + aside + 0.16)
      axes.fill_between(beam, low, high, color=colour, alpha=0.2, lw=0)
      axes.plot(
        beam,
        [middle] * 2,
        color=colour,
        lw=2,
        label=label if not place else None,
      )
  axes.set_xticks(range(len(rounds)), [str(row.number) for row in rounds])
  axes.set_xlabel("round")
  axes.set_ylabel(ylabel)
  axes.grid(axis="x", visible=False)
  _scores_on(axes.yaxis, show)
  _legend(axes)
  return axes.figure


@_styled
def predictor(groups: list[Foreseen], show: Show, ylabel: str) -> Figure:
  """Plots predictions against measurements.

  Args:
    groups: the groups to show together.
    show: formats a score.
    ylabel: name of the scores.
  """
  axes = _axes()
  looks = {
    "fitted": ("o", POOL, "none", "fitted"),
    "held out": ("D", HELD_OUT, HELD_OUT, "held out"),
    "proposals": ("o", NEW, NEW, "predicted before it was scored"),
  }
  for group in groups:
    mark, edge, face, label = looks[group.group]
    axes.scatter(
      group.predicted, group.scores, s=18, marker=mark, edgecolors=edge,
      facecolors=face, lw=0.9, alpha=0.8, label=label,
    )  # fmt: skip
  axes.set_xlabel("predicted")
  axes.set_ylabel(ylabel)
  _scores_on(axes.yaxis, show)
  _legend(axes)
  return axes.figure


@_styled
def predicted_gain(steps: list[Step]) -> Figure:
  """Plots the predicted gain of every candidate by step size."""
  axes = _axes()
  sizes, at = _places(steps)
  size = np.concatenate([step.candidate_size for step in steps])
  gain = np.concatenate([step.candidate_gain for step in steps])
  parts = [gain[np.isclose(size, one)] for one in sizes]
  some = [place for place, part in zip(at, parts, strict=True) if len(part)]
  parts = [part for part in parts if len(part)]
  low, high = np.transpose([np.quantile(part, BAND) for part in parts])
  axes.fill_between(some, low, high, color=NEW, alpha=0.2, lw=0, label=_SPREAD)
  means = [part.mean() for part in parts]
  axes.plot(some, means, "o-", color=NEW, ms=3, label="mean")
  axes.set_ylabel("predicted gain")
  _on_sizes(axes, sizes)
  _legend(axes)
  return axes.figure


@_styled
def measured_gain(steps: list[Step], ylabel: str) -> Figure:
  """Plots the measured gain of accepted proposals by step size.

  Args:
    steps: at least one has measurements.
    ylabel: unit of the gains.
  """
  axes, rng = _axes(), np.random.default_rng(0)
  sizes, _ = _places(steps)
  size = np.concatenate([step.size for step in steps])
  gain = np.concatenate([step.measured for step in steps])
  labels = {"one": "a proposal", "all": "mean ± standard error"}
  for place, one in enumerate(sizes):
    part = gain[np.isclose(size, one) & np.isfinite(gain)]
    if not len(part):
      continue
    at = place + rng.uniform(-0.15, 0.15, len(part))
    axes.scatter(
      at,
      part,
      s=_DOT,
      color=NEW,
      alpha=0.45,
      lw=0,
      label=labels.pop("one", None),
    )
    if len(part) > 1:
      error = part.std(ddof=1) / np.sqrt(len(part))
      axes.errorbar(
        place, part.mean(), error, fmt="_", color=BEST, capsize=2, lw=1.2,
        label=labels.pop("all", None),
      )  # fmt: skip
  axes.set_ylabel(f"measured gain ({ylabel})")
  _on_sizes(axes, sizes)
  _legend(axes)
  return axes.figure


@_styled
def new_candidates(steps: list[Step]) -> Figure:
  """Plots the share of decoded candidates that were new, by step size.

  Args:
    steps: steps with counts of new candidates.
  """
  axes = _axes()
  sizes = steps[-1].sizes
  same = [step for step in steps if step.sizes == sizes]
  new = np.sum([step.new for step in same], axis=0)
  total = sum(step.decoded or 0 for step in same)
  axes.bar(range(len(sizes)), 100 * new / total if total else new, color=NEW)
  axes.set_ylabel("new, % of the decoded" if total else "new candidates")
  axes.grid(axis="x", visible=False)
  _on_sizes(axes, sizes)
  return axes.figure


def _places(steps: list[Step]) -> tuple[list[float], np.ndarray]:
  """Returns all step sizes and their equally spaced positions."""
  sizes = sorted({size for step in steps for size in step.sizes})
  return sizes, np.arange(len(sizes))


def _on_sizes(axes: Axes, sizes: Sequence[float]) -> None:
  every = -(-len(sizes) // 8)
  at = range(0, len(sizes), every)
  axes.set_xticks(at, [f"{sizes[place]:g}" for place in at])
  axes.set_xlim(-0.6, len(sizes) - 0.4)
  axes.axhline(0, color=canvas.WIRE, lw=0.8)
  axes.set_xlabel("step size")


@_styled
def plane(seen: Plane, parents: np.ndarray, best: np.ndarray) -> Figure:
  """Plots embeddings of the pool, and lines from seeds to proposals.

  Args:
    seen: the projected embeddings.
    parents: int [M], which member each proposal was made from; -1 for none.
    best: bool [N], the best quarter of the pool.
  """
  axes = _axes(3.6)
  made = parents >= 0
  ends = np.stack([seen.members[parents[made]], seen.proposals[made]])
  axes.plot(*ends.transpose(2, 0, 1), color=canvas.WIRE, lw=0.6, alpha=0.6)
  for rows, look, label in (
    (seen.members[~best], {"facecolors": "none", "edgecolors": POOL}, "pool"),
    (seen.members[best], {"color": BEST}, "best quarter"),
    (seen.proposals, {"color": NEW, "marker": "D"}, "proposals"),
  ):
    axes.scatter(*rows.T, s=16, lw=0.9, alpha=0.85, label=label, **look)
  first, second = 100 * seen.share
  axes.set_xlabel(f"first axis ({first:.0f} % of the variance)")
  axes.set_ylabel(f"second axis ({second:.0f} %)")
  axes.set_aspect("equal", "datalim")
  _legend(axes)
  return axes.figure


@_styled
def ops(shares: Shares, what: str) -> Figure:
  """Plots how often each op occurs among the best and among the rest.

  Args:
    shares: frequencies in the last pool.
    what: name of the parts that have an op.
  """
  names = [name.replace("_", " ") for name in shares.names]
  axes = _axes(0.9 + 0.34 * len(names))
  at = np.arange(len(names))
  groups = (
    (f"best {shares.counts[0]}", shares.best, shares.best_error, BEST, -0.19),
    (f"other {shares.counts[1]}", shares.rest, shares.rest_error, POOL, 0.19),
  )
  for label, share, error, colour, aside in groups:
    axes.barh(
      at + aside, 100 * share, 0.34, xerr=100 * np.nan_to_num(error),
      color=colour, alpha=0.75, label=label,
      error_kw={"ecolor": canvas.INK, "lw": 0.9},
    )  # fmt: skip
  axes.set_yticks(at, names)
  axes.invert_yaxis()
  axes.grid(axis="y", visible=False)
  axes.set_xlabel(f"% of {what} (± standard error)")
  _legend(axes)
  return axes.figure


@_styled
def from_scratch(groups: dict[str, Group], ylabel: str) -> Figure:
  """Plots every training of every cell, and means with standard deviations.

  Args:
    groups: searched and random cells.
    ylabel: name of the measurement.
  """
  axes, place, middles = _axes(), 0, []
  for name, group in groups.items():
    colour = NEW if name == "searched" else POOL
    places = place + np.arange(len(group.cells))
    for at, cell in zip(places, group.cells, strict=True):
      axes.scatter([at] * len(cell), cell, s=18, color=colour, alpha=0.7, lw=0)
    if len(group.values):
      mean, deviation = group.values.mean(), np.nan_to_num(group.deviation)
      beam = (places[0] - 0.35, places[-1] + 0.35)
      band = (mean - deviation, mean + deviation)
      axes.fill_between(beam, *band, color=colour, alpha=0.2, lw=0)
      axes.plot(beam, [mean] * 2, color=colour, lw=2)
    middles.append(places.mean())
    place = places[-1] + 2
  axes.set_xticks(middles, [f"{name} cells" for name in groups])
  axes.grid(axis="x", visible=False)
  axes.set_ylabel(ylabel)
  return axes.figure
