"""The report of one search: report.html in its directory."""

from collections.abc import Sequence
import os
import pathlib
import shlex

from absl import logging

from nao_jax.report import (
  analysis,
  baseline,
  controller_sections,
  finalists,
  formatting,
  front,
  learning_curves,
  plots,
  pool_sections,
)
from nao_jax.report import page as pages
from nao_jax.report import run as runs
from nao_jax.report.analysis import Group
from nao_jax.report.page import Facts, Page, Plot, Section, Table, Tile
from nao_jax.report.run import Run
from nao_jax.runs import paths
from nao_jax.tasks import known
from nao_jax.tasks.task import CellsOf

NAME = "report.html"


def write(
  path: str | os.PathLike,
  random: Sequence[str | os.PathLike] = (),
  cells_of: CellsOf = known.of,
) -> pathlib.Path:
  """Writes the report of a search into its directory; returns the file.

  Args:
    path: the directory.
    random: directories of random searches to show beside it.
    cells_of: see `report.run.read`.

  Raises:
    UserError: there is no search, one of the others is no random search that
      measures the same, or the file cannot be written.
  """
  run = runs.read(path, cells_of=cells_of)
  page = of(run, baseline.read(run, random))
  return pages.write(page, paths.expanded(path) / NAME, f"`workdir={path}`")


def try_to_write(path: str | os.PathLike, cells_of: CellsOf) -> None:
  """Writes the report of a search that has ended; logs any failure.

  Args:
    path: the directory.
    cells_of: see `report.run.read`.
  """
  try:
    logging.info("report in %s", write(path, cells_of=cells_of))
  except Exception as error:  # Whatever it is, the search has not failed.
    logging.warning(
      "no report (%s: %s); python -m nao_jax.experiments.report --workdir=%s "
      "tries again",
      type(error).__name__,
      error,
      path,
    )


def of(run: Run, random: Sequence[Run] = ()) -> Page:
  """Builds the report of a run, with `random` searches beside it."""
  settings = run.settings
  sections = [pool_sections.scores(run, list(random))]
  if run.scored:
    sections = [
      winner(run),
      finalists.section(run),
      _from_scratch(run),
      *sections,
      front.section(run),
      pool_sections.proposed(run),
      controller_sections.predictor(run),
      controller_sections.gradient(run),
      controller_sections.planes(run),
      pool_sections.ops(run),
      pool_sections.ancestry(run),
      _costs(run),
    ]
  sections = [_missing(run), *sections, _again(run)]
  return Page(
    title=f"A search for {run.cells.what} on {run.cells.data}",
    about=(
      f"{settings['strategy']}, scores {formatting.how(run)}, seed "
      f"{settings['seed']}; {_status(run)}"
    ),
    tiles=_tiles(run) if run.scored else [],
    sections=[section for section in sections if section],
  )


def winner(run: Run, title: str = "") -> Section:
  """Draws the winner, or the best of the last round so far."""
  last, tokens = run.scored[-1], run.pool.tokens[run.winner]
  score = run.cells.measure.show(run.pool.scores[run.winner, last])
  ranked = run.pool.ranked(last).tolist()
  place = ranked.index(run.winner) + 1
  text = (
    f"Number {run.winner} of the pool, place {place} of {len(ranked)} members "
    f"in round {last}: {formatting.score_name(run)} {score}."
  )
  if run.finalists:
    text += " It is the finalist that trained best from scratch."
  ended = "The winner" if run.best is not None else "The best so far"
  return Section(
    title or ended,
    [text],
    [
      Plot(figure, name, own_size=True)
      for name, figure in run.cells.figures(tokens).items()
    ],
    code=[run.cells.space.plain.text(tokens)],
  )


def _status(run: Run) -> str:
  if run.best is not None:
    return "it has ended"
  total = run.settings["search.rounds"] + 1
  return f"not ended: {len(run.scored)} of {total} rounds are scored"


def _tiles(run: Run) -> list[Tile]:
  rounds, last = learning_curves.rounds(run), run.scored[-1]
  origin = analysis.origin(int(run.pool.origins[run.winner]))
  best = Tile(
    f"best validation {run.cells.measure.name}",
    run.cells.measure.show(run.pool.scores[run.winner, last]),
    f"{formatting.how(run)}; one run, round {last}",
  )
  return [
    finalists.tile(run) if run.finalists else best,
    *(
      _tile_of(run, name, group)
      for name, group in analysis.groups(run.compared).items()
    ),
    Tile("the best came from", origin, f"the last round is {last}"),
    Tile(
      "architectures scored",
      f"{rounds[-1].scored:,}",
      f"in {len(rounds)} rounds",
    ),
    Tile(
      "time of the rounds",
      formatting.duration(rounds[-1].seconds),
      "without the trainings after them",
    ),
  ]


def _tile_of(run: Run, name: str, group: Group) -> Tile:
  spread = formatting.compared_number(run, group.deviation)
  return Tile(
    f"{name} cells, {formatting.compared_name(run)}",
    formatting.compared_number(run, group.mean),
    f"from scratch; standard deviation {spread}, {len(group.values)} trainings",
  )


def _missing(run: Run) -> Section | None:
  return Section("What is missing", run.missing) if run.missing else None


