"""Sections about the pool: scores, costs, proposals, ops and ancestors."""

from collections.abc import Sequence

import numpy as np

from nao_jax import objectives
from nao_jax.report import (
  analysis,
  baseline,
  formatting,
  learning_curves,
  plots,
)
from nao_jax.report.analysis import Shares
from nao_jax.report.learning_curves import Round
from nao_jax.report.page import Plot, Section, Table, texts
from nao_jax.report.plots import Line
from nao_jax.report.run import Run


def scores(run: Run, random: Sequence[Run] = ()) -> Section:
  """Shows best and mean by round, by architectures scored and by time."""
  title, rounds = "Scores by round", learning_curves.rounds(run)
  if not rounds:
    return Section(title, ["No round has ended yet."])
  others = [learning_curves.rounds(other) for other in random]
  paragraphs = texts(
    "scores",
    shared=run.settings["evaluator"] == "shared",
    metric=run.cells.measure.name,
    strategy=run.settings["strategy"],
    seeds=", ".join(str(other.settings["seed"]) for other in random),
    best=", ".join(formatting.score(run, x[-1].scores.max()) for x in others),
    repeated=len(random) > 1,
    differing=", ".join(baseline.differing(run, random)),
  )
  drawn = [_curves(run, rounds, others, axis) for axis in learning_curves.AXES]
  return Section(
    title, paragraphs, [x for x in drawn if x], [_by_round(run, rounds)]
  )


def _curves(run: Run, rounds, others, axis: str) -> Plot | None:
  """Plots the scores of a search and of random searches against an axis."""
  at = learning_curves.AXES[axis]
  pool = learning_curves.pool_band(rounds, at)
  if pool is None:
    return None
  best = learning_curves.band([rounds], at)
  lines = [
    Line(pool, plots.POOL, "mean of the pool"),
    Line(best, plots.BEST, "best of the pool"),
  ]
  random = learning_curves.band(others, at) if others else None
  if random is not None:
    runs = "1 run" if len(others) == 1 else f"{len(others)} runs"
    label = f"best of random search, {runs}"
    lines.append(Line(random, plots.RANDOM, label, "D-"))
  caption = f"By {axis}{', with compiling' * (axis == 'minutes')}."
  return Plot(plots.curves(lines, axis, plots.axis_of(run)), caption)


def _by_round(run: Run, rounds: list[Round]) -> Table:
  rows = [
    {
      "round": row.number,
      "members": len(row.scores),
      "best": formatting.score(run, row.scores.max()),
      "mean": formatting.score(run, row.scores.mean()),
      "standard deviation": formatting.number(
        analysis.deviation(row.scores), ".4f"
      ),
      "proposals": row.proposed.sum(),
      "their mean": formatting.score(
        run, row.scores[row.proposed].mean() if row.proposed.any() else None
      ),
      "time so far": formatting.duration(row.seconds),
    }
    for row in formatting.spread_out(rounds, formatting.LISTED)
  ]
  name, unit = formatting.score_name(run), run.cells.measure.unit
  return Table.of(rows, f"{name.capitalize()}; deviations are in {unit}.")


def costs(run: Run) -> Section | None:
  """Shows scores, costs and the front of a search that measured costs."""
  last = run.scored[-1]
  cost, rows = run.arrays.get(last, {}).get("member_cost"), run.members(last)
  if cost is None or len(cost) != len(rows):
    return None
  _, found = run.pool.in_round(last)
  name, limit = run.history[last]["cost"], run.history[last]["limit"]
  on_front = objectives.front(np.stack([found, -cost], -1))
  paragraphs = texts(
    "front",
    members=len(rows),
    round=last,
    score_name=formatting.score_name(run),
    cost=name,
    limit=None if limit is None else f"{limit:g}",
  )
  figure = plots.front(cost, found, on_front, limit, name, plots.axis_of(run))
  order = np.flatnonzero(on_front)[np.argsort(cost[on_front])].tolist()
  table = Table.of(
    [
      {
        "number": rows[i],
        name: f"{cost[i]:,.6g}",
        formatting.score_name(run): formatting.score(run, found[i]),
      }
      for i in formatting.spread_out(order, formatting.LISTED)
    ],
    "The front, cheapest first.",
  )
  caption = f"Members of round {last} and their exact costs."
  return Section(
    "Scores and costs", paragraphs, [Plot(figure, caption)], [table]
  )


def proposals(run: Run) -> Section | None:
  """Compares each round's proposals with the other members."""
  rounds = [
    row
    for row in learning_curves.rounds(run)
    if row.proposed.any() and not row.proposed.all()
  ]
  if not rounds:
    return None
  shown = formatting.spread_out(rounds, formatting.PLOTTED)
  figure = plots.proposals(shown, plots.axis_of(run))
  caption = (
    "A dot is an architecture; a box holds the middle half, its line is the "
    "median."
  )

  unit = run.cells.measure.unit
  table = Table.of(
    [_gain(row) for row in formatting.spread_out(rounds, formatting.LISTED)],
    f"Proposals minus other members, in {unit}.",
  )
  paragraphs = texts("proposals", replaced=not run.settings["search.extend"])
  return Section("Proposals", paragraphs, [Plot(figure, caption)], [table])


def _gain(row: Round) -> dict[str, str]:
  """Compares the proposals in a round with the other members."""
  ours, others = row.scores[row.proposed], row.scores[~row.proposed]
  error = np.hypot(*map(analysis.standard_error, (ours, others)))
  return {
    "round": str(row.number),
    "difference of means": f"{ours.mean() - others.mean():+.4f}",
    "standard error": formatting.number(error, ".4f"),
    "above the others' median": f"{np.mean(ours > np.median(others)):.0%}",
  }


def ops(run: Run) -> Section:
  """Shows how often each op occurs among the best and among the rest."""
  names, (best, rest) = run.cells.op_names, analysis.op_shares(run)

  table = Table.of(
    [
      {
        "operation": name,
        "best quarter, %": _percent(best, i),
        "the rest, %": _percent(rest, i),
      }
      for i, name in enumerate(names)
    ]
  )
  figure = plots.ops(names, best, rest, run.cells.parts)
  caption = (
    f"The pool of round {run.scored[-1]} by its scores in that round; errors "
    "are standard errors over architectures."
  )
  return Section(
    "Operations of the best", plots=[Plot(figure, caption)], tables=[table]
  )


def _percent(shares: Shares, op: int) -> str:
  """Formats the share of an op and its standard error."""
  values = (100 * shares.mean[op], 100 * shares.error[op])
  return " ± ".join(formatting.number(value, ".1f") for value in values)


def ancestors(run: Run) -> Section:
  """Shows the chain of parents of the winner."""
  chain = analysis.ancestors(run.pool, run.winner)
  rows = [
    {
      "number": one.row,
      "from": one.origin,
      "step size": formatting.number(one.step_size or None, "g"),
      "tokens changed": formatting.number(one.changed, "d"),
      "first score": formatting.score(run, one.first),
      "parent's score then": formatting.score(run, one.parent),
      "last score": formatting.score(run, one.last),
    }
    for one in chain
  ]
  return Section(
    "Ancestors of the winner",
    [
      "The chain of parents, oldest first."
      if chain[1:]
      else "It has no parent."
    ],
    tables=[Table.of(rows, words=2)] if rows else [],
    code=[
      f"{one.row}: {run.cells.space.plain.text(run.pool.tokens[one.row])}"
      for one in chain
    ],
  )
