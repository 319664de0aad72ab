"""Sections about the controller: predictions and gradient steps."""

from collections.abc import Sequence

import numpy as np

from nao_jax.report import analysis, formatting, plots
from nao_jax.report.analysis import Estimate, Predictions, Step
from nao_jax.report.page import Plot, Section, Table, texts
from nao_jax.report.run import Run
from nao_jax.strategies.choice import WITH_CONTROLLER


def predictor(run: Run) -> Section:
  """Compares predictions with scores."""
  title, groups = "Quality of the predictor", analysis.predictions(run)
  strategy = run.settings["strategy"]
  paragraphs = texts(
    "predictor",
    predicts=bool(groups) or strategy in WITH_CONTROLLER,
    found=bool(groups),
    strategy=strategy,
    held_out=any(group.group == "held out" for group in groups),
  )
  if not groups:
    return Section(title, paragraphs)
  rounds = formatting.spread_out(
    sorted({group.round for group in groups}), formatting.LISTED
  )
  shown = [group for group in groups if group.round in rounds]
  caption = (
    "How the controller of a round ordered architectures; in brackets, 95 % "
    "bootstrap intervals, where at least five architectures were not used in "
    "the fit."
  )
  table = rankings(shown, caption)
  return Section(title, paragraphs, _scatters(run, groups), [table])


def rankings(groups: Sequence[Predictions], caption: str) -> Table:
  """Tabulates how well predictions order architectures."""
  rows = [
    {
      "round": group.round,
      "group": group.group,
      "architectures": len(group.scores),
    }
    | {name: _interval(x) for name, x in analysis.ranking(group).items()}
    for group in groups
  ]
  return Table.of(rows, caption, words=2)


def _interval(estimate: Estimate) -> str:
  """Formats a number with its interval in brackets if there is one."""
  if estimate.interval is None:
    return f"{estimate.value:.3f}"
  low, high = estimate.interval
  return f"{estimate.value:.3f} ({low:.2f} to {high:.2f})"


def _scatters(run: Run, groups: list[Predictions]) -> list[Plot]:
  """Plots the last predicted members, and the last proposals with scores."""
  members = [group for group in groups if group.group != "proposals"]
  proposals = [group for group in groups if group.group == "proposals"][-1:]
  plotted = []
  if members:
    last = members[-1].round
    shown = [group for group in members if group.round == last]
    plotted.append((shown, f"Members of round {last}."))
  if proposals:
    caption = (
      f"Proposals of round {proposals[0].round}, predicted before they were "
      "scored in the next round."
    )
    plotted.append((proposals, caption))
  return [
    Plot(plots.predictions(shown, plots.axis_of(run)), caption)
    for shown, caption in plotted
  ]


def gradient(run: Run) -> Section | None:
  """Compares predicted and measured gains of the gradient steps."""
  steps = [step for step in analysis.steps(run) if step.sizes]
  if not steps:
    return None
  step_sizes = sorted({size for step in steps for size in step.sizes})
  plotted = [
    _gains(
      step_sizes,
      np.concatenate([step.candidate_size for step in steps]),
      np.concatenate([step.candidate_gain for step in steps]),
      "predicted gain",
      "Predicted gains of all candidates over their seeds, in all rounds.",
    ),
    _gains(
      step_sizes,
      np.concatenate([step.size for step in steps]),
      np.concatenate([step.measured for step in steps]),
      f"measured gain ({run.cells.measure.unit})",
      "Score of each accepted proposal minus its seed's, both from the round "
      "after; all rounds.",
    ),
  ]
  return Section(
    "Gradient steps",
    texts("gradient"),
    [plot for plot in plotted if plot],
    [_by_round(run, steps)],
  )


def _gains(step_sizes, sizes, gains, ylabel: str, caption: str) -> Plot | None:
  """Plots the finite gains of steps of these sizes; None if there are none."""
  kept = np.isfinite(gains) & np.isclose(sizes[:, None], step_sizes).any(1)
  if not kept.any():
    return None
  figure = plots.gains(step_sizes, sizes[kept], gains[kept], ylabel)
  return Plot(figure, caption)


def _by_round(run: Run, steps: list[Step]) -> Table:
  rows = []
  for step in formatting.spread_out(steps, formatting.LISTED):
    gains = step.measured[np.isfinite(step.measured)]
    error = analysis.standard_error(gains)
    rows.append(
      {
        "round": step.round,
        "decoded": formatting.number(step.decoded, "d"),
        "new": formatting.number(step.new, "d"),
        "accepted": len(step.size),
        "predicted before decoding": formatting.mean(step.at_point, "+.3f"),
        "predicted, encoded again": formatting.mean(step.predicted, "+.3f"),
        f"measured ({run.cells.measure.unit})": formatting.mean(gains, "+.4f"),
        "standard error": formatting.number(error, ".4f"),
        "better than the seed": formatting.mean(gains > 0, ".0%"),
      }
    )
  caption = (
    "Numbers of candidates, and mean gains of accepted proposals over their "
    "seeds; predicted gains are on the predictor's scale, 0 to 1."
  )
  return Table.of(rows, caption)
