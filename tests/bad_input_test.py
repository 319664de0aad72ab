"""Whatever comes in is taken, or refused in a line that says what to do.

Every entry gets what nobody should give it. Nothing but a UserError may come of
it, and whoever is refused finds all files as they were.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import zipfile

from hypothesis import currently_in_test_context, event, given
from hypothesis import strategies as st
import numpy as np
import pytest

from experiments import recurrent_description
from nao_jax import parallel
from nao_jax import pool as pools
from nao_jax.data import images, prepare, sources, tables, text
from nao_jax.errors import UserError
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs import checkpoint, config_file
from nao_jax.runs.trials import Trial, Trials
from nao_jax.runs.workdir import Workdir
from nao_jax.search.config import SearchConfig
from nao_jax.search.pool_file import PoolFile
from nao_jax.settings import flatten
from nao_jax.spaces import cnn, nasbench201, published, rnn
from nao_jax.strategies.nao import NaoConfig
from nao_jax.studies import comparison, controller_study, curves
from nao_jax.studies.comparison import CompareConfig
from nao_jax.studies.controller_study import StudyConfig
from nao_jax.tasks import (
  image_inference,
  image_training,
)
from nao_jax.tasks.image_finals import ImageFinalConfig, ImageFinalistConfig
from nao_jax.tasks.image_presets import SearchCnnConfig
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.text_presets import SearchRnnConfig
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.recipe import TrainConfig
from tests import running, tiny_images

_NUMBER = itertools.count()


class Evil:
  """Makes a file where it is unpickled."""

  def __init__(self, file):
    self._file = file

  def __reduce__(self):
    return open, (str(self._file), "w")


# -- What is given. ----------------------------------------------------------

# No process can be given a NUL, but JSON can hold one.
WORDS = st.text(st.characters(exclude_characters="\0"), max_size=30)
INTEGERS = st.sampled_from(
  [-(2**70), -(2**31), -1, 0, 1, 2, 3, 2**31, 2**32, 2**63, 10**30]
) | st.integers(-5, 70)
FLOATS = (
  st.sampled_from(
    [
      *map(float, ("nan", "inf", "-inf")),
      -1.0,
      -0.0,
      5e-324,
      0.5,
      1.0,
      1.5,
      1e308,
    ]
  )
  | st.floats()
)
# What JSON can say, NaN included, and numbers that are too large for any array.
VALUES = st.recursive(
  st.none() | st.booleans() | INTEGERS | FLOATS | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=5,
)
SIZES = st.sampled_from([0, 1, 2, 5, 6, 7, 15625])
SHAPES = [
  (),
  (5,),
  (6,),
  (20,),
  (15625,),
  (0, 6),
  (4, 6),
  (15625, 6),
  (15625, 5),
]
DTYPES = ("int8", "uint64", "float16", "float64", "complex64", "bool", "U3")
DTYPES += ("S2", "M8[s]", "i4,f4", "O")


@st.composite
def arrays(draw):
  """An array of any kind, objects included."""
  shape = draw(st.sampled_from(SHAPES))
  dtype = np.dtype(draw(st.sampled_from(DTYPES)))
  array = np.zeros(shape, dtype)
  if dtype.kind in "fc":
    array += draw(st.sampled_from([np.nan, np.inf, 1e4, -1.0]))
  if dtype.kind in "iu":
    array += draw(st.sampled_from([0, 1, 4, 5, 100])).__index__()
  return array


@st.composite
def damaged(draw, content: bytes):
  """The contents of a file after an accident."""
  accident = draw(st.sampled_from(["flipped", "cut", "replaced", "longer"]))
  event(accident)
  if accident == "replaced":
    return draw(st.binary(max_size=40) | st.just(b"\x80\x04K\x01."))
  if accident == "longer":
    return content + draw(st.binary(min_size=1, max_size=9))
  at = draw(st.integers(0, len(content) - 1))
  if accident == "cut":
    return content[:at]
  flipped = bytearray(content)
  flipped[at] ^= draw(st.integers(1, 255))
  return bytes(flipped)


@st.composite
def damaged_json(draw, document):
  """A file of JSON after an accident, or with something else inside."""
  kind = draw(st.sampled_from(["bytes", "value", "gone", "other", "deep"]))
  if kind == "bytes":
    return draw(damaged(json.dumps(document).encode()))
  event(kind)
  if kind == "deep":
    opening = draw(st.sampled_from(["[", '{"tokens":', '{"settings":[']))
    return (opening * 20_000).encode()
  if kind == "other":
    return json.dumps(draw(VALUES)).encode()
  changed = json.loads(json.dumps(document))
  holder, key = draw(st.sampled_from(list(_places(changed))))
  if kind == "gone":
    del holder[key]
  else:
    holder[key] = draw(VALUES)
  return json.dumps(changed).encode()


def _places(document):
  """(container, key) of everything in a JSON document."""
  items = document.items() if isinstance(document, dict) else ()
  if isinstance(document, list):
    # The first ones stand for all.
    items = itertools.islice(enumerate(document), 3)
  for key, value in items:
    yield document, key
    yield from _places(value)


def _published(entries):
  """Architectures with something wrong in them, or with nothing wrong."""
  return st.sampled_from([entry.text.split() for entry in entries]).flatmap(
    lambda words: st.tuples(
      st.just(words),
      st.integers(0, len(words) - 1),
      WORDS | INTEGERS.map(str) | st.just("9" * 5000),
    )
  )


def _spoilt(words, at, word):
  return " ".join([*words[:at], word, *words[at + 1 :]])


NUMBERS = st.lists(INTEGERS, max_size=24).map(
  lambda row: " ".join(map(str, row))
)
CELLS = (published.CONVOLUTIONAL, published.RECURRENT)
TEXTS = st.one_of(
  WORDS,
  WORDS.map(lambda word: f"{word}.json"),
  NUMBERS,
  *(
    _published(entries).map(lambda spoilt: _spoilt(*spoilt))
    for entries in CELLS
  ),
  st.lists(
    st.sampled_from([*nasbench201.OPS, "|", "+", "~0", "~1", "~2"]), max_size=20
  ).map("".join),
)


# -- What may come of it. ----------------------------------------------------


@contextlib.contextmanager
def refusals(folder, *named):
  """Lets UserErrors pass that name something and leave a folder as it was.

  Yields:
    A list that will hold the message, if there was one.
  """
  before, messages = _contents(folder), []
  try:
    yield messages
  except UserError as error:
    # As drivers print it.
    message = " ".join(str(error).split())
    assert any(name in message for name in named), message
    assert _contents(folder) == before
    messages.append(message)
  if currently_in_test_context():
    event("refused" if messages else "taken")


def _contents(folder):
  # A lock stays where a run was refused, and is nobody's.
  return {
    path: path.read_bytes() if path.is_file() else None
    for path in folder.rglob("*")
    if path.name != ".lock"
  }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  return tmp_path_factory.mktemp("bad_input")


def _fresh(home):
  folder = home / str(next(_NUMBER))
  folder.mkdir()
  return folder


# -- Architectures. ----------------------------------------------------------


@given(
  written=TEXTS, ops=st.sampled_from([*cnn.OP_SETS]) | WORDS, nodes=INTEGERS
)
def test_a_text_is_an_architecture_or_is_refused(home, written, ops, nodes):
  folder = _fresh(home)
  with refusals(folder, "`arch", "`ops", "`nodes"):
    found = cnn.resolve(written, ops=ops, nodes=nodes)
    assert found.space.accepts(found.tokens)
  with refusals(folder, "`arch"):
    tokens = rnn.resolve(written)
    assert rnn.space(len(tokens) // 2).accepts(tokens)
  with refusals(folder, "`arch"):
    assert cnn.space(5, "large").accepts(
      cnn.parse(cnn.space(5, "large"), written)
    )
  with refusals(folder, "`arch"):
    assert nasbench201.space().accepts(nasbench201.parse(written))


CELL = {
  "space": "rnn-2",
  "tokens": [1, 3, 2, 4],
  "text": "0 0 1 1",
  "origin": 3,
}
CELLS_PAIR = {
  "space": "cnn-small-2",
  "tokens": [1, 4, 2, 5, 1, 4, 2, 5, 1, 4, 2, 5, 1, 4, 2, 5],
}


@given(content=damaged_json(CELL) | damaged_json(CELLS_PAIR))
def test_a_file_is_an_architecture_or_is_refused(home, content):
  folder = _fresh(home)
  file = folder / "best.json"
  file.write_bytes(content)
  named = f"`arch={file}`"
  with refusals(folder, named):
    found = cnn.resolve(str(file))
    assert found.space.accepts(found.tokens)
  with refusals(folder, named):
    assert cnn.space(2).accepts(cnn.parse(cnn.space(2), str(file)))
  with refusals(folder, named):
    tokens = rnn.resolve(str(file))
    assert rnn.space(len(tokens) // 2).accepts(tokens)
  with refusals(folder, named):
    recurrent_description.is_recurrent(str(file))


def test_a_path_that_leads_to_no_file_is_refused(home):
  folder = _fresh(home)
  (folder / "folder.json").mkdir()
  (folder / "file").touch()
  for path in ("none.json", "folder.json", "file/x.json", "a" * 300 + ".json"):
    for entry in (cnn.resolve, rnn.resolve):
      with refusals(folder, f"`arch={folder / path}`") as messages:
        entry(str(folder / path))
      assert messages


# -- Tables. -----------------------------------------------------------------

LIKE_A_TABLE = {
  "ops": np.array(list(np.ndindex(*[5] * 6)), np.int8),
  "op_names": np.array(nasbench201.OPS),
  "shapes_valid": np.arange(5**6, dtype=np.float32) / 1000,
}


def _packed(contents: dict) -> bytes:
  """A .npz file; objects become pickles."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, allow_pickle=True, **contents)
  return buffer.getvalue()


