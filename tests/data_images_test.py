import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from nao_jax.data import catalogue, images
from nao_jax.errors import UserError
from tests import tiny_images


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp("data")
  tiny_images.prepare_tiny(root, root)
  return root


@pytest.fixture
def own_data_dir(data_dir, tmp_path):
  """A copy that a test may damage."""
  return shutil.copytree(data_dir, tmp_path / "data")


def load(data_dir, name="tiny", validation_fraction=0.25, seed=0):
  return images.load(
    name, data_dir=data_dir, validation_fraction=validation_fraction, seed=seed
  )


def _rows(part):
  """Each image as a number in the whole training set; all are different."""
  everything = tiny_images.arrays()["train_images"]
  same = (part.images[:, None] == everything).all((2, 3, 4))
  assert (same.sum(axis=1) == 1).all()
  return same.argmax(axis=1)


def test_training_and_validation_part_cover_the_training_set_once(data_dir):
  data = load(data_dir)
  train, validation = _rows(data.train), _rows(data.validation)
  assert len(validation) == 5
  assert sorted([*train, *validation]) == list(range(tiny_images.TRAIN))


def test_labels_stay_with_their_images(data_dir):
  data = load(data_dir)
  for part in (data.train, data.validation):
    labels = tiny_images.arrays()["train_labels"][_rows(part)]
    np.testing.assert_array_equal(part.labels, labels)
    assert part.labels.dtype == np.int32


def test_the_test_part_is_the_test_set_whatever_the_seed(data_dir):
  for seed in (0, 1):
    test = load(data_dir, seed=seed).test
    np.testing.assert_array_equal(
      test.images, tiny_images.arrays()["test_images"]
    )
    np.testing.assert_array_equal(
      test.labels, tiny_images.arrays()["test_labels"]
    )


def test_the_same_seed_gives_the_same_split_and_another_seed_another(data_dir):
  first, again, other = (_rows(load(data_dir, seed=s).train) for s in (3, 3, 4))
  np.testing.assert_array_equal(first, again)
  assert set(first) != set(other)


def test_the_split_of_a_seed_never_changes(data_dir):
  assert _rows(load(data_dir, seed=0).validation).tolist() == [1, 8, 10, 18, 19]


def test_a_fraction_of_zero_keeps_everything_for_training(data_dir):
  data = load(data_dir, validation_fraction=0)
  np.testing.assert_array_equal(_rows(data.train), np.arange(tiny_images.TRAIN))
  assert data.validation.images.shape == (0, *tiny_images.SHAPE)


def test_moments_are_those_of_the_training_part_alone(data_dir):
  data = load(data_dir)
  scaled = data.train.images.astype(np.float64) / 255
  np.testing.assert_allclose(data.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(data.std, scaled.std((0, 1, 2)), rtol=1e-6)
  assert data.mean.dtype == data.std.dtype == np.float32


def test_a_constant_channel_can_be_divided_by():
  constant = np.full((4, 2, 2, 1), 51, np.uint8)
  mean, std = images._moments(constant)
  np.testing.assert_allclose(mean, [0.2], rtol=1e-6)
  assert std.tolist() == [1]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    *(
      ({"validation_fraction": fraction}, r"`validation_fraction=.*allowed")
      for fraction in (-0.1, 1.0, float("nan"))
    ),
    ({"validation_fraction": 0.99}, r"`validation_fraction=0\.99`: leaves"),
    ({"seed": -1}, "`seed=-1`"),
  ],
)
def test_a_split_that_cannot_be_made_is_refused(data_dir, given, message):
  with pytest.raises(UserError, match=message):
    load(data_dir, **given)


def test_an_unknown_data_set_lists_those_there_and_how_to_get_it(data_dir):
  with pytest.raises(UserError) as caught:
    load(data_dir, name="cifar10")
  message = str(caught.value)
  assert "`dataset=cifar10`" in message
  assert "available: digits, tiny" in message
  assert "experiments.prepare_images --npz=FILE --name=cifar10" in message
  assert "\n" not in message


def test_the_newest_version_is_read(own_data_dir):
  tiny = own_data_dir / "tiny"
  for version in ("1.9.0", "1.10.0"):
    shutil.copytree(tiny / "1.0.0", tiny / version)
  assert catalogue.find("tiny", own_data_dir).name == "1.10.0"


