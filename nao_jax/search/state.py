"""Search state and the journal interface."""

from typing import Any, NamedTuple

from nao_jax.pool import Pool
from nao_jax.runs.progress import WorkUnit


class SearchState(NamedTuple):
  """State of a search, between two rounds or within one.

  Attributes:
    round: number of rounds done.
    pool: the pool; if its members have scores of the current round, the round
      resumes with the proposals.
    evaluator: state of the evaluator.
    strategy: state of the strategy.
  """

  round: int
  pool: Pool
  evaluator: Any
  strategy: Any


class Journal:
  """Journal that saves and shows nothing; see `journal.SearchJournal`."""

  def restore(self, template: SearchState) -> SearchState | None:
    """Returns the state that was saved last; None if no state was saved."""
    del template

  def keep(self, state: SearchState, steps: int) -> None:
    """Saves a state within a round from which the search can resume.

    Args:
      state: the state; copy it to use it after the call, as the next step may
        reuse the memory of its arrays.
      steps: number of steps done since the last call.
    """

  def end_round(self, state: SearchState, report: dict) -> None:
    """Records a round that has ended, with its report."""

  def progress(
    self,
    phase: str,
    done: int,
    total: int,
    note: str = "",
    each: WorkUnit | None = None,
  ) -> None:
    """Shows progress; it is called often. See `progress.Progress`."""