@pytest.fixture(scope="module")
def table(home):
  file = home / "table.npz"
  file.write_bytes(_packed(LIKE_A_TABLE))
  return str(file)


def _load_table(folder, content):
  """The scores, if they are taken."""
  # One name for each file, as what was read is remembered by name.
  file = folder / f"table{next(_NUMBER)}.npz"
  file.write_bytes(content)
  with refusals(folder, str(file)):
    column = tables.load(str(file), "shapes", "valid")
    assert np.isfinite(column.scores).all()
    return column.scores
  return None


@given(name=st.sampled_from([*LIKE_A_TABLE, "another"]), array=arrays())
def test_an_array_of_a_table_is_taken_or_refused(home, name, array):
  event(f"{name}: {array.dtype.kind}")
  _load_table(_fresh(home), _packed(LIKE_A_TABLE | {name: array}))


@given(name=st.sampled_from([*LIKE_A_TABLE]), value=FLOATS, at=SIZES)
def test_a_number_in_a_table_is_taken_or_refused(home, name, value, at):
  changed = np.float64(LIKE_A_TABLE["shapes_valid"])
  changed[:at] = value
  contents = LIKE_A_TABLE | {"shapes_valid": changed}
  if not at:
    del contents[name]
  _load_table(_fresh(home), _packed(contents))


