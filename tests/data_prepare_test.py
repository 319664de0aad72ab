import functools
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from nao_jax.data import images, pixels, prepare, sources
from nao_jax.errors import UserError
from tests import drivers, tiny_images

KILLED = """
import dataclasses, os, signal, sys
from nao_jax.data import prepare, sources
source = sources.from_npz(sys.argv[1])
image_of = source.train.image
def image(index):
  if index == 3:
    os.kill(os.getpid(), signal.SIGKILL)
  return image_of(index)
train = dataclasses.replace(source.train, image=image)
source = dataclasses.replace(source, train=train)
prepare.prepare(source, name="tiny", data_dir=sys.argv[2])
"""


def load(data_dir, name="tiny"):
  return images.load(name, data_dir=data_dir, validation_fraction=0, seed=0)


def npz(tmp_path, contents):
  return tiny_images.save_npz(tmp_path / "a.npz", contents)


def prepare_npz(tmp_path, contents):
  source = sources.from_npz(npz(tmp_path, contents))
  return prepare.prepare(source, name="tiny", data_dir=tmp_path)


@pytest.mark.parametrize(
  "contents", [tiny_images.arrays, tiny_images.encoded_as_png]
)
def test_an_archive_comes_back_pixel_for_pixel_in_order(tmp_path, contents):
  prepare_npz(tmp_path, contents())
  data, expected = load(tmp_path), tiny_images.arrays()
  for split, part in (("train", data.train), ("test", data.test)):
    np.testing.assert_array_equal(part.images, expected[f"{split}_images"])
    np.testing.assert_array_equal(part.labels, expected[f"{split}_labels"])
  assert data.classes == tiny_images.CLASSES


def test_grey_images_without_a_channel_axis_get_one(tmp_path):
  contents = tiny_images.arrays()
  for name in ("train_images", "test_images"):
    contents[name] = contents[name][..., 0]
  prepare_npz(tmp_path, contents)
  np.testing.assert_array_equal(
    load(tmp_path).train.images, contents["train_images"][..., None]
  )


def test_class_names_may_say_more_classes_than_occur(tmp_path):
  names = np.array(["cat", "dog", "bird", "sea lion"])
  prepare_npz(tmp_path, tiny_images.arrays() | {"class_names": names})
  assert load(tmp_path).classes == 4


def test_a_folder_becomes_a_data_set_with_classes_by_name(tmp_path):
  source = sources.from_folder(tiny_images.save_folder(tmp_path / "f"))
  assert source.class_names == ("cat", "dog")
  prepare.prepare(source, name="pets", data_dir=tmp_path)
  data, expected = load(tmp_path, "pets"), tiny_images.arrays()["train_images"]
  np.testing.assert_array_equal(data.train.images, expected[:4])
  np.testing.assert_array_equal(data.test.images, expected[4:8])
  assert data.train.labels.tolist() == [0, 0, 1, 1]


def test_resizing_makes_mixed_sizes_equal(tmp_path):
  root = tiny_images.save_folder(tmp_path / "f")
  odd = tiny_images.encode(np.full((9, 12, 3), 7, np.uint8), "JPEG")
  (root / "train" / "cat" / "odd.JPG").write_bytes(odd)
  source = sources.from_folder(root, size=4)
  prepare.prepare(source, name="pets", data_dir=tmp_path)
  assert load(tmp_path, "pets").train.images.shape == (5, 4, 4, 3)


def test_mixed_sizes_in_a_folder_name_the_file(tmp_path):
  root = tiny_images.save_folder(tmp_path / "f")
  odd = root / "test" / "dog" / "odd.png"
  odd.write_bytes(tiny_images.encode(np.zeros((9, 12, 3), np.uint8)))
  with pytest.raises(UserError) as caught:
    prepare.prepare(sources.from_folder(root), name="p", data_dir=tmp_path)
  assert str(caught.value).startswith(f"{odd}: 9x12x3")


def _mixed_folder(root):
  """Photographs of two sizes, one grey; returns {file name: its contents}."""
  tiny_images.save_folder(root)
  odd = {
    "odd.jpg": tiny_images.encode(np.full((9, 12, 3), 7, np.uint8), "JPEG"),
    "odd.png": tiny_images.encode(np.full((3, 2), 7, np.uint8)),
  }
  for name, contents in odd.items():
    (root / "train" / "cat" / name).write_bytes(contents)
  return odd


