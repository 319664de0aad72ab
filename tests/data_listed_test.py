"""Own images without parts, in tables, and in saved Hugging Face data sets."""

import contextlib
import json
import pathlib

import numpy as np
import pytest

from nao_jax.data import listed, sources
from nao_jax.data.split import Split
from nao_jax.errors import UserError
from tests import tiny_images

COUNTS = {"a": 8, "b": 4, "c": 2}
LABELS = np.repeat(np.arange(3), [*COUNTS.values()])
SPLIT = Split(0.25)


def _image(number):
  return tiny_images.encode(np.full((3, 3, 3), number, np.uint8), "PNG")


@pytest.fixture
def folder(tmp_path):
  """Images by class, each of one colour."""
  names = [name for name, count in COUNTS.items() for _ in range(count)]
  for number, name in enumerate(names):
    path = tmp_path / "images" / name / f"{number:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_image(number))
  return tmp_path / "images"


def _colours(part):
  return [int(part.image(n)[0, 0, 0]) for n in range(len(part.labels))]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_division_takes_the_same_share_of_each_class(seed):
  train, test = Split(0.25, seed).divide(LABELS, "abc", "here")
  assert sorted([*train, *test]) == [*range(len(LABELS))]
  assert np.bincount(LABELS[test]).tolist() == [2, 1, 1]
  again = Split(0.25, seed).divide(LABELS, "abc", "here")
  np.testing.assert_array_equal(again[1], test)


def test_another_seed_divides_otherwise():
  tests = [tuple(Split(0.25, n).divide(LABELS, "abc", "")[1]) for n in range(4)]
  assert len({*tests}) > 1


def test_every_class_is_in_both_parts_whatever_the_share():
  for fraction in (0.01, 0.99):
    for rows in Split(fraction).divide(LABELS, "abc", "here"):
      assert {*LABELS[rows]} == {0, 1, 2}


def test_a_folder_of_classes_is_divided(folder):
  source = sources.from_classes(folder, SPLIT)
  assert source.class_names == ("a", "b", "c")
  for part in (source.train, source.test):
    assert LABELS[_colours(part)].tolist() == part.labels.tolist()
    assert part.encoded(0) == _image(_colours(part)[0])
  assert sorted(_colours(source.train) + _colours(source.test)) == [*range(14)]


def _csv(folder, lines):
  path = folder / "table.csv"
  path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
  return path


def _lines(folder, *, split=False):
  files = sorted(folder.rglob("*.png"))
  for number, file in enumerate(files):
    words = [str(file.relative_to(folder)), {"a": "10", "b": "9"}.get(
      file.parent.name, "2"
    )]  # fmt: skip
    yield ",".join(words + ["test" if number % 2 else "train"] * split)


def test_a_table_names_its_parts_or_is_divided(folder):
  path = _csv(folder, ["Path,label,split", *_lines(folder, split=True)])
  source = listed.from_csv(path)
  # Classes that are numbers are in their order.
  assert source.class_names == ("2", "9", "10")
  assert _colours(source.train) == [*range(0, 14, 2)]
  assert source.test.labels.tolist() == [2, 2, 2, 2, 1, 1, 0]
  path = _csv(folder, ["label,path", *(
    ",".join(line.split(",")[::-1]) for line in _lines(folder)
  )])  # fmt: skip
  assert len(listed.from_csv(path, SPLIT, size=5).test.labels) == 4


@pytest.mark.parametrize(
  ("lines", "split", "said"),
  [
    (["path,label", "a/00.png,x", "no.png,y"], SPLIT, "line 3: no such image"),
    (["path,name", "a/00.png,x"], SPLIT, "no column label or class"),
    (["path,label"], SPLIT, "no rows below"),
    (["path,label", "a/00.png,x"], None, "has no test part; give `test_frac"),
    (["path,label,split", "a/00.png,x,tset"], None, "line 2: part 'tset'"),
    (["path,label,split", "a/00.png,x,test"], None, "no image of the part tr"),
    (["path,label,split", "a/00.png,x,test"], SPLIT, "leave out `test_fract"),
    (["path,label", "a/00.png,x", "a/01.png,x"], SPLIT, "1 class only"),
    (["path,label", "a/00.png,x", "a/01.png,y"], SPLIT, "1 image only of x, y"),
    (["path,label", "a/00.png,", "a/01.png,y"] * 2, SPLIT, "no such image"),
  ],
)
def test_a_table_that_is_wrong_is_refused(folder, lines, split, said):
  with pytest.raises(UserError, match=said):
    listed.from_csv(_csv(folder, lines), split)


