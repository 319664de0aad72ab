"""Data are told apart by what they contain, wherever results belong to them."""

import dataclasses
import json
import os

import numpy as np
import pytest

from nao_jax.data import digest, images, prepare, sources, stream
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs import workdir
from nao_jax.spaces import cnn
from nao_jax.tasks import image_presets, image_recipes, text_presets
from nao_jax.training.recipe import TrainConfig
from tests import running, tiny_images

# More than a sample of them would show.
TRAIN, TEST = 40, 24
NETWORK = NetworkConfig(cells_per_stage=1, channels=4)
ARCH = "0 4 1 4 0 2 1 4 | 0 2 1 4 0 4 1 4"


def _arrays(**changes):
  """Two classes of noise; of a name in `changes` one number is another one."""
  rng = np.random.default_rng(0)
  made = {}
  for part, count in (("train", TRAIN), ("test", TEST)):
    made[f"{part}_images"] = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
    made[f"{part}_labels"] = np.arange(count) % 2
  for name, index in changes.items():
    array = made[name].reshape(len(made[name]), -1)
    array[index, 0] = 1 - array[index, 0] if "labels" in name else 77
  return made


def _prepare(folder, encoded=False, **changes):
  made = _arrays(**changes)
  if encoded:
    parts = ("train", "test")
    files = {
      p: [tiny_images.encode(x[..., 0]) for x in made[f"{p}_images"]]
      for p in parts
    }
    made = tiny_images.encoded_arrays(
      files, {p: made[f"{p}_labels"] for p in parts}
    )
  folder.mkdir(parents=True, exist_ok=True)
  source = sources.from_npz(tiny_images.save_npz(folder / "mine.npz", made))
  prepare.prepare(source, name="mine", data_dir=folder, keep_sizes=encoded)
  return folder


def _load(folder, fraction=0.25, seed=0):
  return images.load(
    "mine", data_dir=folder, validation_fraction=fraction, seed=seed
  )


def _stream(folder):
  config = stream.StreamConfig(size=8, workers=0)
  return stream.open_stream("mine", data_dir=folder, config=config)


CHANGES = [
  ({"train_labels": 3}, ["training part"]),
  ({"train_images": 38}, ["training part"]),
  ({"test_labels": 1}, ["test part"]),
  ({"test_images": 21}, ["test part"]),
  ({"train_labels": 0, "test_images": 0}, ["training part", "test part"]),
]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_digest_changes_with_any_label_and_any_image_of_its_part(
  tmp_path, streamed
):
  opened = _stream if streamed else _load
  first = opened(_prepare(tmp_path / "first", streamed)).digest
  again = opened(_prepare(tmp_path / "again", streamed)).digest
  assert first == again
  assert first.changes(again) == []
  for number, (change, parts) in enumerate(CHANGES):
    folder = _prepare(tmp_path / str(number), streamed, **change)
    assert first.changes(opened(folder).digest) == parts


def test_a_digest_is_of_the_data_and_not_of_how_they_are_split(tmp_path):
  folder = _prepare(tmp_path)
  digests = {_load(folder, *how).digest for how in ((0, 0), (0.25, 1))}
  assert len(digests) == 1


def test_shapes_types_and_classes_are_contents():
  row = np.arange(6, dtype=np.uint8)
  found = {
    digest.of_arrays(2, row),
    digest.of_arrays(3, row),
    digest.of_arrays(2, row[:3], row[3:]),
    digest.of_arrays(2, row.reshape(2, 3)),
    digest.of_arrays(2, row.view(np.int8)),
  }
  assert len(found) == 5


@pytest.fixture
def files(tmp_path):
  """Files that nobody has touched for a while."""
  paths = [tmp_path / name for name in "ab"]
  for path in paths:
    path.write_text(path.name)
  return paths


@pytest.fixture
def read(monkeypatch):
  """The names of the files that were read."""
  names = []
  of_file = digest._of_file

  def watched(path):
    names.append(path.name)
    return of_file(path)

  monkeypatch.setattr(digest, "_of_file", watched)
  return names


def _settle(monkeypatch):
  monkeypatch.setattr(digest, "_SECONDS_TO_SETTLE", -1.0)


def test_a_file_that_nothing_touched_is_read_once(files, read, monkeypatch):
  _settle(monkeypatch)
  first = digest.of_files(2, files)
  assert digest.of_files(2, files) == first
  assert sorted(read) == ["a", "b"]
  # A digest is of all names, however they are ordered, and of the classes.
  assert digest.of_files(2, files[::-1]) == first
  assert digest.of_files(3, files) != first != digest.of_files(2, files[:1])


def test_a_change_that_keeps_size_and_time_is_noticed(files, read, monkeypatch):
  _settle(monkeypatch)
  first, before = digest.of_files(2, files), files[0].stat()
  files[0].write_text("x")
  os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
  assert digest.of_files(2, files) != first
  assert sorted(read) == ["a", "a", "b"]


def test_a_file_is_read_again_while_it_may_still_be_in_the_making(files, read):
  for _ in range(2):
    digest.of_files(2, files)
  assert len(read) == 4
  assert not (files[0].parent / digest.CACHE).exists()