def test_configurations_are_found_by_their_path(own_data_dir):
  shutil.copytree(own_data_dir / "tiny", own_data_dir / "many" / "small")
  assert catalogue.names(own_data_dir) == ["many/small", "tiny"]
  assert catalogue.find("many/small", own_data_dir).name == "1.0.0"


def test_an_unfinished_directory_is_not_a_data_set(own_data_dir):
  tiny = own_data_dir / "tiny"
  (tiny / "1.0.0").rename(tiny / "incomplete.ABC123_1.0.0")
  assert catalogue.names(own_data_dir) == []
  with pytest.raises(UserError, match="`dataset=tiny`: not in"):
    load(own_data_dir)


@pytest.mark.parametrize(
  "damage",
  [
    lambda path: next(path.glob("*train*")).unlink(),
    lambda path: next(path.glob("*test*")).write_bytes(bytes(70_000)),
    lambda path: (path / "features.json").unlink(),
    lambda path: (path / "dataset_info.json").write_text("{"),
  ],
)
def test_a_damaged_data_set_is_named(own_data_dir, damage):
  directory = own_data_dir / "tiny" / "1.0.0"
  damage(directory)
  with pytest.raises(UserError) as caught:
    load(own_data_dir)
  assert str(caught.value).startswith(f"{directory}: damaged")


def test_a_format_without_random_access_is_refused(own_data_dir):
  info = own_data_dir / "tiny" / "1.0.0" / "dataset_info.json"
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  with pytest.raises(UserError, match=r"tfrecord; allowed: array_record"):
    load(own_data_dir)