@given(data=st.data())
def test_a_damaged_table_is_taken_as_it_was_or_refused(home, table, data):
  content = _packed(LIKE_A_TABLE)
  scores = _load_table(_fresh(home), data.draw(damaged(content)))
  if scores is not None:
    whole = tables.load(table, "shapes", "valid").scores
    np.testing.assert_array_equal(scores, whole)


@pytest.mark.parametrize("name", ["ops", "op_names", "shapes_valid"])
def test_no_object_of_a_table_is_made(home, name):
  folder = _fresh(home)
  evil = np.array([Evil(folder / "made")], object)
  _load_table(folder, _packed(LIKE_A_TABLE | {name: evil}))
  assert not (folder / "made").exists()


@given(
  row=st.dictionaries(st.sampled_from(["perf", "valid_perf", "x"]), VALUES),
  key=VALUES.filter(lambda key: not isinstance(key, (list, dict))),
  data=st.data(),
)
def test_a_packaged_table_is_taken_or_refused_and_never_executed(
  home, row, key, data
):
  folder = _fresh(home)
  made = folder / "made"
  rows = {key: row, 1: Evil(made) if data.draw(st.booleans()) else row}
  content = pickle.dumps(rows, data.draw(st.integers(0, 5)))
  file = folder / "cora.bench"
  file.write_bytes(data.draw(st.just(content) | damaged(content)))
  with refusals(folder, str(file)):
    for found in tables.read_graph(file).values():
      assert {type(found[name]) for name in ("perf", "valid_perf")} <= {
        bool, int, float,
      }  # fmt: skip
  assert not made.exists()