@pytest.mark.parametrize("cache", ["", "{", "[1]", '{"a": 1}', '{"a": [1, 2]}'])
def test_a_damaged_cache_is_written_anew(files, read, monkeypatch, cache):
  expected = digest.of_files(2, files)
  _settle(monkeypatch)
  (files[0].parent / digest.CACHE).write_text(cache)
  assert [digest.of_files(2, files) for _ in range(2)] == [expected] * 2
  assert len(read) == 4


def test_a_file_that_cannot_be_read_is_named(files):
  files[0].unlink()
  with pytest.raises(UserError, match="/a: No such file"):
    digest.of_files(2, files)


# Runs.

TRAINING = image_recipes.TrainCnnConfig(
  arch=ARCH, dataset="mine", network=NETWORK, train=TrainConfig(1, 8)
)
DIGITS = image_presets.PRESETS["digits"]
SEARCH = dataclasses.replace(
  DIGITS,
  dataset="mine",
  network=NETWORK,
  train=dataclasses.replace(DIGITS.train, batch=8),
  final=dataclasses.replace(DIGITS.final, batch=8),
  finalist=dataclasses.replace(DIGITS.finalist, batch=8),
)


class Begun(Exception):
  pass


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
  """Runs end where their work would begin."""

  def begun(*_):
    raise Begun

  # What every run asks its workdir first.
  monkeypatch.setattr(workdir.Workdir, "finished", begun)


def _begin(run, *arguments, **settings):
  with pytest.raises(Begun):
    run(*arguments, devices=1, **settings)


RUNS = [
  (running.train_images, TRAINING, False),
  (
    running.train_images,
    dataclasses.replace(
      TRAINING, input="stream", stream=stream.StreamConfig(size=8, workers=0)
    ),
    True,
  ),
  (running.search_images, SEARCH, False),
  (
    running.search_images,
    dataclasses.replace(SEARCH, evaluator="scratch"),
    False,
  ),
]


@pytest.mark.parametrize(("run", "config", "encoded"), RUNS)
@pytest.mark.parametrize(
  ("change", "part"),
  [
    ({"train_labels": 30}, "the training part of mine changed"),
    ({"test_images": 7}, "the test part of mine changed"),
  ],
)
def test_a_run_does_not_go_on_with_other_data_of_the_same_name(
  run, config, encoded, change, part, tmp_path
):
  place = tmp_path / "run"
  first = _prepare(tmp_path / "first", encoded)
  for _ in range(2):  # The same data are no hindrance.
    _begin(run, config, workdir=place, data_dir=first)
  mended = _prepare(tmp_path / "mended", encoded, **change)
  with pytest.raises(UserError) as caught:
    run(config, workdir=place, data_dir=mended, devices=1)
  message = str(caught.value)
  assert message.startswith(f"`workdir={place}`: holds a run on other data: ")
  assert part in message
  assert "give another `workdir`" in message


@pytest.mark.parametrize("name", ["data.train", "data.test"])
def test_a_run_that_kept_no_digest_is_refused_by_its_version(name, tmp_path):
  data, place = _prepare(tmp_path / "data"), tmp_path / "run"
  _begin(running.train_images, TRAINING, workdir=place, data_dir=data)
  config = json.loads((place / "config.json").read_text())
  del config["settings"][name]
  config["versions"]["nao_jax"] = "0.3.1"
  (place / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match=rf"of nao_jax 0\.3\.1, which .*{name}"):
    running.train_images(TRAINING, workdir=place, data_dir=data, devices=1)


def test_a_table_of_latencies_that_changed_is_noticed(tmp_path):
  table, place = tmp_path / "latency.csv", tmp_path / "run"
  constraint = dataclasses.replace(
    SEARCH.constraint, limit="latency:9", latency_table=str(table)
  )
  config = dataclasses.replace(SEARCH, constraint=constraint)
  ops = cnn.OP_SETS[NETWORK.ops]

  def write(milliseconds):
    rows = [
      f"{cell},{op},{milliseconds}"
      for cell in ("normal", "reduction")
      for op in ops
    ]
    table.write_text("\n".join(["cell,op,milliseconds", "network,,1", *rows]))

  write(1)
  folder = _prepare(tmp_path / "data")
  _begin(running.search_images, config, workdir=place, data_dir=folder)
  write(2)
  with pytest.raises(UserError, match="the table of latencies changed"):
    running.search_images(config, workdir=place, data_dir=folder, devices=1)


def test_a_text_that_changed_is_named(tmp_path):
  text, place = tmp_path / "text", tmp_path / "run"
  text.mkdir()
  config = dataclasses.replace(
    text_presets.PRESETS["demo"], text=str(text), vocab_size=0
  )

  def write(word):
    for part in ("train", "valid", "test"):
      (text / f"a.{part}.txt").write_text(f"b {word} c d e f g\n" * 99)

  write("x")
  _begin(running.search_texts, config, workdir=place)
  write("y")
  with pytest.raises(UserError, match=f"the text of {text} changed since"):
    running.search_texts(config, workdir=place, devices=1)
