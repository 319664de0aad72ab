"""Files of later formats are refused by name, earlier ones are read."""

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from nao_jax import pool as pools
from nao_jax.data import tables
from nao_jax.errors import UserError
from nao_jax.runs import config_file
from nao_jax.runs.trials import Trial, Trials
from nao_jax.search import pool_file
from nao_jax.spaces import rnn
from tests.bad_input import LIKE_A_TABLE

LATER = r"format 2, and this version reads formats up to 1; use the version"


def _mark(file, number):
  with contextlib.closing(sqlite3.connect(file)) as database:
    database.execute(f"pragma user_version = {number}")
    database.commit()


def _mark_of(file):
  with contextlib.closing(sqlite3.connect(file)) as database:
    return database.execute("pragma user_version").fetchone()[0]


def test_a_workdir_says_which_version_wrote_its_later_format(tmp_path):
  config_file.write_or_compare(tmp_path, {"seed": 1})
  file = tmp_path / "config.json"
  config = json.loads(file.read_text())
  assert config.pop("format") == 1
  file.write_text(json.dumps(config))
  assert config_file.read_settings(tmp_path) == {"seed": 1}
  config["versions"]["nao_jax"] = "7.0"
  for number in (2, "1", True, [1]):
    file.write_text(json.dumps(config | {"format": number}))
    for entry in (
      lambda: config_file.read_settings(tmp_path),
      lambda: config_file.write_or_compare(tmp_path, {"seed": 1}),
    ):
      with pytest.raises(UserError, match=r"written by nao_jax 7\.0 in format"):
        entry()


def test_a_file_of_trials_gets_a_number_and_a_later_one_is_refused(tmp_path):
  file = tmp_path / "trials.sqlite"
  Trials(file, "x", {}).add([1], Trial(0.5, (0.5,)))
  assert _mark_of(file) == 1
  _mark(file, 0)  # As version 0.2.0 left it.
  assert Trials(file, "x", {}).get([1]).score == 0.5
  assert _mark_of(file) == 1
  _mark(file, 2)
  with pytest.raises(UserError, match=f"trials.sqlite`: written in {LATER}"):
    Trials(file, "x", {})


def test_a_pool_gets_a_number_and_a_later_one_is_refused(tmp_path):
  file, space = tmp_path / "pool.sqlite", rnn.space(1)
  tokens = np.int32([[1, 2]])
  scores = np.float32([[0.5]])
  columns = [np.int32([0]), np.int32([-1]), np.float32([0]), np.array([True])]
  pool = pools.of_table(tokens, *columns, scores)
  assert space.accepts(tokens[0])
  pool_file.PoolFile(file).write(pool)
  assert _mark_of(file) == 1
  _mark(file, 2)
  for entry in (
    pool_file.PoolFile(file).check,
    lambda: pool_file.PoolFile(file).write(pool),
    lambda: pool_file.read(file, space),
  ):
    with pytest.raises(UserError, match=f"pool.sqlite: written in {LATER}"):
      entry()


def test_a_table_of_a_later_format_is_refused(tmp_path):
  for number in (1, 2):
    np.savez(tmp_path / f"{number}.npz", format=number, **LIKE_A_TABLE)
  assert len(tables.load(f"{tmp_path}/1.npz", "shapes", "valid").scores)
  with pytest.raises(UserError, match=LATER):
    tables.load(f"{tmp_path}/2.npz", "shapes", "valid")