# -- Texts. ------------------------------------------------------------------

CONTENTS = st.sampled_from([b"", b"a", b"a b\n", b"\n\n", b"<eos>", b"\0\1"])
CONTENTS |= st.binary(max_size=20)
NAMES = st.sampled_from(
  [
    *(f"{where}a.{part}.txt" for part in ("train", "valid", "test")
      for where in ("", "../", "/", "../../../", "b/", "C:\\")),
    "a.train.raw", "..",
  ]
)  # fmt: skip


WHOLE_TEXT = {f"a.{part}.txt": b"a b\n" for part in ("train", "valid", "test")}


@given(
  files=st.dictionaries(NAMES, CONTENTS, max_size=6)
  | st.just(WHOLE_TEXT)
  | st.just({f"../{name}": b"a" for name in WHOLE_TEXT}),
  size=INTEGERS,
  data=st.data(),
)
def test_a_zip_file_is_a_text_or_is_refused_and_writes_nothing(
  home, files, size, data
):
  folder = _fresh(home)
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  content = packed.getvalue()
  file = folder / "inside" / "text.zip"
  file.parent.mkdir()
  file.write_bytes(data.draw(st.just(content) | damaged(content)))
  before = _contents(folder)
  with refusals(folder, f"`text={file}`", "`vocab_size"):
    corpus = text.load(str(file), vocab_size=size)
    assert min(map(len, (corpus.train, corpus.validation, corpus.test))) >= 2
  assert _contents(folder) == before


@given(
  name=st.sampled_from([*WHOLE_TEXT]),
  content=CONTENTS | st.none(),
  size=INTEGERS,
)
def test_a_folder_is_a_text_or_is_refused(home, name, content, size):
  folder = _fresh(home)
  for file, whole in (WHOLE_TEXT | {name: content}).items():
    if whole is None:
      (folder / file).mkdir()
    else:
      (folder / file).write_bytes(whole)
  with refusals(folder, f"`text={folder}`", "`vocab_size"):
    corpus = text.load(str(folder), vocab_size=size)
    assert min(map(len, (corpus.train, corpus.validation, corpus.test))) >= 2


# -- Images. -----------------------------------------------------------------


def _look(source):
  """Reads all of a source."""
  for part in (source.train, source.test):
    assert len(part.labels)
    for index in range(len(part.labels)):
      part.image(index)


@given(data=st.data(), encoded=st.booleans())
def test_an_archive_is_of_images_or_is_refused(home, data, encoded):
  folder = _fresh(home)
  whole = tiny_images.encoded_as_png() if encoded else tiny_images.arrays()
  name = data.draw(st.sampled_from([*whole, "class_names"]))
  changed = _packed(whole | {name: data.draw(arrays())})
  file = folder / "images.npz"
  file.write_bytes(data.draw(st.just(changed) | damaged(_packed(whole))))
  with refusals(folder, str(file)):
    _look(sources.from_npz(file))


