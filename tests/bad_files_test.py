"""Files that users give are taken, or refused in a line that says what to do.

Every entry gets what nobody should give it.
"""

import io
import json
import pickle
import zipfile

from hypothesis import event, given
from hypothesis import strategies as st
import numpy as np
import pytest

from experiments import recurrent_description
from nao_jax.data import images, listed, prepare, sources, tables, text
from nao_jax.data.split import Split
from nao_jax.spaces import cnn, nasbench201, published, rnn
from tests import tiny_images
from tests.bad_input import (
  CELLS_PAIR,
  FLOATS,
  INTEGERS,
  LIKE_A_TABLE,
  NUMBER,
  SIZES,
  VALUES,
  WHOLE_TEXT,
  WORDS,
  Evil,
  arrays,
  contents_of,
  damaged,
  damaged_json,
  fresh,
  packed,
  refusals,
  write_table,
)


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


@given(
  written=TEXTS, ops=st.sampled_from([*cnn.OP_SETS]) | WORDS, nodes=INTEGERS
)
def test_a_text_is_an_architecture_or_is_refused(home, written, ops, nodes):
  folder = fresh(home)
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


@given(content=damaged_json(CELL) | damaged_json(CELLS_PAIR))
def test_a_file_is_an_architecture_or_is_refused(home, content):
  folder = fresh(home)
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
  folder = fresh(home)
  (folder / "folder.json").mkdir()
  (folder / "file").touch()
  for path in ("none.json", "folder.json", "file/x.json", "a" * 300 + ".json"):
    for entry in (cnn.resolve, rnn.resolve):
      with refusals(folder, f"`arch={folder / path}`") as messages:
        entry(str(folder / path))
      assert messages


@pytest.fixture(scope="module")
def table(home):
  return write_table(home)


def _load_table(folder, content):
  """The scores, if they are taken."""
  # One name for each file, as what was read is remembered by name.
  file = folder / f"table{next(NUMBER)}.npz"
  file.write_bytes(content)
  with refusals(folder, str(file)):
    column = tables.load(str(file), "shapes", "valid")
    assert np.isfinite(column.scores).all()
    return column.scores
  return None


@given(name=st.sampled_from([*LIKE_A_TABLE, "another"]), array=arrays())
def test_an_array_of_a_table_is_taken_or_refused(home, name, array):
  event(f"{name}: {array.dtype.kind}")
  _load_table(fresh(home), packed(LIKE_A_TABLE | {name: array}))


@given(name=st.sampled_from([*LIKE_A_TABLE]), value=FLOATS, at=SIZES)
def test_a_number_in_a_table_is_taken_or_refused(home, name, value, at):
  changed = np.float64(LIKE_A_TABLE["shapes_valid"])
  changed[:at] = value
  contents = LIKE_A_TABLE | {"shapes_valid": changed}
  if not at:
    del contents[name]
  _load_table(fresh(home), packed(contents))


@given(data=st.data())
def test_a_damaged_table_is_taken_as_it_was_or_refused(home, table, data):
  content = packed(LIKE_A_TABLE)
  scores = _load_table(fresh(home), data.draw(damaged(content)))
  if scores is not None:
    whole = tables.load(table, "shapes", "valid").scores
    np.testing.assert_array_equal(scores, whole)


@pytest.mark.parametrize("name", ["ops", "op_names", "shapes_valid"])
def test_no_object_of_a_table_is_made(home, name):
  folder = fresh(home)
  evil = np.array([Evil(folder / "made")], object)
  _load_table(folder, packed(LIKE_A_TABLE | {name: evil}))
  assert not (folder / "made").exists()


@given(
  row=st.dictionaries(st.sampled_from(["perf", "valid_perf", "x"]), VALUES),
  key=VALUES.filter(lambda key: not isinstance(key, (list, dict))),
  data=st.data(),
)
def test_a_packaged_table_is_taken_or_refused_and_never_executed(
  home, row, key, data
):
  folder = fresh(home)
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


