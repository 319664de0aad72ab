"""A page that compares several searches."""

from collections.abc import Sequence
import os
import pathlib

import numpy as np

from nao_jax.errors import UserError
from nao_jax.report import (
  analysis,
  baseline,
  formatting,
  learning_curves,
  plots,
  search_page,
)
from nao_jax.report import page as pages
from nao_jax.report import run as runs
from nao_jax.report.page import Page, Plot, Section, Table
from nao_jax.report.run import Run
from nao_jax.runs.paths import expanded

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write(
  paths: Sequence[str | os.PathLike], output: str | os.PathLike
) -> pathlib.Path:
  """Writes a page about several searches; returns the file.

  Args:
    paths: their directories.
    output: the file.

  Raises:
    UserError: one of them is no search, the searches are for different kinds
      of cells, or the file cannot be written.
  """
  if not 2 <= len(paths) <= len(_LETTERS):
    raise UserError(
      f"`paths={','.join(map(str, paths))}`: {len(paths)} directories; "
      f"allowed: 2 to {len(_LETTERS)}, separated by commas"
    )
  found = [runs.read(path, "paths") for path in paths]
  for run in found[1:]:
    if type(run.cells) is not type(found[0].cells):
      raise UserError(
        f"`paths={run.path}`: a search for {run.cells.what}, and "
        f"{found[0].path} is one for {found[0].cells.what}; give one kind"
      )
  return pages.write(of(found), expanded(output), f"`output={output}`")


def of(found: list[Run]) -> Page:
  """Builds the page that compares these searches."""
  named = dict(zip(_LETTERS, found, strict=False))
  sections = [
    _overview(named),
    _curves(named),
    _repeats(named),
    _predictors(named),
    _differences(named),
    *(
      search_page.winner(run, f"{letter}: the best of {run.path.name}")
      for letter, run in named.items()
      if run.scored
    ),
  ]
  return Page(
    title=f"{len(found)} searches for {found[0].cells.what}",
    about=", ".join(
      f"{letter}: {run.path.name}" for letter, run in named.items()
    ),
    tiles=[],
    sections=[section for section in sections if section],
  )


def _overview(named: dict[str, Run]) -> Section:
  rows = [_row(letter, run) for letter, run in named.items()]
  first = next(iter(named.values()))
  name = formatting.compared_name(first)
  head = [
    "", "directory", "data", "strategy", "scores", "seed", "rounds",
    "architectures", "best validation", f"found: {name}", "± deviation",
    f"random: {name}", "± deviation", "time of the rounds",
  ]  # fmt: skip
  caption = (
    "Each row is one search with one seed. Means and standard deviations of "
    "what was trained from scratch are over all trainings."
  )
  return Section(
    "The searches",
    _warnings(named),
    tables=[Table(head, rows, caption, words=5)],
  )


def _row(letter: str, run: Run) -> list[str]:
  settings, rounds = run.settings, learning_curves.rounds(run)
  groups, none = analysis.groups(run.compared), analysis.Group([], 0)
  best = run.cells.measure.show(rounds[-1].scores.max()) if rounds else ""
  measured = []
  for name in ("searched", "random"):
    group = groups.get(name, none)
    measured += [group.mean, group.deviation]
  return [
    letter,
    str(run.path),
    run.cells.data,
    str(settings["strategy"]),
    formatting.how(run),
    str(settings["seed"]),
    f"{len(rounds)} of {settings['search.rounds'] + 1}",
    f"{rounds[-1].scored:,}" if rounds else "0",
    best or formatting.NONE,
    *(formatting.compared_number(run, value) for value in measured),
    formatting.duration(rounds[-1].seconds if rounds else None),
  ]


def _warnings(named: dict[str, Run]) -> list[str]:
  texts = []
  for name in baseline.MEASURED:
    values = {repr(run.settings.get(name)) for run in named.values()}
    if len(values) > 1:
      texts.append(
        f"They differ in {name} ({', '.join(sorted(values))}), so their scores "
        "do not measure the same thing."
      )
  if any(run.settings["evaluator"] == "shared" for run in named.values()):
    texts.append(
      "Scores with shared weights are not the accuracy or the perplexity of a "
      "cell that is trained alone; they depend on how far the weights are "
      "trained."
    )
  if not any(run.settings["strategy"] == "random" for run in named.values()):
    texts.append("None of them is a random search: there is no baseline here.")
  open_ = [letter for letter, run in named.items() if run.best is None]
  if open_:
    texts.append(f"Not ended: {', '.join(open_)}.")
  return texts