@given(
  name=WORDS | st.sampled_from(["..", "a/b", "x" * 300, "digits", "tiny"]),
  keep=st.booleans(),
  size=st.none() | INTEGERS,
)
def test_names_and_sizes_of_data_sets_are_taken_or_refused(
  home, name, keep, size
):
  folder = _fresh(home)
  pictures = tiny_images.save_folder(folder / "images", images_per_class=1)
  (folder / "file").touch()
  # As no data set can be below a file, nothing is ever stored.
  named = ("`name", "`size", "`keep_sizes", "`data_dir")
  with refusals(folder, *named) as messages:
    # Larger ones take long.
    source = sources.from_folder(pictures, size=size and min(size, 8))
    prepare.prepare(
      source, name=name, data_dir=folder / "file", keep_sizes=keep
    )
  assert messages


@pytest.fixture(scope="module")
def data_set(home):
  """A prepared data set; {name: contents}."""
  folder = _fresh(home)
  prepared = tiny_images.prepare_tiny(folder, folder / "data")
  return {path.name: path.read_bytes() for path in prepared.iterdir()}


def _load_data_set(folder, files):
  prepared = folder / "tiny" / "1.0.0"
  prepared.mkdir(parents=True)
  for name, content in files.items():
    (prepared / name).write_bytes(content)
  with refusals(folder, str(prepared), "`dataset=tiny`") as messages:
    images.load("tiny", data_dir=folder, validation_fraction=0.25, seed=0)
  return messages


@given(data=st.data())
def test_a_damaged_data_set_is_taken_or_refused(home, data_set, data):
  name = data.draw(st.sampled_from([*data_set]))
  content = data_set[name]
  spoilt = damaged(content)
  if name.endswith(".json"):
    spoilt = damaged_json(json.loads(content))
  _load_data_set(_fresh(home), data_set | {name: data.draw(spoilt)})


@pytest.mark.parametrize(
  "spoil",
  [
    lambda features: features | {"pythonClassName": "evil.Image"},
    lambda features: features | {"python_class_name": "evil.Image"},
    lambda features: {"type": "evil.Image", "content": {}},
  ],
)
def test_no_class_that_a_data_set_names_is_imported(
  home, data_set, monkeypatch, spoil
):
  folder = _fresh(home)
  (folder / "evil.py").write_text("raise AssertionError('imported')")
  monkeypatch.syspath_prepend(folder)
  features = spoil(json.loads(data_set["features.json"]))
  files = data_set | {"features.json": json.dumps(features).encode()}
  (message,) = _load_data_set(folder, files)
  assert "names the class 'evil.Image'" in message


# -- What a run left. --------------------------------------------------------

HISTORY = [{"epoch": n, "loss": 1.5 - n, "note": None} for n in range(3)]
RESULT = {"steps": 3, "test": {"loss": 0.25, "error": 0.5}}
TRAINING = image_training.Training(
  config=TrainCnnConfig(
    arch=cnn.to_text(np.array(CELLS_PAIR["tokens"])),
    network=NetworkConfig(nodes=2, cells_per_stage=1, channels=2),
    train=TrainConfig(batch=4),
  ),
  image_shape=(8, 8, 1),
  examples=10,
  mean=(0.5,),
  std=(0.25,),
)
CONFIG = {"settings": flatten(TRAINING), "versions": {"jax": "1"}}


def _run(home, **files):
  """A workdir that holds these files and all others in good order."""
  folder = _fresh(home)
  whole = {
    "config.json": json.dumps(CONFIG).encode(),
    "result.json": json.dumps(RESULT).encode(),
    "history.jsonl": b"".join(json.dumps(x).encode() + b"\n" for x in HISTORY),
  }
  for name, content in (whole | files).items():
    (folder / name).write_bytes(content)
  return folder


@given(content=damaged_json(CONFIG))
def test_settings_of_a_run_are_read_or_refused(home, content):
  folder = _run(home, **{"config.json": content})
  with refusals(folder, str(folder)):
    assert isinstance(config_file.read_settings(folder), dict)
  with refusals(folder, str(folder)):
    Workdir(folder, CONFIG["settings"], "result.json").__exit__(
      None, None, None
    )