def test_shares_and_folders_that_are_wrong_are_refused(folder, tmp_path):
  for fraction in (0.0, 1.0, float("nan")):
    with pytest.raises(UserError, match=r"`test_fraction=.*allowed: above 0"):
      sources.from_classes(folder, Split(fraction))
  (tmp_path / "whole" / "train" / "a").mkdir(parents=True)
  (tmp_path / "whole" / "test").mkdir()
  with pytest.raises(UserError, match="is divided already"):
    sources.from_classes(tmp_path / "whole", SPLIT)
  with pytest.raises(UserError, match="cannot be read as CSV"):
    listed.from_csv(tmp_path / "none.csv", SPLIT)


def _save(folder, rows, *, kind="Image"):
  """Writes what `datasets` does by save_to_disk, in two files."""
  pytest.importorskip("pyarrow")
  tiny_images.save_arrow(
    folder,
    [_image(row) for row in rows],
    [int(LABELS[row]) for row in rows],
    ("a", "b", "c"),
    kind,
  )


def _edit(file: pathlib.Path, **changes):
  file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_saved_data_set_is_read_with_its_splits_or_divided(tmp_path, caplog):
  _save(tmp_path / "one", range(14))
  source = listed.from_arrow(tmp_path / "one", SPLIT)
  assert source.class_names == ("a", "b", "c")
  for part in (source.train, source.test):
    assert LABELS[_colours(part)].tolist() == part.labels.tolist()
  rows = [*range(0, 14, 2)], [*range(1, 14, 2)]
  for name, own in zip(("train", "test"), rows, strict=True):
    _save(tmp_path / "both" / name, own)
  splits = json.dumps({"splits": ["train", "test", "validation"]})
  (tmp_path / "both" / "dataset_dict.json").write_text(splits)
  source = listed.from_arrow(tmp_path / "both")
  assert "train and test are left out: validation" in caplog.text
  assert (_colours(source.train), _colours(source.test)) == rows


def test_a_saved_data_set_that_is_wrong_is_refused(tmp_path):
  whole = tmp_path / "whole"
  _save(whole, range(14))
  with pytest.raises(UserError, match="has no test part"):
    listed.from_arrow(whole)
  _edit(whole / "state.json", _data_files=[{"filename": "../../x.arrow"}])
  with pytest.raises(UserError, match="names a file outside"):
    listed.from_arrow(whole, SPLIT)
  _edit(whole / "state.json", _data_files=[{"filename": "none.arrow"}])
  with pytest.raises(UserError, match=r"damaged .*; save the data set again"):
    listed.from_arrow(whole, SPLIT)
  _edit(whole / "state.json", _indices_data_files=[{"filename": "x"}])
  with pytest.raises(UserError, match="call flatten_indices"):
    listed.from_arrow(whole, SPLIT)
  _save(tmp_path / "other", range(14), kind="Value")
  with pytest.raises(UserError, match=r"no feature of type Image, only label"):
    listed.from_arrow(tmp_path / "other", SPLIT)
  with pytest.raises(UserError, match=r"dataset_info\.json"):
    listed.from_arrow(tmp_path, SPLIT)


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("dataset_info.json", {"features": [1]}),
    ("dataset_info.json", {"features": None}),
    ("dataset_info.json", {"features": {"label": {"_type": "ClassLabel"}}}),
    (
      "dataset_info.json",
      {"features": {"l": {"_type": "ClassLabel", "names": 5},
                    "picture": {"_type": "Image"}}},
    ),
    (
      "dataset_info.json",
      {"features": {"label": {"_type": "ClassLabel", "names": ["a"]},
                    "gone": {"_type": "Image"}}},
    ),
    ("state.json", {"_data_files": 5}),
    ("state.json", {"_data_files": [{"filename": 5}]}),
    ("state.json", {"_data_files": []}),
    ("state.json", {"_data_files": [{"filename": "state.json"}]}),
  ],
)  # fmt: skip
def test_damage_to_a_saved_data_set_is_a_line(tmp_path, name, changes):
  _save(tmp_path / "set", range(14))
  _edit(tmp_path / "set" / name, **changes)
  with pytest.raises(UserError, match=str(tmp_path)):
    listed.from_arrow(tmp_path / "set", SPLIT)


@pytest.mark.parametrize("at", [0, 9, 200, 400, 700])
def test_damaged_bytes_of_a_saved_set_end_in_errors_or_images(tmp_path, at):
  _save(tmp_path / "set", range(14))
  (file, _) = sorted((tmp_path / "set").glob("*.arrow"))
  content = bytearray(file.read_bytes())
  content[at : at + 4] = b"\xff\xff\xff\x7f"
  file.write_bytes(content)
  with contextlib.suppress(UserError):
    source = listed.from_arrow(tmp_path / "set", SPLIT)
    for part in (source.train, source.test):
      _colours(part)
