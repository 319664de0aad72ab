"""What a search is between two rounds, and who remembers it."""

from typing import Any, NamedTuple

from nao_jax.pool import Pool
from nao_jax.runs.progress import Each


class SearchState(NamedTuple):
  """All that a search is, between two rounds or within one.

  Attributes:
    round: rounds done.
    pool: the architectures; when the members have scores of the next round,
      that one has come as far as the proposals.
    evaluator: state of the evaluator.
    strategy: state of the strategy.
  """

  round: int
  pool: Pool
  evaluator: Any
  strategy: Any


class Journal:
  """Remembers nothing and shows nothing; `journal.SearchJournal` does both."""

  def restore(self, template: SearchState) -> SearchState | None:
    """The last state that was saved, if any."""
    del template

  def keep(self, state: SearchState, steps: int) -> None:
    """Called within a round with a state to go on from, and the steps to it.

    Its arrays may be gone once this has returned, as the next step takes their
    memory; whoever wants to have them later copies them.
    """

  def end_round(self, state: SearchState, report: dict) -> None:
    """Called after every round, with what happened in it."""

  def progress(
    self,
    phase: str,
    done: int,
    total: int,
    note: str = "",
    each: Each | None = None,
  ) -> None:
    """Called often; see `progress.Progress`."""
