"""The report of one search: report.html in its directory."""

from collections.abc import Sequence
import os
import pathlib
import shlex

from absl import logging

from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table as TrueScores
from nao_jax.report import (
  analysis,
  baseline,
  controller_sections,
  formatting,
  learning_curves,
  pool_sections,
  standing,
  training_sections,
)
from nao_jax.report import page as pages
from nao_jax.report import run as runs
from nao_jax.report.page import Page, Plot, Section, Table, Tile
from nao_jax.report.run import Run
from nao_jax.runs import paths
from nao_jax.tasks import known
from nao_jax.tasks.task import CellsOf

NAME = "report.html"


def write(
  path: str | os.PathLike,
  random: Sequence[str | os.PathLike] = (),
  cells_of: CellsOf = known.of,
  truth: TrueScores | None = None,
) -> pathlib.Path:
  """Writes the report of a search into its directory; returns the file.

  Args:
    path: the directory.
    random: directories of random searches to show beside it.
    cells_of: see `report.run.read`.
    truth: true scores of all architectures of the space, in per cent, among
      which the winner is placed.

  Raises:
    UserError: there is no search, one of the others is no random search that
      measures the same, the true scores are of another space, or the file
      cannot be written.
  """
  run = runs.read(path, cells_of=cells_of)
  if truth is not None and truth.space is not run.cells.space:
    raise UserError(
      f"`workdir={path}`: of space {run.cells.space.name!r}, and the table of "
      f"{truth.space.name!r}; give a table of the same space, or none"
    )
  page = of(run, baseline.read(run, random, cells_of), truth)
  return pages.write(page, paths.expanded(path) / NAME, f"`workdir={path}`")


def try_to_write(path: str | os.PathLike, cells_of: CellsOf) -> None:
  """Writes the report of a search that has ended; logs any failure."""
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


def of(
  run: Run, random: Sequence[Run] = (), truth: TrueScores | None = None
) -> Page:
  """Builds the report of a run; see `write`."""
  sections = [pool_sections.scores(run, random)]
  if run.scored:
    sections = [
      winner(run),
      truth and standing.section(run, truth),
      training_sections.finalists(run),
      training_sections.comparison(run),
      *sections,
      pool_sections.costs(run),
      pool_sections.proposals(run),
      controller_sections.predictor(run),
      controller_sections.gradient(run),
      pool_sections.ops(run),
      pool_sections.ancestors(run),
      _costs(run),
    ]
  missing = Section("What is missing", run.missing) if run.missing else None
  sections = [missing, *sections, _rerun(run)]
  return Page(
    title=f"A search for {run.cells.description} on {run.cells.data}",
    about=(
      f"{run.settings['strategy']}, scores "
      f"{formatting.evaluator_in_words(run)}, seed "
      f"{run.settings['seed']}{_signals(run)}; {_status(run)}"
    ),
    tiles=_tiles(run) if run.scored else [],
    sections=[section for section in sections if section],
  )


def _signals(run: Run) -> str:
  names = run.settings.get("proxies", "").split(",")
  names = [*filter(None, names), *run.settings.get("signals", ())]
  return f", signals: {', '.join(names)}" if names else ""


def winner(run: Run, title: str = "") -> Section:
  """Draws the winner, or the best of the last round so far."""
  last, tokens = run.scored[-1], run.pool.tokens[run.winner]
  ranked = run.pool.ranked(last).tolist()
  paragraphs = pages.texts(
    "winner",
    row=run.winner,
    place=ranked.index(run.winner) + 1 if run.winner in ranked else None,
    members=len(ranked),
    round=last,
    score_name=formatting.score_name(run),
    score=formatting.score(run, run.pool.scores_of(last)[run.winner]),
    finalists=bool(run.finalists),
  )
  ended = "The winner" if run.best is not None else "The best so far"
  return Section(
    title or ended,
    paragraphs,
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
  last, metric = learning_curves.rounds(run)[-1], run.cells.measure.name
  if run.finalists:
    searched = run.finalists["searched"]
    value = formatting.measurement(run, searched[0].value)
    note = f"from scratch, first of {len(searched)} finalists; one training"
  else:
    value = formatting.score(run, run.pool.scores_of(last.number)[run.winner])
    note = f"{formatting.evaluator_in_words(run)}; one run, round {last.number}"
  return [
    Tile(f"best validation {metric}", value, note),
    *(
      Tile(
        f"{name} cells, test {metric}",
        formatting.measurement(run, group.mean),
        f"from scratch; standard deviation "
        f"{formatting.measurement(run, group.deviation)}, "
        f"{len(group.values)} trainings",
      )
      for name, group in analysis.trainings(run.compared).items()
    ),
    Tile(
      "architectures scored", f"{last.scored:,}", f"in {last.number + 1} rounds"
    ),
    Tile(
      "time of the rounds",
      formatting.duration(last.seconds),
      "with compiling, without the trainings after them",
    ),
  ]


def _costs(run: Run) -> Section | None:
  """Tabulates the size of the winner and the time of each phase."""
  networks = run.cells.costs(run.pool.tokens[run.winner], run.best or {})
  texts, tables = [], []
  if networks:
    caption = (
      "Networks with the winner; multiply-adds of convolutions and matrix "
      f"products, for one {run.cells.example}."
    )
    head = ["network", "parameters", "multiply-adds"]
    tables.append(Table(head, [list(row) for row in networks], caption))
  elif run.best is None:
    texts.append(
      "Parameters and multiply-adds, if known, are shown when the search ends."
    )
  if run.seconds:
    total = [sum(part) for part in zip(*run.seconds.values(), strict=True)]
    rows = [
      {
        "phase": phase,
        "seconds": f"{seconds:,.1f}",
        "compiling": f"{compiling:,.1f}",
      }
      for phase, (seconds, compiling) in (run.seconds | {"all": total}).items()
    ]
    caption = "Over all sessions, with work that was lost and repeated."
    tables.append(Table.of(rows, caption))
  if not texts and not tables:
    return None
  return Section("Costs and time", texts, tables=tables)


def _rerun(run: Run) -> Section:
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
    "How to run it again",
    [f"The files of the run are in {run.path.absolute()}."],
    code=[shlex.join(command)] if known else [],
    facts={"Seed and versions": about, "All settings": run.settings},
  )
