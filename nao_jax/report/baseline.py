"""Random searches that are shown beside another search."""

from collections.abc import Sequence
import os

from nao_jax.errors import UserError
from nao_jax.report import learning_curves
from nao_jax.report import run as runs
from nao_jax.report.run import Run

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
_UNUSED = ("nao.", "plus.", "controller.", "fit.", "final.")
_EXPECTED = ("strategy", "seed")


def read(run: Run, paths: Sequence[str | os.PathLike]) -> list[Run]:
  """Reads the random searches in these directories.

  Args:
    run: the search that they are shown beside.
    paths: the directories of the random searches.

  Raises:
    UserError: one of them is no random search, has no scores yet, or measures
      something else.
  """
  return [_checked(run, runs.read(path, "random")) for path in paths]


def _checked(run: Run, other: Run) -> Run:
  place = f"`random={other.path}`"
  strategy = other.settings["strategy"]
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


def about(run: Run, random: list[Run]) -> list[str]:
  """Describes the random searches and their best scores in sentences."""
  seeds = ", ".join(str(other.settings["seed"]) for other in random)
  last = [learning_curves.rounds(other)[-1] for other in random]
  show = run.cells.measure.show
  best = [show(learning_curves.best_of(row)) for row in last]
  texts = [
    f"Random search beside it, seed {seeds}: the best of the last round so far "
    f"{', '.join(best)}. It draws as many new architectures in each round, "
    "and scores them in the same way. One search beside them shows no "
    "difference unless it lies well outside of their range."
  ]
  if len(random) == 1:
    texts.append(
      "One random search has no spread: how much it varies by chance is not "
      "known from here."
    )
  names = sorted({name for other in random for name in _differing(run, other)})
  if names:
    texts.append(
      "They differ from this search in more than the strategy and the seed: "
      f"{', '.join(names)}."
    )
  return texts


def _differing(run: Run, other: Run) -> list[str]:
  return [
    name
    for name in {*run.settings, *other.settings}
    if run.settings.get(name) != other.settings.get(name)
    and name not in _EXPECTED
    and not name.startswith(_UNUSED)
  ]
