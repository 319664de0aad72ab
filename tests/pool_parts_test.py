"""A checkpoint and the parts of before are the pool, whatever was killed."""

import pathlib
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.pool import Pool
from nao_jax.search import round_files
from nao_jax.search.pool_parts import PoolParts
from tests.pool_courses import ROUNDS, course


def _assert_same(pool, other):
  for name, one, two in zip(Pool._fields, pool, other, strict=True):
    np.testing.assert_array_equal(one, two, name, strict=True)


def _saved(pools, parts, first=0):
  """Ends the rounds from `first` on; yields the rests of two moments of each.

  One is before the round's part is written, the other after it.
  """
  for round_ in range(first, len(pools)):
    yield parts.rest(pools[round_])
    parts.add(round_, pools[round_])
    yield parts.rest(pools[round_])


def _bytes(folder):
  return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=60)
@given(
  seed=st.integers(0, 999),
  kills=st.lists(st.integers(0, 2 * ROUNDS - 1), min_size=1, max_size=4),
)
def test_whatever_is_killed_each_checkpoint_gives_its_pool(seed, kills):
  pools = list(course(seed))
  with tempfile.TemporaryDirectory() as path:
    folder = pathlib.Path(path, "pool")
    saved = list(_saved(pools, PoolParts(folder)))
    files = _bytes(folder)
    for at in kills:
      parts, ended = PoolParts(folder), (at + 1) // 2
      _assert_same(parts.whole(ended, saved[at]), pools[at // 2])
      saved[2 * ended :] = _saved(pools, parts, ended)
    assert _bytes(folder) == files
    for at, rest in enumerate(saved):
      found = PoolParts(folder).whole((at + 1) // 2, rest)
      _assert_same(found, pools[at // 2])


@settings(max_examples=30)
@given(seed=st.integers(0, 999), at=st.integers(0, ROUNDS - 2))
def test_a_whole_pool_of_an_earlier_version_goes_on_in_parts(seed, at):
  pools = list(course(seed))
  with tempfile.TemporaryDirectory() as path:
    folder = pathlib.Path(path, "pool")
    parts = PoolParts(folder)
    _assert_same(parts.whole(at, pools[at]), pools[at])
    for number, rest in enumerate(_saved(pools, parts, at)):
      found = PoolParts(folder).whole(at + (number + 1) // 2, rest)
      _assert_same(found, pools[at + number // 2])


@settings(max_examples=30)
@given(seed=st.integers(0, 999))
def test_a_checkpoint_holds_nothing_that_a_part_holds(seed):
  pools = list(course(seed))
  with tempfile.TemporaryDirectory() as path:
    *_, rest = _saved(pools, PoolParts(pathlib.Path(path, "pool")))
  growing = set(Pool._fields) - {"alive", "counts"}
  assert not any(len(getattr(rest, name)) for name in growing)


@pytest.mark.parametrize(
  "change",
  [
    lambda part: {},
    lambda part: part | {"rows": part["rows"][1:]},
    lambda part: part | {"rows": part["rows"].astype(float)},
    lambda part: part | {"tokens": part["tokens"][:, 1:]},
    lambda part: part | {"tokens": np.int32(3)},
    lambda part: {name: part[name] for name in part if name != "values"},
  ],
)
def test_a_part_that_is_another_is_refused(tmp_path, change):
  pools, folder = list(course(3)), tmp_path / "pool"
  *_, rest = _saved(pools, PoolParts(folder))
  part = round_files.read(folder, 1)
  round_files.write(folder, 1, change(part))
  with pytest.raises(UserError, match=f"{folder}: .* checkpoint goes on from"):
    PoolParts(folder).whole(ROUNDS, rest)
  (folder / "0001.npz").write_bytes(b"PK\3\4")
  with pytest.raises(UserError, match=r"pool/0001\.npz is damaged"):
    PoolParts(folder).whole(ROUNDS, rest)
