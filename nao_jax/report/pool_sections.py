"""Sections about the pool: its scores, its proposals, its best members."""

import numpy as np

from nao_jax.report import (
  analysis,
  baseline,
  formatting,
  learning_curves,
  plots,
)
from nao_jax.report.learning_curves import Band, Round
from nao_jax.report.page import Plot, Section, Table
from nao_jax.report.run import Run

_OF_TIME = " on the machine that ran it, compiling included"


def scores(run: Run, random: list[Run]) -> Section:
  """Plots best and mean by round, by architectures scored and by time.

  Args:
    run: the search.
    random: random searches that measure the same.
  """
  title, rounds = "Scores by round", learning_curves.rounds(run)
  if not rounds:
    return Section(title, ["No round has ended yet."])
  others = [learning_curves.rounds(other) for other in random]
  drawn = []
  for name, at in learning_curves.AXES.items():
    if at(rounds[-1]) is None:
      continue
    beside = (
      learning_curves.band(others, at, learning_curves.best_of)
      if others
      else None
    )
    axis = run.cells.measure.tick, formatting.score_axis(run)
    figure = plots.progress(rounds, name, *axis, beside)
    text = f"By {name}{_OF_TIME if name == 'minutes' else ''}."
    drawn.append(Plot(figure, f"{text} {_spread(beside)}"))
  return Section(title, _about(run, random), drawn, [_by_round(run, rounds)])


def _spread(random: Band | None) -> str:
  """Describes the bands of a plot."""
  text = (
    "One run. The grey band is the spread of the pool's members, not of "
    "repeated searches; the best has none."
  )
  if random is None:
    return text
  if random.count == 1:
    return f"{text} The random search is one run, too."
  return (
    f"{text} The green one is the range of the random searches, as far as all "
    "of them have come."
  )


def _about(run: Run, random: list[Run]) -> list[str]:
  texts = [
    "This is one search with one seed: another seed would have given other "
    "curves, and how different they would be is not known from here."
  ]
  if run.settings["evaluator"] == "shared":
    texts.append(
      "Scores are those of shared weights, which are trained on from round to "
      "round: a rise between rounds is their training, too. Compare members "
      "within a round. A score is not the accuracy or the perplexity of a cell "
      "that is trained alone."
    )
  if random:
    texts += baseline.about(run, random)
  elif run.settings["strategy"] == "random":
    texts.append("This search is random search itself, the baseline of others.")
  else:
    texts.append(
      "No random search was run beside this one, so the curves do not say what "
      "its strategy is worth. The same search with the strategy random, in "
      "another workdir, is that baseline; nao_jax.experiments.report shows it "
      "here."
    )
  return texts


def _by_round(run: Run, rounds: list[Round]) -> Table:
  show = run.cells.measure.show
  rows = []
  for row in formatting.spread_out(rounds, formatting.LISTED):
    newest = row.scores[row.newest]
    rows.append(
      [
        str(row.number),
        str(len(row.scores)),
        show(row.scores.max()),
        show(row.scores.mean()),
        formatting.number(row.deviation, "{:.4f}"),
        str(len(newest)),
        show(newest.mean()) if len(newest) else formatting.NONE,
        formatting.duration(row.seconds),
      ]
    )
  head = [
    "round", "members", "best", "mean", "standard deviation", "proposals",
    "their mean", "time so far",
  ]  # fmt: skip
  name = formatting.score_name(run).capitalize()
  caption = f"{name}; deviations are in {run.cells.measure.unit}."
  return Table(head, rows, caption)


def proposed(run: Run) -> Section | None:
  """Compares each round's proposals with the other members."""
  every = [
    row
    for row in learning_curves.rounds(run)
    if row.newest.any() and not row.newest.all()
  ]
  if not every:
    return None
  shown = formatting.spread_out(every, formatting.PLOTTED)
  figure = plots.proposed(
    shown, run.cells.measure.tick, formatting.score_axis(run)
  )
  caption = (
    "A dot is an architecture; the box is the middle half, the line the "
    "median. Both groups of a round are scored at the same time."
  )
  text = "New members beside those that were in the pool before."
  if not run.settings["search.extend"]:
    text += (
      " The others are what was left after the worst were replaced, so even "
      "good proposals may lie below them."
    )
  return Section(
    "What was proposed",
    [text],
    [Plot(figure, caption)],
    [_against_others(run, formatting.spread_out(every, formatting.LISTED))],
  )


def _against_others(run: Run, rounds: list[Round]) -> Table:
  rows = []
  for row in rounds:
    inside, others = row.scores[row.newest], row.scores[~row.newest]
    error = np.hypot(*map(analysis.standard_error, (inside, others)))
    rows.append(
      [
        str(row.number),
        f"{inside.mean() - others.mean():+.4f}",
        formatting.number(error, "{:.4f}"),
        f"{np.mean(inside > np.median(others)):.0%}",
      ]
    )
  head = ["round", "difference of means", "standard error", "above the median"]
  return Table(
    head, rows, f"Proposals against the others ({run.cells.measure.unit})."
  )


def ops(run: Run) -> Section:
  """Shows how often each op occurs among the best and among the rest."""
  shares = analysis.op_shares(run)
  caption = (
    f"The pool of round {run.scored[-1]}, by its scores in that round; the "
    "lines are standard errors over architectures."
  )
  columns = (shares.best, shares.best_error, shares.rest, shares.rest_error)
  rows = [
    [name, *(formatting.number(100 * value, "{:.1f}") for value in values)]
    for name, *values in zip(shares.names, *columns, strict=True)
  ]
  head = ["", "best quarter, %", "standard error", "rest, %", "standard error"]
  return Section(
    "What the best ones are made of",
    plots=[Plot(plots.ops(shares, run.cells.parts), caption)],
    tables=[Table(head, rows)],
  )


def ancestry(run: Run) -> Section:
  """Shows the chain of parents of the winner."""
  show = run.cells.measure.show
  chain = analysis.ancestors(run.pool, run.winner)
  rows = [
    [
      str(one.row),
      one.origin,
      formatting.number(one.step_size or None, "{:g}"),
      formatting.number(one.changed, "{:d}"),
      show(one.first),
      formatting.NONE if one.parent is None else show(one.parent),
      show(one.last),
    ]
    for one in chain
  ]
  head = [
    "number", "from", "step size", "tokens changed", "first score",
    "its parent's then", "last score",
  ]  # fmt: skip
  text = "The chain of parents, the first one first."
  if len(chain) == 1:
    text = "It has no parent."
  return Section(
    "Where the winner came from",
    [text],
    tables=[Table(head, rows, words=2)],
    code=[
      f"{one.row}: {run.cells.space.plain.text(run.pool.tokens[one.row])}"
      for one in chain
    ],
  )
