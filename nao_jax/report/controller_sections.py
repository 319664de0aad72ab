"""Sections about the controller: predictions, steps, embeddings."""

import numpy as np

from nao_jax.report import analysis, formatting, plots
from nao_jax.report.analysis import Foreseen, Measured, Ranking, Step
from nao_jax.report.page import Plot, Section, Table
from nao_jax.report.run import Run
from nao_jax.strategies.projection import Plane

# Number of rounds whose embeddings are drawn.
_PLANES = 3
_TARGETS = {
  "nao": "scores scaled to the pool, 0 for its worst and 1 for its best",
  "nao_plus": "ranks in the pool, 0 for its worst and 1 for its best",
}


def predictor(run: Run) -> Section:
  """Builds the section that compares predictions with measurements."""
  title, found = "Does the predictor know?", analysis.foreseen(run)
  strategy = run.settings["strategy"]
  if not found and strategy not in _TARGETS:
    text = f"The strategy {strategy} predicts nothing and moves no embedding."
    return Section(title, [text])
  if not found:
    return Section(title, ["No prediction was saved."])
  texts = [
    f"Predictions are {_TARGETS.get(strategy, 'scaled')}, so only their order "
    "counts. Guessing gives a pairwise accuracy of 0.5 and a correlation of 0."
  ]
  if strategy == "nao_plus":
    texts.append(
      "Each member was held out of one controller of the ensemble, and that "
      "one's prediction stands here; proposals are ranked by all controllers."
    )
  if not any(group.group == "held out" for group in found):
    texts.append(
      "No member was held out of the fit: what is known of the predictor is "
      "how it ranked proposals before they were scored."
    )
  rounds = formatting.spread_out(
    sorted({group.round for group in found}), formatting.LISTED
  )
  shown = [group for group in found if group.round in rounds]
  table = _rankings([analysis.ranking(group) for group in shown])
  return Section(title, texts, _scatters(run, found), [table])


def _scatters(run: Run, found: list[Foreseen]) -> list[Plot]:
  """Plots the last round's members and the last proposals that have scores."""
  axes, drawn = (run.cells.measure.tick, formatting.score_axis(run)), []
  members = [group for group in found if group.group != "proposals"]
  if members:
    last = members[-1].round
    caption = (
      f"Members of round {last}. What the controller was fitted to it may know "
      "by heart, so it does not say how well it predicts."
    )
    shown = [group for group in members if group.round == last]
    drawn.append(Plot(plots.predictor(shown, *axes), caption))
  ahead = [group for group in found if group.group == "proposals"]
  if ahead:
    caption = (
      f"Proposals of round {ahead[-1].round}, encoded again and predicted "
      "before anything had scored them; scores of the round after."
    )
    drawn.append(Plot(plots.predictor(ahead[-1:], *axes), caption))
  return drawn


def _rankings(found: list[Ranking]) -> Table:
  names = list(found[0].measures)
  rows = [
    [
      str(one.of.round),
      one.of.group,
      str(len(one.of.scores)),
      *(with_interval(one.measures[name]) for name in names),
      str(one.k),
    ]
    for one in found
  ]
  caption = (
    "How the controller of a round ordered architectures; in brackets a 95 % "
    "interval by bootstrap over architectures, where there are enough of them "
    "and none was fitted. k is a quarter of them."
  )
  return Table(["round", "what", "n", *names, "k"], rows, caption, words=2)


def with_interval(found: Measured) -> str:
  """Formats a number with its interval in brackets if there is one."""
  if found.interval is None:
    return f"{found.value:.3f}"
  low, high = found.interval
  return f"{found.value:.3f} ({low:.2f} to {high:.2f})"


