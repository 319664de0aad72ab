"""A page that compares several searches."""

from collections.abc import Sequence
import os
import pathlib
import string

import numpy as np

from nao_jax.errors import UserError
from nao_jax.report import (
  analysis,
  baseline,
  controller_sections,
  formatting,
  learning_curves,
  plots,
  search_page,
)
from nao_jax.report import page as pages
from nao_jax.report import run as runs
from nao_jax.report.page import Page, Plot, Section, Table
from nao_jax.report.plots import Line
from nao_jax.report.run import Run
from nao_jax.runs.paths import expanded
from nao_jax.tasks import known
from nao_jax.tasks.task import CellsOf

_LETTERS = string.ascii_uppercase
_COLOURS = (plots.PROPOSED, plots.BEST, plots.HELD_OUT, plots.POOL)
_MARKS = "osD^vP*X"


def write(
  paths: Sequence[str | os.PathLike],
  output: str | os.PathLike,
  cells_of: CellsOf = known.of,
) -> pathlib.Path:
  """Writes a page about several searches; returns the file.

  Raises:
    UserError: one of them is no search, the searches are for different kinds
      of cells, or the file cannot be written.
  """
  if not 2 <= len(paths) <= len(_LETTERS):
    raise UserError(
      f"`paths={','.join(map(str, paths))}`: {len(paths)} directories; "
      f"allowed: 2 to {len(_LETTERS)}, separated by commas"
    )
  found = [runs.read(path, "paths", cells_of) for path in paths]
  for run in found[1:]:
    if type(run.cells) is not type(found[0].cells):
      raise UserError(
        f"`paths={run.path}`: a search for {run.cells.description}, and "
        f"{found[0].path} is one for {found[0].cells.description}; give one "
        "kind"
      )
  return pages.write(of(found), expanded(output), f"`output={output}`")


def of(found: Sequence[Run]) -> Page:
  """Builds the page that compares these searches."""
  named = dict(zip(_LETTERS, found, strict=False))
  scored = {letter: run for letter, run in named.items() if run.scored}
  sections = [
    _overview(named),
    _curves(scored),
    _repeats(scored),
    _predictors(named),
    _differences(named),
    *(
      search_page.winner(run, f"{letter}: the best of {run.path.name}")
      for letter, run in scored.items()
    ),
  ]
  return Page(
    title=f"{len(found)} searches for {found[0].cells.description}",
    about=", ".join(
      f"{letter}: {run.path.name}" for letter, run in named.items()
    ),
    tiles=[],
    sections=[section for section in sections if section],
  )


def _overview(named: dict[str, Run]) -> Section:
  metric = next(iter(named.values())).cells.measure.name
  differing = []
  for name in baseline.MEASURED:
    values = sorted({repr(run.settings.get(name)) for run in named.values()})
    if len(values) > 1:
      differing.append((name, ", ".join(values)))
  evaluators, strategies = (
    {run.settings[name] for run in named.values()}
    for name in ("evaluator", "strategy")
  )
  paragraphs = pages.texts(
    "searches",
    differing=differing,
    shared="shared" in evaluators,
    metric=metric,
    random="random" in strategies,
    open=", ".join(x for x, run in named.items() if run.best is None),
  )
  rows = [_row(letter, run) for letter, run in named.items()]
  caption = (
    "Each row is one search with one seed. Test results are means and standard "
    "deviations over all trainings from scratch."
  )
  table = Table.of(rows, caption, words=5)
  return Section("The searches", paragraphs, tables=[table])


def _row(letter: str, run: Run) -> dict[str, str]:
  """Describes a search as {heading: cell}."""
  settings, rounds = run.settings, learning_curves.rounds(run)
  last = rounds[-1] if rounds else None
  row = {
    "": letter,
    "directory": str(run.path),
    "data": run.cells.data,
    "strategy": str(settings["strategy"]),
    "scores": formatting.evaluator_in_words(run),
    "seed": str(settings["seed"]),
    "rounds": f"{len(rounds)} of {settings['search.rounds'] + 1}",
    "architectures": f"{last.scored:,}" if last else "0",
    "best validation": formatting.score(run, last and last.scores.max()),
  }
  groups, none = analysis.trainings(run.compared), analysis.Trainings([], 0)
  for name in ("searched", "random"):
    group = groups.get(name, none)
    mean, deviation = (
      formatting.measurement(run, x) for x in (group.mean, group.deviation)
    )
    row[f"{name}: test {run.cells.measure.name}"] = f"{mean} ± {deviation}"
  time = formatting.duration(last.seconds if last else None)
  return row | {"time of the rounds": time}