def test_files_of_any_size_can_be_kept_as_they_are(tmp_path):
  odd = _mixed_folder(tmp_path / "f")
  source = sources.from_folder(tmp_path / "f")
  prepare.prepare(source, name="p", data_dir=tmp_path, keep_sizes=True)
  builder = images.open_builder("p", tmp_path, "test")
  records = images.Records(builder, "train")
  stored = [records[index].encoded for index in range(len(records))]
  assert set(odd.values()) < set(stored)
  files = sorted((tmp_path / "f" / "train").glob("*/*"))
  assert stored == [file.read_bytes() for file in files]


def test_kept_files_of_one_size_load_as_always(tmp_path):
  source = sources.from_npz(npz(tmp_path, tiny_images.encoded_as_png()))
  prepare.prepare(source, name="p", data_dir=tmp_path, keep_sizes=True)
  np.testing.assert_array_equal(
    load(tmp_path, "p").train.images, tiny_images.arrays()["train_images"]
  )


def test_a_damaged_file_is_not_kept(tmp_path):
  source = sources.from_npz(npz(tmp_path, _corrupt_file(7)))
  with pytest.raises(UserError, match="train image 7: not a readable image"):
    prepare.prepare(source, name="p", data_dir=tmp_path, keep_sizes=True)


def test_without_files_there_are_none_to_keep(tmp_path):
  folder = tiny_images.save_folder(tmp_path / "f")
  for source in (
    sources.from_npz(npz(tmp_path, tiny_images.arrays())),
    sources.from_folder(folder, size=4),
  ):
    with pytest.raises(UserError, match="`keep_sizes=True`: allowed only"):
      prepare.prepare(source, name="p", data_dir=tmp_path, keep_sizes=True)


@pytest.mark.parametrize(
  ("mode", "channels"),
  [*zip(("1", "L", "LA", "P", "RGB", "RGBA"), (1, 1, 1, 3, 3, 3), strict=True)],
)
def test_grey_modes_have_one_channel_and_others_three(mode, channels, tmp_path):
  Image.new(mode, (3, 2)).save(tmp_path / "a.png")
  encoded = (tmp_path / "a.png").read_bytes()
  assert pixels.decode(encoded, "a").shape == (2, 3, channels)


def test_sixteen_bits_are_refused_rather_than_cut(tmp_path):
  wide = tiny_images.encode(np.full((2, 2), 1000, np.uint16))
  with pytest.raises(UserError, match=r"a: 16 bits a channel .*; allowed: 8"):
    pixels.decode(wide, "a")


def _unlink_images(root):
  for file in (root / "train" / "cat").iterdir():
    file.unlink()
  return root / "train" / "cat"


def _truncate_image(root):
  file = root / "train" / "dog" / "1.png"
  file.write_bytes(file.read_bytes()[:60])
  return file


def _write_text(root):
  file = root / "test" / "dog" / "notes.txt"
  file.write_text("not an image")
  return file


def _remove_test(root):
  (root / "test").rename(root / "valid")
  return root / "test"


def _rename_class(root):
  (root / "test" / "dog").rename(root / "test" / "dogs")
  return root


@pytest.mark.parametrize(
  ("damage", "what"),
  [
    (_unlink_images, "no images in this class folder"),
    (_truncate_image, "not a readable image"),
    (_write_text, "not an image; allowed: .png, .jpg, .jpeg"),
    (_remove_test, "No such file or directory"),
    (_rename_class, "train alone has 1 (dog) and test alone has 1 (dogs)"),
  ],
)
def test_the_culprit_in_a_folder_is_named(tmp_path, damage, what):
  root = tiny_images.save_folder(tmp_path / "f")
  culprit = damage(root)
  with pytest.raises(UserError) as caught:
    prepare.prepare(sources.from_folder(root), name="p", data_dir=tmp_path)
  assert str(caught.value).startswith(f"{culprit}: ")
  assert what in str(caught.value)


def _pixel_change(**changes):
  return tiny_images.arrays() | changes


def _file_change(**changes):
  return tiny_images.encoded_as_png() | changes


def _corrupt_file(index, into=0):
  contents = tiny_images.encoded_as_png()
  start = contents["train_offsets"][index + (into < 0)] + into
  contents["train_bytes"] = contents["train_bytes"].copy()
  contents["train_bytes"][start : start + 4] = 0
  return contents