def _curves(named: dict[str, Run]) -> Section | None:
  groups = {
    _label(named, letters): [learning_curves.rounds(named[x]) for x in letters]
    for letters in _alike({x: run for x, run in named.items() if run.scored})
  }
  if not groups:
    return None
  first = next(iter(named.values()))
  drawn = []
  for name, at in learning_curves.AXES.items():
    curves = {
      label: (
        learning_curves.band(searches, at, learning_curves.best_of),
        learning_curves.band(searches, at, learning_curves.mean_of),
      )
      for label, searches in groups.items()
    }
    curves = {label: both for label, both in curves.items() if both[0]}
    if curves:
      axis = name, first.cells.measure.tick, formatting.score_axis(first)
      figure = plots.several(curves, *axis)
      text = f"By {name}. {_spread(groups)}"
      if missing := [label for label in groups if label not in curves]:
        text += f" Without {'; '.join(missing)}, whose searches do not overlap."
      drawn.append(Plot(figure, text))
  return Section("Scores", plots=drawn)


def _label(named: dict[str, Run], letters: list[str]) -> str:
  random = named[letters[0]].settings["strategy"] == "random"
  return ", ".join(letters) + (" (random)" if random else "")


def _spread(groups: dict[str, list]) -> str:
  """Describes the curves for the caption of a plot."""
  text = "Solid: the best of the pool, dashed: its mean."
  counts = {len(searches) > 1 for searches in groups.values()}
  if True in counts:
    text += (
      " Searches that differ in the seed alone are one curve, their mean; the "
      "band is from the lowest to the highest of them, as far as all of them "
      "have come."
    )
  if False in counts:
    text += " A curve with one letter is one run, which has no spread."
  return text


def _alike(named: dict[str, Run]) -> list[list[str]]:
  """Groups the letters of searches that differ only in the seed."""
  groups: dict[str, dict[int, str]] = {}
  again = []
  for letter, run in named.items():
    rest = {k: v for k, v in run.settings.items() if k != "seed"}
    own = groups.setdefault(repr(sorted(rest.items())), {})
    # The same search twice is no repetition.
    if own.setdefault(run.settings["seed"], letter) != letter:
      again.append([letter])
  return [*(list(own.values()) for own in groups.values()), *again]


def _repeats(named: dict[str, Run]) -> Section:
  """Summarises groups of searches that differ only in the seed."""
  ended = {
    x: run for x, run in named.items() if run.best is not None and run.scored
  }
  rows = [
    _group(named, letters) for letters in _alike(ended) if len(letters) > 1
  ]
  title = "Repeated searches"
  if not rows:
    text = (
      "No two of them have ended and differ in nothing but the seed, so how "
      "much a search varies by chance is not known from here."
    )
    return Section(title, [text])
  unit = next(iter(named.values())).cells.measure.unit
  head = [
    "searches", "strategy", "best validation, mean",
    f"standard deviation ({unit})", "found minus random, mean",
    "standard error over searches",
  ]  # fmt: skip
  text = "Searches with the same settings and other seeds, which have ended."
  return Section(title, [text], tables=[Table(head, rows, words=2)])


def _group(named: dict[str, Run], letters: list[str]) -> list[str]:
  """Returns the table row of searches with the same settings."""
  found = [named[letter] for letter in letters]
  best = np.array(
    [learning_curves.rounds(run)[-1].scores.max() for run in found]
  )
  gains = [analysis.advantage(analysis.groups(run.compared)) for run in found]
  gains = np.array([gain.value for gain in gains if gain])
  return [
    ", ".join(letters),
    str(found[0].settings["strategy"]),
    found[0].cells.measure.show(best.mean()),
    f"{best.std(ddof=1):.4f}",
    formatting.mean(gains, "{:+.4f}"),
    formatting.number(analysis.standard_error(gains), "{:.4f}"),
  ]


def _predictors(named: dict[str, Run]) -> Section | None:
  rows = []
  for letter, run in named.items():
    last = {group.group: group for group in analysis.foreseen(run)}
    last.pop("fitted", None)
    for name, group in last.items():
      measures = analysis.ranking(group).measures.values()
      rows.append(
        [
          letter,
          name,
          str(group.round),
          str(len(group.scores)),
          *(f"{measure.value:.3f}" for measure in measures),
        ]
      )
  if not rows:
    return None
  head = [
    "", "what", "round", "n", "pairwise accuracy", "Kendall's tau",
    "Spearman's rho", "precision at k",
  ]  # fmt: skip
  text = (
    "How the last controllers ordered what they had not been fitted to. The "
    "report of each search has all rounds, and intervals."
  )
  return Section("Predictors", [text], tables=[Table(head, rows, words=2)])


def _differences(named: dict[str, Run]) -> Section:
  settings = {letter: run.settings for letter, run in named.items()}
  names = sorted({name for own in settings.values() for name in own})
  rows = []
  for name in names:
    values = [str(own.get(name, formatting.NONE)) for own in settings.values()]
    if len(set(values)) > 1:
      rows.append([name, *values])
  if not rows:
    return Section("Settings that differ", ["None: they are one search."])
  head = ["", *settings]
  return Section(
    "Settings that differ", tables=[Table(head, rows, words=len(head))]
  )