def _curves(scored: dict[str, Run]) -> Section | None:
  """Plots the scores of all searches, with repeated ones as one curve."""
  groups = {}
  for letters in _alike(scored):
    random = scored[letters[0]].settings["strategy"] == "random"
    label = ", ".join(letters) + (" (random)" if random else "")
    groups[label] = [learning_curves.rounds(scored[x]) for x in letters]
  if not groups:
    return None
  scale, plotted = plots.axis_of(next(iter(scored.values()))), []
  for name, at in learning_curves.AXES.items():
    lines = []
    for number, (label, searches) in enumerate(groups.items()):
      best = learning_curves.band(searches, at)
      if best is not None:
        mean = learning_curves.band(searches, at, np.mean).mean
        dashed = learning_curves.Band(best.x, mean, mean, mean)
        colour = _COLOURS[number % len(_COLOURS)]
        mark = _MARKS[number % len(_MARKS)]
        lines.append(Line(best, colour, label, f"{mark}-"))
        lines.append(Line(dashed, colour, None, "--", 0.8))
    if lines:
      caption = f"By {name}."
      if missing := groups.keys() - {line.label for line in lines}:
        caption += f" Without {'; '.join(sorted(missing))}: no overlap."
      plotted.append(Plot(plots.curves(lines, name, scale, 8), caption))
  return Section("Scores", pages.texts("curves"), plotted)


def _alike(named: dict[str, Run]) -> list[list[str]]:
  """Groups the letters of searches that differ only in the seed."""
  groups: dict[str, list[str]] = {}
  for letter, run in named.items():
    key = repr(sorted((run.settings | {"seed": None}).items()))
    seeds = [named[x].settings["seed"] for x in groups.get(key, [])]
    if run.settings["seed"] in seeds:  # The same search again repeats nothing.
      key = letter
    groups.setdefault(key, []).append(letter)
  return list(groups.values())


def _repeats(scored: dict[str, Run]) -> Section:
  """Summarises groups of searches that differ only in the seed."""
  ended = {x: run for x, run in scored.items() if run.best is not None}
  groups = [
    {x: ended[x] for x in letters}
    for letters in _alike(ended)
    if len(letters) > 1
  ]
  rows = [_repeat(group) for group in groups]
  tables = [Table.of(rows, words=2)] if rows else []
  paragraphs = pages.texts("repeats", some=bool(rows))
  return Section("Repeated searches", paragraphs, tables=tables)


def _repeat(group: dict[str, Run]) -> dict[str, str]:
  """Describes searches with the same settings as {heading: cell}."""
  found = list(group.values())
  best = np.array(
    [learning_curves.rounds(run)[-1].scores.max() for run in found]
  )
  gains = [
    analysis.advantage(analysis.trainings(run.compared)) for run in found
  ]
  gains = np.array([gain.value for gain in gains if gain])
  unit = found[0].cells.measure.unit
  return {
    "searches": ", ".join(group),
    "strategy": str(found[0].settings["strategy"]),
    "best validation, mean": formatting.score(found[0], best.mean()),
    f"standard deviation ({unit})": f"{best.std(ddof=1):.4f}",
    "searched minus random, mean": formatting.mean(gains, "+.4f"),
    "standard error over searches": formatting.number(
      analysis.standard_error(gains), ".4f"
    ),
  }


def _predictors(named: dict[str, Run]) -> Section | None:
  """Shows how the last controllers ordered what they were not fitted to."""
  found = []
  for letter, run in named.items():
    last = {group.group: group for group in analysis.predictions(run)}
    last.pop("fitted", None)
    found += [
      group._replace(group=f"{letter}: {name}") for name, group in last.items()
    ]
  if not found:
    return None
  caption = (
    "How the last controllers ordered architectures that they were not fitted "
    "to; the report of each search has all rounds."
  )
  table = controller_sections.rankings(found, caption)
  return Section("Quality of the predictors", tables=[table])


def _differences(named: dict[str, Run]) -> Section:
  names, rows = set().union(*(run.settings for run in named.values())), []
  for name in sorted(names):
    values = {
      letter: str(run.settings.get(name, formatting.NONE))
      for letter, run in named.items()
    }
    if len({*values.values()}) > 1:
      rows.append({"": name} | values)
  return Section(
    "Settings that differ",
    [] if rows else ["None: they are one search."],
    tables=[Table.of(rows, words=1 + len(named))] if rows else [],
  )
