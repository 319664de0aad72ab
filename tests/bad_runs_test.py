"""Files of a run that were damaged are read, or refused by their name."""

import contextlib
import json
import sqlite3

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from nao_jax import pool as pools
from nao_jax.errors import UserError
from nao_jax.runs import checkpoint, config_file
from nao_jax.runs.trials import Trial, Trials
from nao_jax.runs.workdir import Workdir
from nao_jax.search.pool_file import PoolFile
from nao_jax.tasks import image_inference
from tests.bad_input import (
  CONFIG,
  FLOATS,
  HISTORY,
  RESULT,
  VALUES,
  WORDS,
  damaged,
  damaged_json,
  fresh,
  refusals,
  run_with,
)


@given(content=damaged_json(CONFIG))
def test_settings_of_a_run_are_read_or_refused(home, content):
  folder = run_with(home, **{"config.json": content})
  with refusals(folder, str(folder)):
    assert isinstance(config_file.read_settings(folder), dict)
  with refusals(folder, str(folder)):
    Workdir(folder, CONFIG["settings"], "result.json").__exit__(
      None, None, None
    )


@given(content=damaged_json(CONFIG))
def test_a_run_whose_settings_are_damaged_is_not_used(home, content):
  folder = run_with(home, **{"config.json": content})
  # What is right in it is refused too, as there is no checkpoint.
  with refusals(folder, str(folder)) as messages:
    image_inference.load(folder)
  assert messages


@given(
  content=damaged_json(HISTORY[1]) | damaged_json(HISTORY), at=st.integers(0, 2)
)
def test_a_history_is_read_whole_or_refused_by_its_line(home, content, at):
  lines = [json.dumps(row).encode() for row in HISTORY]
  lines[at] = content
  folder = run_with(
    home, **{"history.jsonl": b"".join(x + b"\n" for x in lines)}
  )
  run = Workdir(folder, CONFIG["settings"], "result.json")
  with run, refusals(folder, "history.jsonl: line "):
    rows = run.history()
    kept = [row for n, row in enumerate(HISTORY) if n != at]
    assert all(row in rows for row in kept)
    run.rewind("epoch", 2)


@given(content=damaged_json(RESULT))
def test_an_outcome_is_read_or_refused(home, content):
  folder = run_with(home, **{"result.json": content})
  run = Workdir(folder, CONFIG["settings"], "result.json")
  with run, refusals(folder, "result.json"):
    found = run.finished("steps", "test.loss")
    assert f"{found['test']['loss']:.2f}"


@given(data=st.data())
def test_a_damaged_pool_is_replaced_or_refused(home, pool_file, data):
  folder = fresh(home)
  file = folder / "pool.sqlite"
  file.write_bytes(data.draw(damaged(pool_file)))
  with refusals(folder, str(file)):
    PoolFile(file).write(POOL)
    with contextlib.closing(sqlite3.connect(file)) as database:
      rows = database.execute("select tokens from architectures").fetchall()
    assert rows == [("1 4",), ("2 5",)]


@pytest.mark.parametrize(
  ("name", "opened"),
  [
    ("pool", lambda file: PoolFile(file).check()),
    ("pool", lambda file: PoolFile(file).write(POOL)),
    ("trials", lambda file: Trials(file, "a", {})),
  ],
)
def test_a_message_that_is_no_text_is_a_named_error(
  name, opened, pool_file, trials_file, tmp_path
):
  """A fuzzer found it: SQLite repeats bytes of a damaged schema."""
  content = {"pool": pool_file, "trials": trials_file}[name]
  (tmp_path / name).write_bytes(content.replace(b"CREATE T", b"CREATE\x98T"))
  with pytest.raises(UserError, match=str(tmp_path / name)):
    opened(tmp_path / name)


POOL = pools.start(np.zeros((0, 2), np.int32), np.int32([[1, 4], [2, 5]]), 2)


