"""Image files as they come from the field: what is read, and what is refused.

Nothing is ever cut, turned or left out without a word.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from nao_jax.data import images, pixels, prepare, sources, stream
from nao_jax.errors import UserError
from tests import tiny_images

# Of a PNG: what its kinds of pixels are called there, and their channels.
KINDS = {"grey": (0, 1), "colour": (2, 3), "grey+alpha": (4, 2), "rgba": (6, 4)}


def _png(kind, bits, value, size=4):
  """A PNG of one value, of any depth."""
  number, channels = KINDS[kind]
  sample = struct.pack(">H" if bits == 16 else ">B", value)
  row = b"\0" + sample * channels * size
  head = struct.pack(">IIBBBBB", size, size, bits, number, 0, 0, 0)

  def chunk(name, data):
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum

  return b"\x89PNG\r\n\x1a\n" + b"".join(
    [
      chunk(b"IHDR", head),
      chunk(b"IDAT", zlib.compress(row * size)),
      chunk(b"IEND", b""),
    ]
  )


def _tiff16():
  """A TIFF of 4 x 4 pixels in colour, 16 bits a channel; Pillow writes none."""
  strip, bits_at = 8, 8 + 4 * 4 * 3 * 2
  tags = [
    (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, bits_at), (259, 3, 1, 1),
    (262, 3, 1, 2), (273, 4, 1, strip), (277, 3, 1, 3), (278, 3, 1, 4),
    (279, 4, 1, bits_at - strip),
  ]  # fmt: skip
  entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
  return (
    struct.pack("<2sHI", b"II", 42, bits_at + 6)
    + struct.pack("<H", 200) * (4 * 4 * 3)
    + struct.pack("<3H", 16, 16, 16)
    + struct.pack("<H", len(tags))
    + entries
    + struct.pack("<I", 0)
  )


def _saved(image, kind="PNG", **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def _of(array, kind="TIFF"):
  return _saved(Image.fromarray(array), kind)


FRAMES = [Image.new("RGB", (4, 4), (n, 0, 0)) for n in (10, 200)]

WIDE = {
  **{f"png {kind}": _png(kind, 16, 200) for kind in KINDS},
  "tiff grey": _of(np.full((4, 4), 1000, np.uint16)),
  "tiff colour": _tiff16(),
  "tiff integer": _of(np.full((4, 4), 100_000, np.int32)),
  "tiff float": _of(np.full((4, 4), 0.5, np.float32)),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("function", [pixels.decode, pixels.read, pixels.look])
def test_more_than_8_bits_are_refused_by_name(name, function):
  bits = 32 if name in ("tiff integer", "tiff float") else 16
  with pytest.raises(UserError, match=f"^a.png: {bits} bits a channel"):
    function(WIDE[name], "a.png")


OTHERS = {
  "lab": (_saved(Image.new("LAB", (4, 4)), "TIFF"), "pixel mode LAB; allowed"),
  **{
    f"animated {kind}": (
      _saved(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:]),
      "2 pictures in one file",
    )
    for kind in ("GIF", "PNG", "TIFF")
  },
  "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not a"),
  "jpeg 2000": (_saved(FRAMES[0], "JPEG2000"), "not a readable image"),
  "empty": (b"", "not a readable image"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_one_image_of_a_known_kind_is_refused_by_name(name):
  encoded, message = OTHERS[name]
  for function in (pixels.look, pixels.decode):
    with pytest.raises(UserError, match=f"^a.png: {message}") as caught:
      function(encoded, "a.png")
    assert "0x" not in str(caught.value)


def _palette(transparent):
  image = Image.new("P", (4, 4), 1)
  image.putpalette([0, 0, 0, 10, 20, 30])
  options = {"transparency": bytes([0, 128])} if transparent else {}
  return _saved(image, **options)


# {name: (file, the colour of all its pixels, whether some is transparent)}
READ = {
  "png 1 bit": (_saved(Image.new("1", (4, 4), 1)), [255], False),
  "png grey": (_png("grey", 8, 7), [7], False),
  "png grey+alpha": (_png("grey+alpha", 8, 7), [7], True),
  "png rgba": (_png("rgba", 8, 7), [7, 7, 7], True),
  "png colour": (_png("colour", 8, 7), [7, 7, 7], False),
  "palette": (_palette(False), [10, 20, 30], False),
  "palette with alpha": (_palette(True), [10, 20, 30], True),
  "cmyk jpeg": (
    _saved(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "JPEG"),
    [0, 0, 0],
    False,
  ),
  "grey jpeg": (_saved(Image.new("L", (4, 4), 90), "JPEG"), [90], False),
  "bmp": (_saved(Image.new("RGB", (4, 4), (1, 2, 3)), "BMP"), [1, 2, 3], False),
  "gif": (_saved(Image.new("L", (4, 4), 9), "GIF"), [9, 9, 9], False),
  "tiff": (_of(np.full((4, 4, 3), 8, np.uint8)), [8, 8, 8], False),
  "two pictures of a camera": (
    _saved(
      Image.new("RGB", (4, 4), (200, 200, 200)),
      "MPO",
      save_all=True,
      append_images=[Image.new("RGB", (4, 4))],
    ),
    [200, 200, 200],
    False,
  ),
}


@pytest.mark.parametrize("name", READ)
def test_8_bits_of_any_kind_are_read_as_they_are(name):
  encoded, colour, transparent = READ[name]
  image = pixels.decode(encoded, "a")
  np.testing.assert_array_equal(image, np.full((4, 4, len(colour)), colour))
  assert pixels.look(encoded, "a") == (len(colour), transparent)


# What EXIF calls the eight ways to hold a camera; Pillow's words for what sets
# them right.
TURNS = {
  1: None,
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
WIDE_NOISE = np.random.RandomState(0).randint(0, 256, (3, 5, 3), np.uint8)


def _held(orientation, kind="PNG"):
  image = Image.fromarray(WIDE_NOISE)
  exif = image.getexif()
  exif[0x0112] = orientation
  return _saved(image, kind, exif=exif)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_are_upright_however_the_camera_was_held(orientation, kind):
  plain = Image.fromarray(
    pixels.decode(_saved(Image.fromarray(WIDE_NOISE), kind), "a")
  )
  turn = TURNS[orientation]
  expected = np.asarray(plain.transpose(turn) if turn is not None else plain)
  found = pixels.decode(_held(orientation, kind), "a")
  np.testing.assert_array_equal(found, expected)


def test_exif_that_is_damaged_turns_nothing():
  damaged = _saved(
    Image.fromarray(WIDE_NOISE), exif=b"Exif\0\0II*\0\xff\xff\xff"
  )
  np.testing.assert_array_equal(pixels.decode(damaged, "a"), WIDE_NOISE)


def _folder(root, files, classes=("cat", "dog")):
  """A folder whose classes all hold the same files, {name: contents}."""
  for split in ("train", "test"):
    for name in classes:
      folder = root / split / name
      folder.mkdir(parents=True)
      for file, contents in files.items():
        (folder / file).write_bytes(contents)
  return root


def _prepared(root, tmp_path, **options):
  source = sources.from_folder(root)
  prepare.prepare(source, name="set", data_dir=tmp_path, **options)
  return tmp_path


def _loaded(root, tmp_path):
  data_dir = _prepared(root, tmp_path)
  return images.load("set", data_dir=data_dir, validation_fraction=0, seed=0)


def test_images_are_upright_in_memory_and_in_a_stream(tmp_path):
  files = {f"{way}.png": _held(way) for way in (6, 8)}
  root = _folder(tmp_path / "f", files)
  upright = [pixels.decode(contents, "a") for contents in files.values()]
  data = _loaded(root, tmp_path / "memory")
  np.testing.assert_array_equal(data.train.images, 2 * upright)
  kept = _prepared(root, tmp_path / "stream", keep_sizes=True)
  config = stream.StreamConfig(size=5, workers=0)
  streamed = stream.open_stream("set", data_dir=kept, config=config)
  ((examples, _),) = streamed.test_batches(4)
  expected = [
    stream.transforms.centre_crop(Image.fromarray(x), 5) for x in upright
  ]
  np.testing.assert_array_equal(
    examples.images, 2 * [np.asarray(image) for image in expected]
  )


def test_grey_files_among_those_in_colour_become_colour(tmp_path, caplog):
  root = _folder(tmp_path / "f", {"0.png": _png("colour", 8, 7)})
  (root / "train" / "cat" / "0.png").write_bytes(_png("grey", 8, 9))
  data = _loaded(root, tmp_path)
  assert data.image_shape == (4, 4, 3)
  assert [image.max() for image in data.train.images] == [9, 7]
  assert "1 of 4 images are grey; they become colour" in caplog.text


def test_files_that_are_all_grey_stay_grey(tmp_path, caplog):
  root = _folder(tmp_path / "f", {"0.png": _png("grey", 8, 9)})
  data = _loaded(root, tmp_path)
  assert data.image_shape == (4, 4, 1)
  assert "grey" not in caplog.text


@pytest.mark.parametrize("keep_sizes", [False, True])
def test_transparency_is_left_out_with_a_word(tmp_path, caplog, keep_sizes):
  root = _folder(tmp_path / "f", {"0.png": _png("rgba", 8, 7)})
  _prepared(root, tmp_path, keep_sizes=keep_sizes)
  for split in ("train", "test"):
    assert f"set: {split}: 2 of 2 images have transparency" in caplog.text


@pytest.mark.parametrize("keep_sizes", [False, True])
@pytest.mark.parametrize("end", [0, 20, -30])
def test_all_files_that_cannot_be_read_are_named(tmp_path, end, keep_sizes):
  whole = tiny_images.encode(WIDE_NOISE)
  root = _folder(tmp_path / "f", {f"{n}.png": whole for n in range(3)})
  for name in ("cat/0.png", "dog/1.png", "dog/2.png"):
    (root / "train" / name).write_bytes(whole[:end])
  with pytest.raises(UserError) as caught:
    _prepared(root, tmp_path, keep_sizes=keep_sizes)
  train = root / "train"
  message = str(caught.value)
  assert message.startswith(f"{train}/cat/0.png: not a readable image")
  assert "3 of 6 images cannot be read: " in message
  assert f"{train}/dog/1.png, {train}/dog/2.png" in message
  assert not [*tmp_path.glob("set/*")]


GOOD = {"0.png": _png("colour", 8, 7)}
HIDDEN = [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_folders_are_no_classes(tmp_path, name):
  root = _folder(tmp_path / "f", GOOD, classes=("cat", "dog", name))
  (root / name).mkdir()
  (root / "train" / "cat" / name).mkdir()
  assert sources.from_folder(root).class_names == ("cat", "dog")


@pytest.mark.parametrize(
  "name", [".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"]
)
def test_files_of_systems_are_no_images(tmp_path, name, caplog):
  root = _folder(tmp_path / "f", GOOD)
  for folder in (root, root / "train", root / "train" / "cat"):
    (folder / name).write_bytes(b"\0\5")
  assert len(sources.from_folder(root).train.labels) == 2
  assert not caplog.text


def test_what_lies_beside_the_folders_is_left_out_with_a_word(tmp_path, caplog):
  root = _folder(tmp_path / "f", GOOD)
  (root / "valid").mkdir()
  (root / "train" / "labels.csv").write_text("0,cat")
  (root / "test" / "1.png").write_bytes(GOOD["0.png"])
  assert len(sources.from_folder(root).test.labels) == 2
  for folder, name in (
    ("", "valid"),
    ("/train", "labels.csv"),
    ("/test", "1.png"),
  ):
    assert f"{root}{folder}: left out what " in caplog.text
    assert f"(1): {name}" in caplog.text


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["train/cat/a/0.png", "train/dog/b/0.png"],
     "train/cat/a: a folder in a class folder (in all 2: cat/a, dog/b)"),
    (["test/cat/a.txt", "test/cat/b.webm", "test/dog/c"],
     "test/cat/a.txt: not an image; allowed: .png, .jpg, .jpeg, so convert, or"
     " take out, 3 of 5 files: cat/a.txt, cat/b.webm, dog/c"),
  ],
)  # fmt: skip
def test_what_else_class_folders_hold_is_named_and_counted(
  tmp_path, names, message
):
  root = _folder(tmp_path / "f", GOOD)
  for name in names:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b"")
  with pytest.raises(UserError) as caught:
    sources.from_folder(root)
  assert str(caught.value).startswith(f"{root}/{message}")


def test_classes_that_one_part_alone_has_are_named_and_counted(tmp_path):
  root = _folder(tmp_path / "f", GOOD, classes=[*"abcdefgh"])
  (root / "test" / "a").rename(root / "test" / "z")
  with pytest.raises(
    UserError, match=r"train alone has 1 \(a\) and test alone"
  ):
    sources.from_folder(root)
  for name in "abcdefg":
    (root / "train" / name).rename(root / name)
  with pytest.raises(UserError, match=r"has 7 \(b, c, d, e, f and 2 more\)"):
    sources.from_folder(root)


def _archive(tmp_path, labels, names=None, test=None):
  labels = np.asarray(labels)
  test = labels if test is None else np.asarray(test)
  contents = {
    "train_images": np.zeros((len(labels), 4, 4), np.uint8),
    "train_labels": labels,
    "test_images": np.zeros((len(test), 4, 4), np.uint8),
    "test_labels": test,
  }
  if names is not None:
    contents["class_names"] = np.array(names)
  return tiny_images.save_npz(tmp_path / "a.npz", contents)


def test_one_class_is_no_classification(tmp_path):
  message = "1 class only, .*; a classification needs 2 or more classes"
  with pytest.raises(UserError, match=message):
    sources.from_folder(_folder(tmp_path / "f", GOOD, classes=["cat"]))
  for labels, names in (([0, 0], None), ([1, 1], ["a", "b"]), ([0], ["a"])):
    with pytest.raises(UserError, match=message):
      sources.from_npz(_archive(tmp_path, labels, names))


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    ([*range(1, 11)] * 2,
     "no image of class 0, though labels go from 1 to 10; number the classes"
     " from 0 without gaps, or give class_names"),
    ([0, 2, 2, 5, 5, 5], "no image of class 1, 3, 4, though labels go from 0"),
    (np.int64([0, -1]), r"train_labels\[1\]: label -1; allowed: 0 to 1"),
    (np.uint64([0, 2**64 - 1]),
     r"train_labels\[1\]: label 18446744073709551615; allowed: 0 to 1"),
    (np.uint64([0, 2**63]), r"train_labels\[1\]: label 9223372036854775808"),
    ([0.0, 0.5], "train_labels is float64"),
    ([[1, 0], [0, 1]], r"train_labels is int64 \[2, 2\]"),
  ],
)  # fmt: skip
def test_labels_that_are_no_numbers_of_classes_are_refused_by_name(
  tmp_path, labels, message
):
  with pytest.raises(UserError, match=f"a.npz: .*{message}"):
    sources.from_npz(_archive(tmp_path, labels, test=[0, 1]))


def test_classes_that_are_named_may_be_empty_with_a_word(tmp_path, caplog):
  names = ["nothing", *"abcdefg"]
  source = sources.from_npz(_archive(tmp_path, [1, 2, 3], names, [1, 1]))
  assert source.class_names == tuple(names)
  train = "no training image of 5 of 8 classes: nothing, d, e, f, g"
  test = "no test image of 7 of 8 classes: nothing, b, c, d, e and 2 more"
  assert train in caplog.text
  assert test in caplog.text
