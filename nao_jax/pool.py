"""The pool: every architecture of a search, its scores and its origin.

Shapes: A architectures (all that were ever in the pool), L tokens, R rounds, S
scores, N members of the pool.
"""

from typing import NamedTuple

import numpy as np

from nao_jax.strategies import Proposal

RANDOM, GIVEN = 0, -1


_HEAD = ("", "score", "origin", "tokens")


def _origin(origin: int) -> str:
  return {RANDOM: "random", GIVEN: "start"}.get(int(origin), f"round {origin}")


class Pool(NamedTuple):
  """A table of NumPy columns; rows are never removed.

  Attributes:
    tokens: int32 [A, L].
    origins: int32 [A], the first round of a proposal in the pool, from 1; 0 for
      a random architecture, drawn in any round; -1 for one that was given or
      chosen by signals.
    parents: int32 [A], the row that a proposal was made from; -1 without one.
    step_sizes: float32 [A], step along the predictor's gradient; 0 without one.
    alive: bool [A], whether the architecture is in the pool now.
    rows: int32 [S], the row of each score; by round, and ascending in a round.
    values: float32 [S], the scores.
    counts: int32 [R], the number of scores of each round.
  """

  tokens: np.ndarray
  origins: np.ndarray
  parents: np.ndarray
  step_sizes: np.ndarray
  alive: np.ndarray
  rows: np.ndarray
  values: np.ndarray
  counts: np.ndarray

  @property
  def scores(self) -> np.ndarray:
    """Scores as a table, float32 [A, R], NaN for those not scored in a round.

    It is made anew in each call; `in_round` and `scores_of` are faster.
    """
    shape = len(self.tokens), len(self.counts)
    table = np.full(shape, np.nan, self.values.dtype)
    table[self.rows, self.rounds] = self.values
    return table

  @property
  def rounds(self) -> np.ndarray:
    """The round of each score, int [S]."""
    return np.repeat(np.arange(len(self.counts)), self.counts)

  @property
  def members(self) -> np.ndarray:
    """Rows that are in the pool now, int [N]."""
    return np.flatnonzero(self.alive)

  def scored(self, round_: int) -> np.ndarray:
    """Returns the members scored in a round, by the round of their first score.

    That is the order of their rows, except for pending members, whose scores
    came in a later round.
    """
    rows, _ = self.in_round(round_)
    rows = rows[self.alive[rows]]
    first = np.empty(len(self.tokens), int)
    # Of equal indices the last counts, so the place of a row's first score.
    first[self.rows[::-1]] = np.arange(len(self.rows))[::-1]
    return rows[np.argsort(first[rows])]

  def in_round(self, round_: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows scored in a round, in their order, and their scores."""
    first, end = (self.counts[:at].sum() for at in (round_, round_ + 1))
    return self.rows[first:end], self.values[first:end]

  def scores_of(self, round_: int) -> np.ndarray:
    """Returns the scores of a round, float32 [A], NaN for those without."""
    column = np.full(len(self.tokens), np.nan, self.values.dtype)
    rows, scores = self.in_round(round_)
    column[rows] = scores
    return column

  @property
  def best(self) -> int:
    """The row with the best score in the last round that has scores."""
    return int(self.ranked(np.flatnonzero(self.counts)[-1])[0])

  def _repr_html_(self) -> str:
    """Returns a table of the ten best of the last round, for notebooks."""
    last = np.flatnonzero(self.counts)
    if not last.size:
      return f"<p>A pool of {len(self.tokens)} architectures, not scored.</p>"
    rows, scores = self.ranked(last[-1])[:10].tolist(), self.scores_of(last[-1])
    cells = [
      (number, f"{scores[row]:.4f}", _origin(self.origins[row]),
       " ".join(map(str, self.tokens[row].tolist())))
      for number, row in enumerate(rows, 1)
    ]  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    body = "".join(
      f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells
    )
    return (
      f"<table><caption>The best of {len(self.tokens)} architectures, in round "
      f"{last[-1]}</caption><tr>{head}</tr>{body}</table>"
    )

  def ranked(self, round_: int) -> np.ndarray:
    """Returns the rows scored in a round, best first; ties keep their order."""
    rows, scores = self.in_round(round_)
    return rows[np.argsort(-scores, kind="stable")]


def of_table(*columns: np.ndarray) -> Pool:
  """Returns the pool of columns that end with a table, `Pool.scores`."""
  *others, scores = columns
  rounds, rows = np.nonzero(~np.isnan(scores.T))
  counts = np.bincount(rounds, minlength=scores.shape[1])
  return Pool(*others, np.int32(rows), scores[rows, rounds], np.int32(counts))


def start(given: np.ndarray, random: np.ndarray, rounds: int) -> Pool:
  """Returns the first pool, not scored yet.

  Args:
    given: int32 [G, L], architectures that the user gave.
    random: int32 [N - G, L], random architectures.
    rounds: R, the number of times that the pool will be scored.
  """
  tokens = np.concatenate([given, random])
  count = len(tokens)
  origins = np.where(np.arange(count) < len(given), GIVEN, RANDOM)
  return Pool(
    tokens=tokens,
    origins=origins.astype(np.int32),
    parents=np.full(count, -1, np.int32),
    step_sizes=np.zeros(count, np.float32),
    alive=np.ones(count, bool),
    rows=np.zeros(0, np.int32),
    values=np.zeros(0, np.float32),
    counts=np.zeros(rounds, np.int32),
  )


def record(pool: Pool, scores: np.ndarray, round_: int) -> Pool:
  """Adds a round's scores, [N] in the order of `members`, NaN without one."""
  scores = np.asarray(scores, np.float32)
  known = ~np.isnan(scores)
  counts = pool.counts.copy()
  counts[round_] = known.sum()
  return pool._replace(
    rows=np.concatenate([pool.rows, pool.members[known]], dtype=np.int32),
    values=np.concatenate([pool.values, scores[known]]),
    counts=counts,
  )


def replace_worst(
  pool: Pool,
  proposal: Proposal,
  round_: int,
  rows: np.ndarray,
  order: np.ndarray,
  random: np.ndarray | None = None,
) -> Pool:
  """Replaces the worst members by new architectures.

  The size of the pool stays. The arguments are those of `extend`; `order` holds
  positions in `rows`, best first. Members outside `rows` stay in the pool.
  """
  extended = extend(pool, proposal, round_, rows, random)
  ranked = rows[order]
  worst = ranked[len(ranked) - (len(extended.tokens) - len(pool.tokens)) :]
  alive = extended.alive.copy()
  alive[worst] = False
  return extended._replace(alive=alive)


def extend(
  pool: Pool,
  proposal: Proposal,
  round_: int,
  rows: np.ndarray,
  random: np.ndarray | None = None,
) -> Pool:
  """Adds proposals and, after them, random architectures to the pool.

  Args:
    pool: the pool of the round.
    proposal: the proposals; their parents are positions in `rows`.
    round_: number of the round, from 0.
    rows: rows of the members that the strategy observed.
    random: int32 [n, L], random architectures; empty by default.
  """
  random = proposal.tokens[:0] if random is None else random
  count = len(proposal.tokens)
  fresh = start(
    proposal.tokens[:0], np.concatenate([proposal.tokens, random]), rounds=0
  )
  # Random architectures keep the values that `start` gave them.
  fresh.origins[:count] = round_ + 1
  fresh.parents[:count] = np.where(
    proposal.parents < 0, -1, rows[proposal.parents]
  )
  fresh.step_sizes[:count] = proposal.step_sizes
  return Pool(*map(np.concatenate, zip(pool, fresh, strict=True)))
