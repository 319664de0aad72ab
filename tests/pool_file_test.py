"""A pool keeps what a table of scores would, and its database is the pool's."""

import contextlib
import sqlite3

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from nao_jax import pool as pools
from nao_jax.pool import Pool
from nao_jax.search import pool_file
from nao_jax.search.pool_file import PoolFile
from tests.pool_courses import ROUNDS, course

# What versions up to 0.2.0 made, with a score.
EARLIER = """
create table architectures (
  id integer primary key, tokens text not null, origin integer not null,
  parent integer references architectures, step_size real, alive integer);
create table scores (
  architecture integer not null references architectures,
  round integer not null, score real not null,
  primary key (architecture, round));
insert into architectures values (0, '1 2 3', 0, null, null, 1);
insert into scores values (0, 0, 0.5);
"""


@settings(max_examples=50)
@given(seed=st.integers(0, 999), round_=st.integers(0, ROUNDS - 2))
def test_a_pool_is_what_its_table_of_scores_says(seed, round_):
  pool, later = list(course(seed))[round_ : round_ + 2]
  table = np.full((len(later.tokens), ROUNDS), np.nan, np.float32)
  table[: len(pool.tokens)] = pool.scores
  scores = later.scores[later.members, round_ + 1]
  table[later.members, round_ + 1] = scores
  np.testing.assert_array_equal(later.scores, table, strict=True)
  again = pools.of_table(*later[:5], table)
  for name, one, other in zip(Pool._fields, again, later, strict=True):
    np.testing.assert_array_equal(one, other, name, strict=True)
  known = ~np.isnan(table)
  for at in range(ROUNDS):
    column = table[:, at]
    np.testing.assert_array_equal(later.scores_of(at), column, strict=True)
    rows, scores = later.in_round(at)
    assert rows.tolist() == np.flatnonzero(known[:, at]).tolist()
    np.testing.assert_array_equal(scores, column[rows])
    ranked = np.argsort(-column, kind="stable")[: len(rows)]
    assert later.ranked(at).tolist() == ranked.tolist()
    alive = rows[later.alive[rows]]
    firsts = np.argmax(known[alive], axis=1)
    ordered = alive[np.argsort(firsts, kind="stable")]
    assert later.scored(at).tolist() == ordered.tolist()


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_scores_of_a_round_are_those_that_were_recorded(seed):
  *_, pool = course(seed)
  pool = pool._replace(counts=np.append(pool.counts, np.int32(0)))
  scores = np.random.default_rng(seed).random(len(pool.members))
  scores[0] = np.nan
  found = pools.record(pool, scores, ROUNDS)
  np.testing.assert_array_equal(
    found.scores[pool.members, ROUNDS], np.float32(scores)
  )
  np.testing.assert_array_equal(found.scores[:, :ROUNDS], pool.scores[:, :-1])
  assert np.isnan(found.scores[~pool.alive, ROUNDS]).all()


def _rows(path):
  with contextlib.closing(sqlite3.connect(path)) as database:
    return [
      database.execute(f"select * from {table} order by 1, 2").fetchall()
      for table in ("architectures", "scores")
    ]


def _expected(pool):
  """Returns the rows that the file must hold for a pool."""
  architectures = [
    (
      row,
      " ".join(str(token) for token in pool.tokens[row]),
      int(pool.origins[row]),
      None if pool.parents[row] == -1 else int(pool.parents[row]),
      None if pool.step_sizes[row] == 0 else float(pool.step_sizes[row]),
      int(pool.alive[row]),
    )
    for row in range(len(pool.tokens))
  ]
  scores = [
    (*map(int, at), float(pool.scores[tuple(at)]))
    for at in np.argwhere(~np.isnan(pool.scores))
  ]
  return [architectures, scores]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("pools")


def _nothing(file, other):
  del file, other


def _remove(file, other):
  del other
  file.path.unlink(missing_ok=True)


def _replace(file, other):
  """Replaces the file by another process's, which is older or newer."""
  file.path.unlink(missing_ok=True)
  PoolFile(file.path).write(other)


def _edit(file, other):
  del other
  if file.path.exists():
    with contextlib.closing(sqlite3.connect(file.path)) as database, database:
      database.execute("delete from scores where round = 0")


@settings(max_examples=30)
@given(
  seed=st.integers(0, 999),
  order=st.lists(st.integers(0, ROUNDS - 1), min_size=1, max_size=5),
  between=st.sampled_from([_nothing, _nothing, _remove, _replace, _edit]),
  anew=st.booleans(),
)
def test_the_file_is_the_pool_whatever_was_there_before(
  folder, seed, order, between, anew
):
  found, file = list(course(seed)), PoolFile(folder / "pool.sqlite")
  for round_ in order:
    between(file, found[-1])
    if anew:
      file = PoolFile(file.path)
    file.write(found[round_])
    assert _rows(file.path) == _expected(found[round_])
  file.path.unlink()


@pytest.fixture
def written(monkeypatch):
  """Numbers of rows that were known at each call that wrote changes."""
  known, write = [], pool_file._write_changes

  def watched(database, before, pool):
    known.append(len(before.tokens))
    write(database, before, pool)

  monkeypatch.setattr(pool_file, "_write_changes", watched)
  return known


def test_a_file_in_the_order_of_earlier_versions_is_written_anew(tmp_path):
  found, file = list(course(2)), PoolFile(tmp_path / "pool.sqlite")
  with contextlib.closing(sqlite3.connect(file.path)) as database:
    database.executescript(EARLIER)
  for pool in found:
    file.write(pool)
    assert _rows(file.path) == _expected(pool)
  with contextlib.closing(sqlite3.connect(file.path)) as database:
    plan = "explain query plan select * from scores where round = 1"
    assert "PRIMARY KEY" in database.execute(plan).fetchone()[-1]


def test_a_round_writes_what_is_new_and_no_row_again(tmp_path, written):
  found, file = list(course(0)), PoolFile(tmp_path / "pool.sqlite")
  for pool in found:
    file.write(pool)
  assert written == [0, *(len(pool.tokens) for pool in found[:-1])]


@pytest.mark.parametrize("anew", [False, True])
def test_what_fails_in_the_middle_leaves_the_pool_of_before(
  tmp_path, monkeypatch, anew
):
  first, second, *_ = course(1)
  file = PoolFile(tmp_path / "pool.sqlite")
  file.write(first)
  if anew:
    file = PoolFile(file.path)
  write = pool_file._write_changes

  def broken(*arguments):
    write(*arguments)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(pool_file, "_write_changes", broken)
    with pytest.raises(KeyboardInterrupt):
      file.write(second)
  assert _rows(file.path) == _expected(first)
  file.write(second)
  assert _rows(file.path) == _expected(second)