class _Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set that somebody else prepared."""

  VERSION = tfds.core.Version("1.0.0")
  code_path = None
  name = "foreign"

  def __init__(self, splits, label=None, **kwargs):
    self._splits = splits
    self._label = label or tfds.features.ClassLabel(num_classes=2)
    super().__init__(file_format="array_record", **kwargs)

  def _info(self):
    image = tfds.features.Image(shape=(None, None, None))
    features = {"image": image, "label": self._label}
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(examples)
      for split, examples in self._splits.items()
    }

  def _generate_examples(self, examples):
    for index, (image, label) in enumerate(examples):
      yield index, {"image": image, "label": label}


def write_foreign(data_dir, splits, label=None):
  """Makes a data set `foreign` of {split: [(encoded image, label)]}."""
  catalogue.write(_Foreign(splits, label, data_dir=data_dir))


def _load_foreign(tmp_path, splits, label=None, **kwargs):
  write_foreign(tmp_path, splits, label)
  return images.load(
    "foreign", data_dir=tmp_path, validation_fraction=0, seed=0, **kwargs
  )


def _png(height=4, width=4):
  return tiny_images.encode(np.zeros((height, width, 3), np.uint8))


GOOD = [(_png(), 0), (_png(), 1)]
GREY = tiny_images.encode(np.full((4, 4), 100, np.uint8))


def test_a_data_set_prepared_by_others_is_read(tmp_path):
  data = _load_foreign(tmp_path, {"train": GOOD, "test": GOOD})
  assert data.classes == 2
  assert data.train.labels.tolist() == [0, 1]


def test_another_split_can_be_the_test_part(tmp_path):
  splits = {"train": GOOD, "validation": [(_png(), 1)], "test": [(_png(), -1)]}
  data = _load_foreign(tmp_path, splits, test_split="validation")
  assert data.test.labels.tolist() == [1]


def test_a_test_split_that_is_not_there_is_named(tmp_path):
  splits = {"train": GOOD, "validation": GOOD}
  with pytest.raises(UserError, match="no split `other`, only train, valid"):
    _load_foreign(tmp_path, splits, test_split="other")


@pytest.mark.parametrize(
  ("splits", "culprit"),
  [
    ({"train": [*GOOD, (_png(5), 0)], "test": GOOD}, "train image 2: 5x4x3"),
    ({"train": GOOD, "test": [(_png(5), 0)]}, "test image 0: 5x4x3"),
    ({"train": GOOD, "test": [(_png(), -1)]}, "test image 0: label -1"),
    ({"train": [*GOOD, (b"junk", 0)], "test": GOOD}, "train image 2: not a"),
    ({"train": GOOD}, "no split `test`"),
  ],
)
def test_the_culprit_in_a_data_set_of_others_is_named(
  tmp_path, splits, culprit
):
  with pytest.raises(UserError, match=culprit):
    _load_foreign(tmp_path, splits)


@pytest.mark.parametrize(
  ("train", "test"),
  [
    ([*GOOD, (GREY, 0)], GOOD),
    ([(GREY, 0), *GOOD], GOOD),
    (GOOD, [(GREY, 0), (GREY, 1)]),
    ([(GREY, 0), (GREY, 1)], GOOD),
  ],
)
def test_grey_images_among_those_in_colour_become_colour(
  tmp_path, caplog, train, test
):
  data = _load_foreign(tmp_path, {"train": train, "test": test})
  assert data.image_shape == (4, 4, 3)
  assert data.test.images.shape == (2, 4, 4, 3)
  assert len(data.mean) == 3
  for part, examples in ((data.train, train), (data.test, test)):
    for image, (encoded, _) in zip(part.images, examples, strict=True):
      assert (image == (100 if encoded == GREY else 0)).all()
  grey = sum(encoded == GREY for encoded, _ in (*train, *test))
  warned = f"{grey} of {len(train) + len(test)} images are grey; they become"
  assert warned in caplog.text


def test_images_that_are_all_grey_stay_grey(tmp_path, caplog):
  grey = [(GREY, 0), (GREY, 1)]
  data = _load_foreign(tmp_path, {"train": grey, "test": grey})
  assert data.image_shape == (4, 4, 1)
  assert not caplog.text


@pytest.mark.parametrize(
  ("train", "names", "message"),
  [
    ([(_png(), 0)] * 2, ["only"], "1 class only; .* 2 or more classes"),
    ([(_png(), 1)] * 2, ["a", "b", "c"], "1 class only, b; .* 2 or more"),
  ],
)
def test_one_class_is_no_classification(tmp_path, train, names, message):
  label = tfds.features.ClassLabel(names=names)
  with pytest.raises(UserError, match=message):
    _load_foreign(tmp_path, {"train": train, "test": train}, label)


def test_classes_without_a_training_image_are_named(tmp_path, caplog):
  label = tfds.features.ClassLabel(names=[*"abcd"])
  examples = [(_png(), 1), (_png(), 3)]
  _load_foreign(tmp_path, {"train": examples, "test": examples}, label)
  assert "no training image of 2 of 4 classes: a, c" in caplog.text


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_images_of_another_type_than_bytes_are_refused(tmp_path, kind):
  write_foreign(tmp_path, {"train": GOOD, "test": GOOD})
  features = tmp_path / "foreign" / "1.0.0" / "features.json"
  document = json.loads(features.read_text())
  image = document["featuresDict"]["features"]["image"]["image"]
  image |= {"dtype": kind.__name__, "shape": {"dimensions": ["4", "4", "1"]}}
  features.write_text(json.dumps(document))
  with pytest.raises(UserError, match=f"images are {kind.__name__}; allowed"):
    images.load("foreign", data_dir=tmp_path, validation_fraction=0, seed=0)


def test_transparency_of_a_data_set_of_others_is_left_out_with_a_word(
  tmp_path, caplog
):
  clear = tiny_images.encode(np.full((4, 4, 4), 9, np.uint8))
  examples = [(clear, 0), (clear, 1)]
  write_foreign(tmp_path, {"train": examples, "test": examples})
  features = tmp_path / "foreign" / "1.0.0" / "features.json"
  document = json.loads(features.read_text())
  image = document["featuresDict"]["features"]["image"]["image"]
  image["shape"] = {"dimensions": ["4", "4", "4"]}
  features.write_text(json.dumps(document))
  data = images.load(
    "foreign", data_dir=tmp_path, validation_fraction=0, seed=0
  )
  assert data.image_shape == (4, 4, 3)
  assert "4 channels; transparency is left out" in caplog.text


def test_a_data_set_without_classes_is_refused(tmp_path):
  number = tfds.features.Scalar(np.int64)
  with pytest.raises(UserError, match="has an `image` and a class `label`"):
    _load_foreign(tmp_path, {"train": GOOD, "test": GOOD}, number)
