"""The section about scores and costs: the last pool, its front, the limit."""

import matplotlib
from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import canvas
from nao_jax.objectives import front
from nao_jax.report import formatting, plots
from nao_jax.report.page import Plot, Section, Table
from nao_jax.report.run import Run


def section(run: Run) -> Section | None:
  """Plots the last round's members; returns None for a search without costs."""
  last = run.scored[-1]
  cost = run.arrays.get(last, {}).get("member_cost")
  rows = run.members(last)
  if cost is None or len(cost) != len(rows):
    return None
  scores = run.pool.scores[rows, last]
  name, limit = run.history[last]["cost"], run.history[last]["limit"]
  on_front = front(np.stack([scores, -cost], -1))
  figure = _plot(run, scores, cost, on_front, name, limit)
  text = (
    f"Exact costs of the {len(rows)} members of round {last}. No member is "
    "better than one on the front in both, "
    f"{formatting.score_name(run)} and {name}."
  )
  if limit is not None:
    text += f" The limit of the search was {limit:g}."
  order = np.flatnonzero(on_front)[np.argsort(cost[on_front])]
  table = Table(
    ["number", name, formatting.score_name(run)],
    [
      [str(rows[i]), f"{cost[i]:,.6g}", run.cells.measure.show(scores[i])]
      for i in formatting.spread_out(order.tolist(), formatting.LISTED)
    ],
    "The front, cheapest first.",
  )
  return Section("Scores and costs", [text], [Plot(figure, text)], [table])


@matplotlib.rc_context(plots.STYLE)
def _plot(run: Run, scores, cost, on_front, name, limit) -> Figure:
  size = plots.WIDTH, plots.HEIGHT
  axes = Figure(figsize=size, layout="constrained").subplots()
  axes.plot(
    cost[~on_front],
    scores[~on_front],
    "o",
    color=plots.POOL,
    ms=3,
    label="pool",
  )
  order = np.argsort(cost[on_front])
  axes.step(
    cost[on_front][order],
    scores[on_front][order],
    "o-",
    where="post",
    color=plots.BEST,
    ms=4,
    label="front",
  )
  if limit is not None:
    axes.axvline(limit, color=canvas.WIRE, ls="--", lw=1, label="limit")
  axes.set_xlabel(name)
  axes.set_ylabel(formatting.score_axis(run))
  axes.yaxis.set_major_formatter(lambda value, _: run.cells.measure.tick(value))
  axes.figure.legend(loc="outside upper left", ncols=3)
  return axes.figure
