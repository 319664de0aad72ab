"""Random searches that are shown beside another search."""

from collections.abc import Sequence
import os

from nao_jax.errors import UserError
from nao_jax.report import run as runs
from nao_jax.report.run import Run
from nao_jax.tasks import known
from nao_jax.tasks.task import CellsOf

# Settings that must be equal for scores to be comparable.
MEASURED = (
  "dataset",
  "text",
  "corpus",
  "vocab_size",
  "score_tokens",
  "validation_fraction",
  "evaluator",
)
# Settings that random search does not use or that do not affect its scores.
_UNUSED = ("nao.", "plus.", "controller.", "fit.", "final.", "finalist")
_EXPECTED = ("strategy", "seed")


def read(
  run: Run, paths: Sequence[str | os.PathLike], cells_of: CellsOf = known.of
) -> list[Run]:
  """Reads the random searches in these directories.

  Args:
    run: the search that they are shown beside.
    paths: the directories of the random searches.
    cells_of: see `report.run.read`.

  Raises:
    UserError: one of them is no random search, has no scores yet, or measures
      something else.
  """
  return [_checked(run, runs.read(path, "random", cells_of)) for path in paths]


def _checked(run: Run, other: Run) -> Run:
  place, strategy = f"`random={other.path}`", other.settings["strategy"]
  if strategy != "random":
    raise UserError(
      f"{place}: a search with `strategy={strategy}`; give searches with "
      "`strategy=random`"
    )
  for name in MEASURED:
    theirs, ours = other.settings.get(name), run.settings.get(name)
    if theirs != ours:
      raise UserError(
        f"{place}: {name} is {theirs!r} there and {ours!r} in {run.path}, so "
        "their scores do not measure the same thing"
      )
  if not other.scored:
    raise UserError(f"{place}: no round has ended there yet; wait for one")
  return other


def differing(run: Run, others: Sequence[Run]) -> list[str]:
  """Returns the settings in which a search and random searches differ.

  Strategy and seed are left out, and so is what random search does not use.
  """
  return sorted(
    name
    for name in set().union(run.settings, *(x.settings for x in others))
    if any(run.settings.get(name) != x.settings.get(name) for x in others)
    and name not in _EXPECTED
    and not name.startswith(_UNUSED)
  )