@pytest.mark.parametrize(
  ("contents", "culprit"),
  [
    (_pixel_change(test_labels=np.array([0, 1, 2, 0, 3, 0])),
     r"test_labels\[4\]: label 3; allowed: 0 to 2"),
    (_pixel_change(train_labels=np.arange(-1, 19) % 3 - 1),
     r"train_labels\[1\]: label -1"),
    (_pixel_change(train_labels=np.full(20, 10**12)),
     r"train_labels\[0\]: label 1000000000000; allowed: 0 to 19"),
    (_pixel_change(train_labels=np.zeros(3, int)),
     "train_labels has 3 labels for 20 images"),
    (_pixel_change(train_labels=np.zeros(20)), "train_labels is float64"),
    (_pixel_change(test_images=np.zeros((6, 4, 5, 3))),
     "test_images is float64"),
    (_pixel_change(test_images=np.zeros((6, 4, 5, 3), np.uint16)),
     "test_images is uint16; allowed: uint8"),
    (_pixel_change(test_images=np.zeros((6, 4, 5, 4), np.uint8)),
     r"test_images is \[6, 4, 5, 4\]"),
    (_pixel_change(test_images=np.zeros((6, 6, 4, 1), np.uint8)),
     r"test_images\[0\]: 6x4x3"),
    (_pixel_change(class_names=np.array(["a", "b"])),
     r"train_labels\[2\]: label 2; allowed: 0 to 1"),
    (_pixel_change(class_names=np.array(["a", "b", "a"])),
     "class_names: 'a' occurs 2 times"),
    (_pixel_change(class_names=np.array(["a", "", "b"])), "class_names: ''"),
    (_pixel_change(class_names=np.array(["a", None], object)),
     "class_names: unreadable .*allow_pickle=False"),
    (_corrupt_file(7), "train image 7: not a readable image"),
    (_file_change(test_offsets=np.array([0, 50, 40, 60, 70, 80, 90])),
     r"test_offsets\[2\]: allowed: ascending"),
    (_file_change(test_offsets=np.array([0, 1, 2, 3, 4, 5, 10**6])),
     r"test_offsets\[6\]: allowed: ascending"),
    (_file_change(test_offsets=np.array([-1, 1, 2, 3, 4, 5, 6])),
     r"test_offsets\[0\]: allowed: ascending"),
    ({"train_images": tiny_images.arrays()["train_images"]},
     "no array train_labels, only train_images"),
    ({"x": np.zeros(3)}, "no array train_images, only x"),
  ],
)  # fmt: skip
def test_the_culprit_in_an_archive_is_named(tmp_path, contents, culprit):
  with pytest.raises(UserError, match=culprit) as caught:
    prepare_npz(tmp_path, contents)
  assert str(caught.value).startswith(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("contents", [b"", b"junk", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_is_named(tmp_path, contents):
  (tmp_path / "a.npz").write_bytes(contents)
  with pytest.raises(UserError, match=r"`npz=.*a\.npz`: not a NumPy archive"):
    sources.from_npz(tmp_path / "a.npz")


def test_a_single_array_is_not_an_archive(tmp_path):
  np.save(tmp_path / "a.npy", np.zeros(3))
  with pytest.raises(UserError, match=r"not a NumPy archive .np.savez"):
    sources.from_npz(tmp_path / "a.npy")


def test_an_existing_data_set_is_never_overwritten(tmp_path):
  directory = prepare_npz(tmp_path, tiny_images.arrays())
  before = {file: file.read_bytes() for file in directory.iterdir()}
  with pytest.raises(UserError, match=f"`name=tiny`: {directory} exists"):
    prepare_npz(tmp_path, _pixel_change(test_labels=np.zeros(6, int)))
  assert before == {file: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.parametrize(
  ("name", "says"),
  [
    *((name, "allowed") for name in ("", "Cifar", "a/b", "../a", "1a", "a-b")),
    ("digits", ".* prepares itself"),
  ],
)
def test_a_name_that_no_other_data_set_may_have_is_refused(
  tmp_path, name, says
):
  source = sources.from_npz(npz(tmp_path, tiny_images.arrays()))
  with pytest.raises(UserError, match=f"`name={name}`: {says}"):
    prepare.prepare(source, name=name, data_dir=tmp_path)


def test_a_data_dir_that_is_a_file_is_named(tmp_path):
  source = sources.from_npz(npz(tmp_path, tiny_images.arrays()))
  with pytest.raises(UserError, match=r"`data_dir=.*a\.npz`: .*[Nn]ot a dir"):
    prepare.prepare(source, name="tiny", data_dir=tmp_path / "a.npz")


@pytest.mark.parametrize("into", [0, -20])
def test_a_failed_preparation_leaves_nothing_behind(tmp_path, into):
  # Of a file that is damaged behind its head one learns on the way.
  with pytest.raises(UserError, match="train image 7: not a readable image"):
    prepare_npz(tmp_path, _corrupt_file(7, into))
  assert not [*tmp_path.glob("tiny/*")]
  prepare_npz(tmp_path, tiny_images.arrays())
  assert len(load(tmp_path).train.labels) == tiny_images.TRAIN


def test_a_killed_preparation_is_not_loaded_and_can_be_repeated(tmp_path):
  path = npz(tmp_path, tiny_images.arrays())
  killed = subprocess.run(
    [sys.executable, "-c", KILLED, path, tmp_path], check=False
  )
  assert killed.returncode == -9
  assert list((tmp_path / "tiny").iterdir())
  with pytest.raises(UserError, match="`dataset=tiny`: not in"):
    load(tmp_path)
  prepare_npz(tmp_path, tiny_images.arrays())
  assert len(load(tmp_path).train.labels) == tiny_images.TRAIN


def test_progress_shows_all_items_with_and_without_a_terminal(monkeypatch):
  monkeypatch.setattr(prepare, "SECONDS_BETWEEN_LINES", 0)
  for is_terminal in (False, True):
    monkeypatch.setattr(
      sys.stderr, "isatty", lambda answer=is_terminal: answer, raising=False
    )
    assert list(prepare._with_progress(range(5), "five")) == list(range(5))


_run = functools.partial(drivers.run, "experiments.prepare_images")


def test_the_driver_prepares_a_data_set_that_loads(tmp_path):
  path = npz(tmp_path, tiny_images.arrays())
  result = _run(f"--npz={path}", "--name=tiny", f"--data_dir={tmp_path}")
  assert result.returncode == 0, result.stderr
  assert "train: 20 images" in result.stderr
  assert f"prepared {tmp_path / 'tiny' / '1.0.0'}" in result.stderr
  assert "incomplete" not in result.stderr
  assert len(load(tmp_path).test.labels) == tiny_images.TEST


def test_the_driver_keeps_sizes(tmp_path):
  _mixed_folder(tmp_path / "f")
  flags = [f"--folder={tmp_path / 'f'}", "--name=p", f"--data_dir={tmp_path}"]
  result = _run(*flags)
  assert result.returncode == 2
  assert "(--keep_sizes)" in result.stderr
  result = _run(*flags, "--keep_sizes")
  assert result.returncode == 0, result.stderr
  assert "train: 6 images" in result.stderr


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--npz=/none.npz"], "error: --npz=/none.npz: No such file or directory"),
    (
      ["--npz=a", "--folder=b"],
      "error: --npz, --folder, --csv, --arrow: exact",
    ),
    (["--npz=a", "--size=8"], "error: --size=8: not allowed with --npz"),
  ],
)
def test_the_driver_ends_mistakes_with_2_and_a_line(tmp_path, flags, message):
  result = _run("--name=tiny", f"--data_dir={tmp_path}", *flags)
  assert result.returncode == 2
  assert result.stderr.startswith(message)
  assert result.stderr.count("\n") == 1


def _first(archive, split, count):
  end = archive[f"{split}_offsets"][count]
  return {
    f"{split}_bytes": archive[f"{split}_bytes"][:end],
    f"{split}_offsets": archive[f"{split}_offsets"][: count + 1],
    f"{split}_labels": archive[f"{split}_labels"][:count],
  }


def test_real_photographs_become_a_data_set(data_folder, tmp_path):
  with np.load(pathlib.Path(data_folder) / "cifar10_jpeg.npz") as archive:
    contents = {
      "class_names": archive["class_names"],
      **_first(archive, "train", 300),
      **_first(archive, "test", 50),
    }
  prepare_npz(tmp_path, contents)
  data = load(tmp_path)
  assert data.train.images.shape == (300, 32, 32, 3)
  assert data.classes == 10
  np.testing.assert_array_equal(data.test.labels, contents["test_labels"])
  # The known means of CIFAR-10; 300 images come near.
  np.testing.assert_allclose(data.mean, [0.491, 0.482, 0.447], atol=0.03)