def gradient(run: Run) -> Section | None:
  """Builds the section about predicted and measured gains of gradient steps."""
  steps = [step for step in analysis.steps(run) if step.sizes]
  if not steps:
    return None
  plus = run.settings["strategy"] == "nao_plus"
  drawn = []
  if sum(len(step.candidate_gain) for step in steps):
    which = "new candidate, encoded again" if plus else "point that was decoded"
    caption = (
      f"What the predictor promises for each {which}, over the seed. All "
      "rounds; the band is the spread of candidates."
    )
    drawn.append(Plot(plots.predicted_gain(steps), caption))
  if any(np.isfinite(step.measured).any() for step in steps):
    caption = (
      "Scores of accepted proposals less those of their seeds, both in the "
      "round after. All rounds of this one run; only accepted ones are scored."
    )
    figure = plots.measured_gain(steps, run.cells.measure.unit)
    drawn.append(Plot(figure, caption))
  if counted := [step for step in steps if step.new is not None]:
    than = "before" if plus else "at a smaller step"
    caption = (
      "How many of the decoded candidates were new: neither known nor found "
      f"{than}. All rounds."
    )
    drawn.append(Plot(plots.new_candidates(counted), caption))
  text = (
    "Seeds are moved along the gradient of the predictor and decoded. What it "
    "promises for the point need not hold for the architecture that the point "
    "decodes to, nor when that is scored."
  )
  return Section(
    "What the gradient step did", [text], drawn, [_by_round(run, steps)]
  )


def _by_round(run: Run, steps: list[Step]) -> Table:
  rows = []
  for step in formatting.spread_out(steps, formatting.LISTED):
    measured = step.measured[np.isfinite(step.measured)]
    better = np.mean(measured > 0) if len(measured) else None
    rows.append(
      [
        str(step.round),
        formatting.number(
          step.decoded and step.decoded * len(step.sizes), "{:.0f}"
        ),
        formatting.number(None if step.new is None else sum(step.new), "{:d}"),
        str(len(step.size)),
        formatting.mean(step.promised, "{:+.3f}"),
        formatting.mean(step.predicted, "{:+.3f}"),
        formatting.mean(measured, "{:+.4f}"),
        formatting.number(analysis.standard_error(measured), "{:.4f}"),
        formatting.number(better, "{:.0%}"),
      ]
    )
  head = [
    "round", "decoded", "new", "accepted", "predicted at the point",
    "encoded again", f"measured ({run.cells.measure.unit})", "standard error",
    "better than the seed",
  ]  # fmt: skip
  caption = (
    "Mean gains of accepted proposals over their seeds. Predicted ones are in "
    "the units of the predictions above."
  )
  return Table(head, rows, caption)


def planes(run: Run) -> Section | None:
  """Builds the section that shows embeddings in two dimensions."""
  known = [
    round_
    for round_, arrays in run.arrays.items()
    if "plane_share" in arrays
    and round_ in run.scored
    and len(arrays["member_plane"]) == len(run.members(round_))
    and len(arrays["proposal_plane"]) == len(run.proposals(round_))
  ]
  if not known:
    return None
  text = (
    "Embeddings in the plane in which those of the pool differ most (principal "
    "components); proposals are encoded again. The axes show the share of the "
    "variance that is written beside them: what is near here may be far apart."
  )
  if run.settings["strategy"] == "nao_plus":
    text += " These are embeddings of the first controller of the ensemble."
  return Section(
    "Where the architectures lie",
    [text],
    [_plane(run, round_) for round_ in formatting.spread_out(known, _PLANES)],
  )


def _plane(run: Run, round_: int) -> Plot:
  arrays = run.arrays[round_]
  members, rows = run.members(round_), run.proposals(round_)
  place = {row: at for at, row in enumerate(members.tolist())}
  parents = [place.get(row, -1) for row in run.pool.parents[rows].tolist()]
  scores = run.pool.scores[members, round_]
  figure = plots.plane(
    Plane(
      arrays["member_plane"], arrays["proposal_plane"], arrays["plane_share"]
    ),
    np.array(parents, int),
    scores >= np.quantile(scores, 1 - analysis.BEST),
  )
  return Plot(
    figure, f"Round {round_}; a line leads from a seed to what it became."
  )
