"""Small image data for tests: arrays, archives, folders and data sets."""

import io
import json

import numpy as np
from PIL import Image
import pytest

from nao_jax.data import digits, images, prepare, sources

TRAIN, TEST, CLASSES, SHAPE = 20, 6, 3, (6, 5, 3)


def few_digits(data_dir):
  """Prepares 300 digits to train with, and 100 to test; returns the folder.

  Runs that prepare them themselves get all, and take as much longer.
  """
  whole = digits.datasets.load_digits()
  for name in ("images", "target"):
    whole[name] = whole[name][:400]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(digits.datasets, "load_digits", lambda: whole)
    patch.setattr(digits, "TEST_IMAGES_PER_CLASS", 10)
    images.open_builder("digits", data_dir, "test")
  return data_dir


def arrays() -> dict[str, np.ndarray]:
  """An archive of pixels in which no two images are equal."""
  noise = np.random.RandomState(1)
  return {
    "train_images": noise.randint(0, 256, (TRAIN, *SHAPE), np.uint8),
    "train_labels": np.arange(TRAIN) % CLASSES,
    "test_images": noise.randint(0, 256, (TEST, *SHAPE), np.uint8),
    "test_labels": np.arange(TEST) % CLASSES,
  }


def noise(*counts: int) -> images.ImageData:
  """Random images of three classes, 8 pixels wide, so many in each part."""
  rng = np.random.default_rng(0)

  def draw(count):
    pixels = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
    labels = rng.integers(0, 3, count).astype(np.int32)
    return images.Examples(pixels, labels)

  mean, std = np.float32([0.5]), np.float32([0.3])
  return images.ImageData("noise", 3, *map(draw, counts), mean, std)


def encode(image: np.ndarray, format_: str = "PNG") -> bytes:
  """An image as the contents of a file."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format_)
  return buffer.getvalue()


def encoded_arrays(files: dict[str, list[bytes]], labels) -> dict:
  """The archive of files instead of pixels."""
  result = {}
  for split in ("train", "test"):
    sizes = [len(file) for file in files[split]]
    result |= {
      f"{split}_bytes": np.frombuffer(b"".join(files[split]), np.uint8),
      f"{split}_offsets": np.cumsum([0, *sizes]),
      f"{split}_labels": np.asarray(labels[split]),
    }
  return result


def encoded_as_png() -> dict[str, np.ndarray]:
  """`arrays` as an archive of PNG files: no pixel changes."""
  pixels = arrays()
  files = {
    split: [encode(image) for image in pixels[f"{split}_images"]]
    for split in ("train", "test")
  }
  labels = {split: pixels[f"{split}_labels"] for split in files}
  return encoded_arrays(files, labels)


def save_npz(path, contents: dict):
  """Writes an archive; returns its path."""
  np.savez(path, **contents)
  return path


def save_folder(root, images_per_class: int = 2):
  """Writes FOLDER/{train,test}/{cat,dog}/*.png; returns FOLDER."""
  images = iter(arrays()["train_images"])
  for split in ("train", "test"):
    for name in ("cat", "dog"):
      folder = root / split / name
      folder.mkdir(parents=True)
      for number in range(images_per_class):
        (folder / f"{number}.png").write_bytes(encode(next(images)))
  return root


def prepare_tiny(tmp_path, data_dir, name: str = "tiny"):
  """Makes a data set of `arrays`; returns its directory."""
  source = sources.from_npz(save_npz(tmp_path / "tiny.npz", arrays()))
  return prepare.prepare(source, name=name, data_dir=data_dir)


def save_arrow(folder, files: list[bytes], labels, names, kind: str = "Image"):
  """Writes what `datasets` 5 does by save_to_disk, in two files."""
  import pyarrow as pa

  folder.mkdir(parents=True)
  image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
  schema = pa.schema([("label", pa.int64()), ("picture", image)])
  arrows, half = [], len(files) // 3
  for number, part in enumerate((slice(half), slice(half, None))):
    arrows.append(f"data-{number:05}-of-00002.arrow")
    columns = {
      "label": labels[part],
      "picture": [{"bytes": file, "path": None} for file in files[part]],
    }
    table = pa.table(columns, schema=schema)
    with pa.ipc.new_stream(str(folder / arrows[-1]), schema) as writer:
      writer.write_table(table)
  features = {
    "label": {"names": list(names), "_type": "ClassLabel"},
    "picture": {"_type": kind},
  }
  state = {
    "_data_files": [{"filename": name} for name in arrows],
    "_indices_data_files": None,
  }
  info = json.dumps({"features": features})
  (folder / "dataset_info.json").write_text(info)
  (folder / "state.json").write_text(json.dumps(state))