@pytest.fixture(scope="module")
def pool_file(home):
  file = fresh(home) / "pool.sqlite"
  PoolFile(file).write(POOL)
  return file.read_bytes()


@pytest.fixture(scope="module")
def trials_file(home):
  file = fresh(home) / "trials.sqlite"
  Trials(file, "a", {}).add([1, 2], Trial(0.5, (0.25, 0.5)))
  return file.read_bytes()


@given(
  score=st.none() | st.integers(-5, 5) | FLOATS | WORDS | st.binary(max_size=4),
  curve=VALUES.map(json.dumps) | WORDS | st.binary(max_size=4),
  data=st.data(),
)
def test_trials_are_read_or_refused(home, trials_file, score, curve, data):
  folder = fresh(home)
  file = folder / "trials.sqlite"
  file.write_bytes(trials_file)
  if data.draw(st.booleans()):
    file.write_bytes(data.draw(damaged(trials_file)))
  else:
    _update(file, score, curve)
  with refusals(folder, f"`trials={file}`"):
    trial = Trials(file, "a", {}).get([1, 2])
    if trial is not None:
      np.array([trial.score, *trial.curve], np.float64)
  with refusals(folder, f"`trials={file}`"):
    Trials(file, "a", {}).add([3], Trial(None, ()))
    assert Trials(file, "a", {}).get([3]) == Trial(None, ())


def _update(file, score, curve):
  """Writes what SQLite takes into the one trial of a file."""
  with (
    contextlib.closing(sqlite3.connect(file)) as database,
    database,
    contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError),
  ):
    database.execute("update trials set score = ?, curve = ?", (score, curve))


def _state(value):
  return {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3) + value,
    "step": np.asarray(value, np.int32),
    "nothing": np.zeros((0, 3), np.float32),
  }


@pytest.fixture(scope="module")
def saved(home):
  """Two checkpoints; {name: contents}."""
  folder = fresh(home)
  for value in (1, 2):
    checkpoint.save(folder, _state(value))
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def _is(found, value):
  wanted = _state(value)
  return all(
    found[name].dtype == array.dtype and np.array_equal(found[name], array)
    for name, array in wanted.items()
  )


@given(data=st.data())
def test_a_damaged_checkpoint_gives_what_was_saved_or_is_refused(
  home, saved, data
):
  # What only a thread of orbax says is an error, too: pytest finds it.
  folder = fresh(home)
  alone = data.draw(st.booleans())
  files = {
    name: content
    for name, content in saved.items()
    if name.startswith("2/") or not alone
  }
  newest = [name for name in files if name.startswith("2/")]
  name = data.draw(st.sampled_from(newest))
  changed = data.draw(
    damaged(files[name])
    | st.none()
    | st.sampled_from(newest).map(files.__getitem__)
  )
  for file, content in (files | {name: changed}).items():
    if content is not None:
      (folder / file).parent.mkdir(parents=True, exist_ok=True)
      (folder / file).write_bytes(content)
  with refusals(folder, str(folder)):
    found = checkpoint.restore(folder, _state(0))
    assert _is(found, 2) or (not alone and _is(found, 1))


@pytest.mark.parametrize("place", [".", "1", "2", "2/default"])
def test_a_file_in_the_place_of_a_folder_of_checkpoints_is_no_checkpoint(
  home, saved, place
):
  folder = fresh(home) / "checkpoints"
  for file, content in saved.items():
    if not (f"{file}/").startswith(f"{place}/") and place != ".":
      (folder / file).parent.mkdir(parents=True, exist_ok=True)
      (folder / file).write_bytes(content)
  (folder / place).parent.mkdir(exist_ok=True)
  (folder / place).write_bytes(b"")
  with refusals(folder.parent, str(folder)) as messages:
    assert _is(checkpoint.restore(folder, _state(0)), 1)
  assert bool(messages) == (place != "2/default")