@given(content=damaged_json(CONFIG))
def test_a_run_whose_settings_are_damaged_is_not_used(home, content):
  folder = _run(home, **{"config.json": content})
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
  folder = _run(home, **{"history.jsonl": b"".join(x + b"\n" for x in lines)})
  run = Workdir(folder, CONFIG["settings"], "result.json")
  with run, refusals(folder, "history.jsonl: line "):
    rows = run.history()
    kept = [row for n, row in enumerate(HISTORY) if n != at]
    assert all(row in rows for row in kept)
    run.rewind("epoch", 2)


@given(content=damaged_json(RESULT))
def test_an_outcome_is_read_or_refused(home, content):
  folder = _run(home, **{"result.json": content})
  run = Workdir(folder, CONFIG["settings"], "result.json")
  with run, refusals(folder, "result.json"):
    found = run.finished("steps", "test.loss")
    assert f"{found['test']['loss']:.2f}"


@given(data=st.data())
def test_a_damaged_pool_is_replaced_or_refused(home, pool_file, data):
  folder = _fresh(home)
  file = folder / "pool.sqlite"
  file.write_bytes(data.draw(damaged(pool_file)))
  with refusals(folder, str(file)):
    PoolFile(file).write(POOL)
    with contextlib.closing(sqlite3.connect(file)) as database:
      rows = database.execute("select tokens from architectures").fetchall()
    assert rows == [("1 4",), ("2 5",)]


POOL = pools.start(np.zeros((0, 2), np.int32), np.int32([[1, 4], [2, 5]]), 2)


@pytest.fixture(scope="module")
def pool_file(home):
  file = _fresh(home) / "pool.sqlite"
  PoolFile(file).write(POOL)
  return file.read_bytes()


@pytest.fixture(scope="module")
def trials_file(home):
  file = _fresh(home) / "trials.sqlite"
  Trials(file, "a", {}).add([1, 2], Trial(0.5, (0.25, 0.5)))
  return file.read_bytes()


@given(
  score=st.none() | st.integers(-5, 5) | FLOATS | WORDS | st.binary(max_size=4),
  curve=VALUES.map(json.dumps) | WORDS | st.binary(max_size=4),
  data=st.data(),
)
def test_trials_are_read_or_refused(home, trials_file, score, curve, data):
  folder = _fresh(home)
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


# -- Checkpoints. ------------------------------------------------------------


def _state(value):
  return {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3) + value,
    "step": np.asarray(value, np.int32),
    "nothing": np.zeros((0, 3), np.float32),
  }


@pytest.fixture(scope="module")
def saved(home):
  """Two checkpoints; {name: contents}."""
  folder = _fresh(home)
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
  folder = _fresh(home)
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
  folder = _fresh(home) / "checkpoints"
  for file, content in saved.items():
    if not (f"{file}/").startswith(f"{place}/") and place != ".":
      (folder / file).parent.mkdir(parents=True, exist_ok=True)
      (folder / file).write_bytes(content)
  (folder / place).parent.mkdir(exist_ok=True)
  (folder / place).write_bytes(b"")
  with refusals(folder.parent, str(folder)) as messages:
    assert _is(checkpoint.restore(folder, _state(0)), 1)
  assert bool(messages) == (place != "2/default")


# -- Comparisons. ------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(home, table):
  """The settings of a comparison, and the file that it wrote."""
  config = CompareConfig(
    table=table, dataset="shapes", report="valid", budget=10, trials=2
  )
  file = _fresh(home) / "compared.json"
  comparison.run(config, ["random"], file=file, threads=1)
  return config, json.loads(file.read_text())


@given(data=st.data())
def test_a_comparison_is_gone_on_with_or_refused(home, compared, data):
  config, document = compared
  folder = _fresh(home)
  file = folder / "compared.json"
  file.write_bytes(data.draw(damaged_json(document)))
  with refusals(folder, f"`file={file}`"):
    found = comparison.run(config, ["random"], file=file, threads=1)
    curves.show(found, "valid", "test")