def _from_scratch(run: Run) -> Section:
  title, name = (
    "From scratch: found and random cells",
    formatting.compared_name(run),
  )
  groups = analysis.groups(run.compared)
  if not groups:
    return Section(title, [_no_baseline(run)])
  texts = [
    f"The best {'finalists' if run.finalists else 'cells of the last round'} "
    f"and random {'finalists' if run.finalists else 'cells'}, trained with the "
    "same budget and the same seeds, and measured once, on the test part.",
    _verdict(run, groups),
    *_shared_weights(run),
  ]
  if run.best is None:
    texts.append("These trainings have not ended.")
  rows = [
    [
      which,
      str(len(group.cells)),
      str(len(group.values)),
      formatting.compared_number(run, group.mean),
      formatting.compared_number(run, group.deviation),
      str(group.diverged),
    ]
    for which, group in groups.items()
  ]
  head = ["", "cells", "trainings", name, "standard deviation", "diverged"]
  caption = (
    "A dot is a training, a column of dots a cell; the bars are the means over "
    "all trainings, the bands one standard deviation either way."
  )
  plot = Plot(plots.from_scratch(groups, name), caption)
  return Section(title, texts, [plot], [Table(head, rows)])


def _no_baseline(run: Run) -> str:
  if run.best is None and run.settings["final.cells"]:
    return "These trainings come after the last round; there are none yet."
  return (
    "No random baseline was run: no cell was trained from scratch beside the "
    "found ones, so nothing on this page says that they are better than random "
    "cells."
  )


def _verdict(run: Run, groups: dict[str, Group]) -> str:
  found = analysis.advantage(groups)
  if found is None:
    return "There is nothing to compare with yet."
  better = "higher" if run.cells.measure.higher_is_better else "lower"
  value = formatting.compared_number(run, found.value, "+")
  start = f"Found minus random: {value} ({better} is better)"
  if found.interval is None:
    return f"{start}. One cell has no spread, so no difference is shown here."
  low, high = (
    formatting.compared_number(run, value, "+") for value in found.interval
  )
  start += f"; two standard errors over cells either way: {low} to {high}. "
  if found.interval[0] <= 0 <= found.interval[1]:
    return start + "So no difference is shown here."
  return start + "The difference is larger than that, for this one search."


def _shared_weights(run: Run) -> list[str]:
  """Describes how well shared weights order the cells trained from scratch."""
  if run.settings["evaluator"] != "shared":
    return []
  found = analysis.scratch_ranking(run)
  if found is None:
    return [
      "How well scores with shared weights order cells that are trained from "
      "scratch is not known from here: fewer than three cells have both."
    ]
  names = ("Kendall's tau", "Spearman's rho")
  values = [
    f"{name} {controller_sections.with_interval(found.measures[name])}"
    for name in names
  ]
  return [
    "Shared weights against training from scratch, over the "
    f"{len(found.of.scores)} found cells: {', '.join(values)}. They are few, "
    "and the top of the pool, whose scores lie close together: this says "
    "little of the whole pool."
  ]


def _costs(run: Run) -> Section:
  networks = run.cells.costs(run.pool.tokens[run.winner], run.best or {})
  texts, tables = [], []
  if networks:
    head = ["network", "parameters", "multiply-adds"]
    caption = (
      "Of the best cell; multiply-adds are those of convolutions and matrix "
      f"products, for one {run.cells.example}."
    )
    tables.append(Table(head, [list(row) for row in networks], caption))
  else:
    texts.append(
      "Parameters and multiply-adds depend on the size of the images, which "
      "best.json says at the end of a search."
    )
  tables += [_effort(run), *_phases(run)]
  return Section("What it cost", texts, tables=tables)


def _effort(run: Run) -> Table:
  rounds = learning_curves.rounds(run)
  groups = analysis.groups(run.compared).values()
  seconds = {
    name: sum(row.get(f"{name}_seconds", 0) for row in run.history)
    for name in ("score", "propose")
  }
  rows = [
    ["architectures scored", f"{rounds[-1].scored:,}"],
    ["scores, of all rounds", f"{sum(len(row.scores) for row in rounds):,}"],
    ["seconds to train and to score", f"{seconds['score']:,.1f}"],
    ["seconds to fit and to propose", f"{seconds['propose']:,.1f}"],
    [
      "trainings from scratch",
      str(sum(len(group.values) for group in groups)),
    ],
  ]
  caption = (
    "Compiling is part of the time. A round that was interrupted counts from "
    "where it went on."
  )
  return Table(["", ""], rows, caption)


def _phases(run: Run) -> list[Table]:
  """Tabulates the time of each phase in status.json."""
  if not run.seconds:
    return []
  total = [sum(part) for part in zip(*run.seconds.values(), strict=True)]
  rows = [
    [phase, f"{seconds:,.1f}", f"{compiled:,.1f}"]
    for phase, (seconds, compiled) in (run.seconds | {"all": total}).items()
  ]
  caption = (
    "Seconds by phase, with what comes between it and the next one; of all "
    "sittings, and what was lost by a kill too. Compiling is what jax says, "
    "without tracing."
  )
  return [Table(["phase", "seconds", "compiling"], rows, caption)]


def _again(run: Run) -> Section:
  command = run.config.get("command")
  known = isinstance(command, list) and all(isinstance(x, str) for x in command)
  versions = run.config.get("versions")
  about = {
    "seed": run.settings["seed"],
    "git": run.config.get("git"),
    **(versions if isinstance(versions, dict) else {}),
    "devices": run.config.get("devices"),
  }
  return Section(
    "To run it again",
    [f"It is in {run.path.absolute()}."],
    code=[shlex.join(command)] if known else [],
    facts=[
      Facts("Seed and versions", about),
      Facts("All settings", run.settings),
    ],
  )