CONTENTS = st.sampled_from([b"", b"a", b"a b\n", b"\n\n", b"<eos>", b"\0\1"])
CONTENTS |= st.binary(max_size=20)
NAMES = st.sampled_from(
  [
    *(f"{where}a.{part}.txt" for part in ("train", "valid", "test")
      for where in ("", "../", "/", "../../../", "b/", "C:\\")),
    "a.train.raw", "..",
  ]
)  # fmt: skip


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
  folder = fresh(home)
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  content = packed.getvalue()
  file = folder / "inside" / "text.zip"
  file.parent.mkdir()
  file.write_bytes(data.draw(st.just(content) | damaged(content)))
  before = contents_of(folder)
  with refusals(folder, f"`text={file}`", "`vocab_size"):
    corpus = text.load(str(file), vocab_size=size)
    assert min(map(len, (corpus.train, corpus.validation, corpus.test))) >= 2
  assert contents_of(folder) == before


@given(
  name=st.sampled_from([*WHOLE_TEXT]),
  content=CONTENTS | st.none(),
  size=INTEGERS,
)
def test_a_folder_is_a_text_or_is_refused(home, name, content, size):
  folder = fresh(home)
  for file, whole in (WHOLE_TEXT | {name: content}).items():
    if whole is None:
      (folder / file).mkdir()
    else:
      (folder / file).write_bytes(whole)
  with refusals(folder, f"`text={folder}`", "`vocab_size"):
    corpus = text.load(str(folder), vocab_size=size)
    assert min(map(len, (corpus.train, corpus.validation, corpus.test))) >= 2


def _look(source):
  """Reads all of a source."""
  for part in (source.train, source.test):
    assert len(part.labels)
    for index in range(len(part.labels)):
      part.image(index)


@given(data=st.data(), encoded=st.booleans())
def test_an_archive_is_of_images_or_is_refused(home, data, encoded):
  folder = fresh(home)
  whole = tiny_images.encoded_as_png() if encoded else tiny_images.arrays()
  name = data.draw(st.sampled_from([*whole, "class_names"]))
  changed = packed(whole | {name: data.draw(arrays())})
  file = folder / "images.npz"
  file.write_bytes(data.draw(st.just(changed) | damaged(packed(whole))))
  with refusals(folder, str(file)):
    _look(sources.from_npz(file))


PNG = tiny_images.encode(np.zeros((3, 3), np.uint8), "PNG")
TABLE = b"path,label\na.png,x\na.png,x\na.png,y\na.png,y\n"


@given(data=st.data())
def test_a_csv_file_lists_images_or_is_refused(home, data):
  folder = fresh(home)
  (folder / "a.png").write_bytes(PNG)
  file = folder / "images.csv"
  lines = st.lists(WORDS | st.sampled_from(TABLE.decode().split()), max_size=5)
  text = lines.map(lambda words: "\n".join(words).encode(errors="replace"))
  file.write_bytes(data.draw(damaged(TABLE) | text))
  split = data.draw(st.none() | FLOATS.map(Split))
  with refusals(folder, str(file), "`test_fraction"):
    _look(listed.from_csv(file, split))


@pytest.fixture(scope="module")
def arrow(home):
  """A data set as Hugging Face saves it to disk; {name: contents}."""
  pytest.importorskip("pyarrow")
  folder = fresh(home) / "saved"
  tiny_images.save_arrow(folder, [PNG] * 4, [0, 0, 1, 1], ("x", "y"))
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(data=st.data())
def test_a_saved_data_set_is_of_images_or_is_refused(home, arrow, data):
  folder = fresh(home)
  name = data.draw(st.sampled_from([*arrow]))
  spoilt = damaged(arrow[name])
  if name.endswith(".json"):
    spoilt = damaged_json(json.loads(arrow[name]))
  for own, content in (arrow | {name: data.draw(spoilt)}).items():
    (folder / own).write_bytes(content)
  with refusals(folder, str(folder)):
    _look(listed.from_arrow(folder, Split(0.5)))


@given(
  name=WORDS | st.sampled_from(["..", "a/b", "x" * 300, "digits", "tiny"]),
  keep=st.booleans(),
  size=st.none() | INTEGERS,
)
def test_names_and_sizes_of_data_sets_are_taken_or_refused(
  home, name, keep, size
):
  folder = fresh(home)
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
  folder = fresh(home)
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
  _load_data_set(fresh(home), data_set | {name: data.draw(spoilt)})


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
  folder = fresh(home)
  (folder / "evil.py").write_text("raise AssertionError('imported')")
  monkeypatch.syspath_prepend(folder)
  features = spoil(json.loads(data_set["features.json"]))
  files = data_set | {"features.json": json.dumps(features).encode()}
  (message,) = _load_data_set(folder, files)
  assert "names the class 'evil.Image'" in message