def test_a_file_that_cannot_be_written_is_refused_at_once(home, compared):
  folder = _fresh(home)
  (folder / "file").touch()
  for path in ("", "file/x.json", "a" * 300):
    with refusals(folder, "`file=") as messages:
      comparison.run(compared[0], ["random"], file=folder / path)
    assert messages


# -- Flags. ------------------------------------------------------------------


def _fields(config, path=()):
  """The path of every setting."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from _fields(value, (*path, field.name))
    else:
      yield (*path, field.name)


def _replaced(config, path, value):
  name, *rest = path
  if rest:
    value = _replaced(getattr(config, name), rest, value)
  return dataclasses.replace(config, **{name: value})


def _at(config, path):
  for name in path:
    config = getattr(config, name)
  return config


# What the data decide, and what has no flag.
_NO_FLAGS = {"classes", "vocabulary", "step_sizes"}
# What the architecture decides too, and what has as many words as the text.
_UNUSED = {"nodes", "vocab_size"}
_KINDS = {bool: st.booleans(), int: INTEGERS, float: FLOATS, str: WORDS}


def _settings(config):
  """Draws a path in a config, and a value of its type."""
  paths = [path for path in _fields(config) if path[-1] not in _NO_FLAGS]
  return st.sampled_from(paths).flatmap(
    lambda path: st.tuples(st.just(path), _KINDS[type(_at(config, path))])
  )


SMALL = NetworkConfig(nodes=2, cells_per_stage=1, channels=2)
SEARCH_CNN = SearchCnnConfig(
  dataset="tiny",
  validation_fraction=0.25,
  strategy="nao",
  network=SMALL,
  train=TrainConfig(epochs=2, batch=4),
  search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
  nao=NaoConfig(top_k=3, max_step_size=4),
  finalists=1,
  finalist=ImageFinalistConfig(
    channels=2, cells_per_stage=1, batch=4, auxiliary=False
  ),
  final=ImageFinalConfig(cells=1, channels=2, cells_per_stage=1, batch=4),
)
TRAIN_CNN = dataclasses.replace(TRAINING.config, dataset="tiny")
LANGUAGE = TextTrainConfig(epochs=2, batch=1)


@pytest.fixture(scope="module")
def place(home):
  """A folder with data, a text, and a workdir that holds something else."""
  folder = _fresh(home)
  pixels = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8)
  labels = np.arange(20) % 3
  file = tiny_images.save_npz(
    folder / "tiny.npz",
    {f"{split}_images": pixels for split in ("train", "test")}
    | {f"{split}_labels": labels for split in ("train", "test")},
  )
  prepare.prepare(sources.from_npz(file), name="tiny", data_dir=folder / "data")
  (folder / "text").mkdir()
  for name in WHOLE_TEXT:
    (folder / "text" / name).write_bytes(b"a b c d e f g\n" * 20)
  (folder / "foreign").mkdir()
  (folder / "foreign" / "thesis.tex").write_text("precious")
  return folder


def _entries(place):
  """{name: (settings, what is called with them)}; none can begin to run."""
  foreign, data = place / "foreign", place / "data"
  written = str(place / "text")
  nao = SEARCH_CNN.nao
  return {
    "search_cnn": (
      SEARCH_CNN,
      lambda c: running.search_images(
        c, workdir=foreign, data_dir=data, devices=1
      ),
    ),
    "train_cnn": (
      TRAIN_CNN,
      lambda c: running.train_images(
        c, workdir=foreign, data_dir=data, devices=1
      ),
    ),
    "search_rnn": (
      SearchRnnConfig(
        text=written,
        strategy="nao",
        finalists=3,
        train=LANGUAGE,
        search=SEARCH_CNN.search,
        nao=nao,
      ),
      lambda c: running.search_texts(c, workdir=foreign, devices=1),
    ),
    "train_rnn": (
      TrainRnnConfig(text=written, train=LANGUAGE, eval_batch=2),
      lambda c: running.train_texts(c, workdir=foreign, devices=1),
    ),
  }


@pytest.mark.parametrize(
  "driver", ["search_cnn", "train_cnn", "search_rnn", "train_rnn"]
)
@given(data=st.data())
def test_a_setting_of_a_run_is_taken_or_refused_by_its_flag(
  place, driver, data
):
  config, run = _entries(place)[driver]
  path, value = data.draw(_settings(config))
  # The last word of every entry is that the workdir is something else's.
  with refusals(
    place / "foreign", f"{path[-1]}", "holds files but"
  ) as messages:
    run(_replaced(config, path, value))
  taken = "holds files but" in messages[0]
  event("taken" if taken else "refused")
  # JAX would take another number in the place of what has more bits.
  if taken and type(value) is int and path[-1] not in _UNUSED:
    assert 0 <= value < 2**32


@given(data=st.data(), names=st.just(["random"]) | st.lists(WORDS, max_size=3))
def test_a_setting_of_a_comparison_is_taken_or_refused(
  home, compared, data, names
):
  config, _ = compared
  path, value = data.draw(_settings(config))
  with refusals(_fresh(home), path[-1], "`strategies="):
    comparison.check(_replaced(config, path, value), names)


@given(data=st.data())
def test_a_setting_of_a_study_is_taken_or_refused_by_its_flag(
  home, table, data
):
  config = StudyConfig(table=table, dataset="shapes", members=9, measured=9)
  path, value = data.draw(_settings(config))
  with refusals(_fresh(home), path[-1]):
    controller_study.check(_replaced(config, path, value))


@given(data=st.data(), size=INTEGERS)
def test_a_network_is_described_or_refused_by_its_flag(home, data, size):
  path, value = data.draw(_settings(SMALL))
  tokens = np.int32(CELLS_PAIR["tokens"])
  named = (path[-1], "images are", "`auxiliary=")
  with refusals(_fresh(home), *named):
    network = _replaced(SMALL, path, value)
    network.check(size)
    network = dataclasses.replace(network, ops="small", nodes=2)
    assert cost(network, tokens, size, 3).parameters > 0


@given(devices=INTEGERS)
def test_numbers_of_devices_are_taken_or_refused(home, devices):
  with refusals(_fresh(home), f"`devices={devices}`"):
    parallel.check(devices)


# -- Drivers. ----------------------------------------------------------------


@pytest.mark.parametrize(
  ("driver", "flags", "says"),
  [
    ("describe", ["--arch={0}/deep.json"], "deep.json: not a JSON object"),
    (
      "search_rnn",
      ["--workdir={0}/run", "--checkpoint_minutes=nan"],
      "--checkpoint_minutes=nan: allowed: 0 or more",
    ),
    (
      "compare_strategies",
      ["--table={0}/evil.npz", "--json={0}/new/a.json"],
      "evil.npz: not a NumPy archive",
    ),
    ("evaluate_cnn", ["--workdir={0}"], "config.json is damaged: `arch="),
  ],
)
def test_a_driver_ends_with_2_and_a_line_and_leaves_nothing(
  home, driver, flags, says
):
  settings = CONFIG["settings"] | {"config.arch": "1 2 \x1b[31m\n3"}
  content = json.dumps(CONFIG | {"settings": settings}).encode()
  folder = _run(home, **{"config.json": content})
  (folder / "deep.json").write_text("[" * 100_000)
  evil = np.array([Evil(folder / "made")], object)
  (folder / "evil.npz").write_bytes(_packed(LIKE_A_TABLE | {"ops": evil}))
  before = _contents(folder)
  result = subprocess.run(
    [sys.executable, "-m", f"experiments.{driver}"]
    + [flag.format(folder) for flag in flags],
    check=False,
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONWARNINGS": "ignore"},
  )
  *_, last = result.stderr.splitlines()
  assert result.returncode == 2, result.stderr
  assert last.startswith("error: ")
  assert says in last
  assert "Traceback" not in result.stderr
  assert result.stdout == ""
  assert _contents(folder) == before
