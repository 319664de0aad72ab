import dataclasses
import importlib.util
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.data import images, prepare, sources
from nao_jax.data.stream import StreamConfig
from nao_jax.errors import UserError
from nao_jax.networks import onnx_graph
from nao_jax.runs import checkpoint
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.spaces import cnn
from nao_jax.tasks import image_inference, image_recipes, image_training
from nao_jax.training.recipe import TrainConfig
from tests import running, small_trainings, tiny_images
from tests.small_trainings import IMAGES as CONFIG
from tests.small_trainings import history
from tests.stand_ins import Killed

STEPS = CONFIG.train.epochs * (1437 // CONFIG.train.batch)


@pytest.fixture(scope="module", autouse=True)
def quick():
  with small_trainings.quick():
    yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
  """A training that has run to its end: its workdir and its result."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  result = running.train_images(
    CONFIG, workdir=workdir, data_dir=data_dir, devices=1
  )
  return workdir, result


def test_the_result_says_how_good_the_network_is(finished):
  workdir, result = finished
  assert result["steps"] == STEPS
  assert result["test"]["examples"] == 360
  assert 0 < result["test"]["top_5_error"] < result["test"]["error"] < 0.9
  assert history(workdir)[0]["learning_rate"] == pytest.approx(0.1)


def test_evaluation_gives_the_result_again(finished, data_dir):
  workdir, result = finished
  measured = image_inference.evaluate(workdir, data_dir=data_dir, devices=1)
  assert measured == result["test"]
  # Three do not share a batch of 128 evenly.
  three = image_inference.evaluate(workdir, data_dir=data_dir, devices=3)
  assert three["error"] == measured["error"]
  with pytest.raises(UserError, match="`devices=5`: allowed: 1 to 4"):
    image_inference.evaluate(workdir, data_dir=data_dir, devices=5)


@pytest.mark.parametrize(
  ("changes", "arguments", "said"),
  [
    ({}, {}, ""),
    ({"test": "x"}, {}, "the test part changed since"),
    ({"train": "x"}, {}, "the training part changed since"),
    ({"test": "x"}, {"split": "other"}, ""),
    ({"train": "x"}, {"split": "other"}, "the training part changed since"),
    ({}, {"dataset": "renamed"}, ""),
    ({"test": "x"}, {"dataset": "mine"}, "not the data set that the network"),
  ],
)
def test_evaluation_says_if_the_data_are_not_those_of_the_training(
  finished, data_dir, monkeypatch, caplog, changes, arguments, said
):
  def opened(config, folder):
    config = dataclasses.replace(config, dataset="digits", test_split="test")
    data = image_training.open_data(config, folder)
    return dataclasses.replace(
      data, digest=dataclasses.replace(data.digest, **changes)
    )

  monkeypatch.setattr(image_inference, "open_data", opened)
  image_inference.evaluate(
    finished[0], data_dir=data_dir, devices=1, **arguments
  )
  warned = [x.getMessage() for x in caplog.records if x.levelname == "WARNING"]
  assert len(warned) == bool(said)
  assert said in "".join(warned)


def test_evaluation_says_if_the_training_kept_no_digest(
  finished, data_dir, tmp_path, caplog
):
  workdir = shutil.copytree(finished[0], tmp_path / "old")
  config = json.loads((workdir / "config.json").read_text())
  for part in ("train", "test"):
    del config["settings"][f"data.{part}"]
  (workdir / "config.json").write_text(json.dumps(config))
  measured = image_inference.evaluate(workdir, data_dir=data_dir, devices=1)
  assert measured == finished[1]["test"]
  assert "digits: the training kept no digest of its data" in caplog.text


def test_evaluation_on_other_images_than_it_was_trained_on_is_refused(
  finished, tmp_path
):
  tiny_images.prepare_tiny(tmp_path, tmp_path / "data")
  with pytest.raises(UserError, match=r"`dataset=tiny`: images of \(6, 5, 3\)"):
    image_inference.evaluate(
      finished[0], data_dir=tmp_path / "data", dataset="tiny", devices=1
    )


def test_an_exported_network_gives_the_same_logits(
  finished, data_dir, tmp_path
):
  file = tmp_path / "new" / "folder" / "network.jax"
  image_inference.export(finished[0], file)
  exported = jax.export.deserialize(bytearray(file.read_bytes()))
  test = images.load(
    "digits", data_dir=data_dir, validation_fraction=0.0, seed=0
  ).test
  training, state = image_inference.load(finished[0])
  expected = image_inference.classify(
    state, test.images, *training.normaliser, trainer=training.trainer
  )
  neighbour = file.with_suffix(".partial")
  neighbour.write_text("precious")
  image_inference.export(finished[0], file.with_name("other.jax"))
  assert neighbour.read_text() == "precious"
  for count in (1, 360):  # Any number of images.
    logits = exported.call(test.images[:count])
    np.testing.assert_allclose(logits, expected[:count], atol=1e-4)
  with pytest.raises(UserError, match=r"network.jax`: exists"):
    image_inference.export(finished[0], file)
  with pytest.raises(UserError, match=r"network.bin`: no known ending; .*onnx"):
    image_inference.export(finished[0], file.with_name("network.bin"))


def test_an_onnx_file_gives_the_same_logits(finished, tmp_path, caplog):
  onnxruntime = pytest.importorskip("onnxruntime")
  file = tmp_path / "network.onnx"
  caplog.set_level("INFO")
  image_inference.export(finished[0], file)
  assert "logits differ from those of jax by" in caplog.text
  (images,) = onnxruntime.InferenceSession(file).get_inputs()
  assert (images.name, images.shape[1:]) == ("images", [8, 8, 1])


@pytest.mark.parametrize(
  ("translate", "said"),
  [
    (lambda *_: jnp.sort, "not know these operations of the network: .*sort"),
    (lambda logits, *_: lambda x: logits(x) + 1, "differ from those of jax by"),
  ],
)
def test_an_onnx_file_that_would_be_wrong_is_not_written(
  finished, tmp_path, monkeypatch, translate, said
):
  pytest.importorskip("onnxruntime")
  found = onnx_graph.translate
  monkeypatch.setattr(
    onnx_graph,
    "translate",
    lambda function, *rest: found(translate(function), *rest),
  )
  with pytest.raises(UserError, match=said):
    image_inference.export(finished[0], tmp_path / "network.onnx")
  assert not [*tmp_path.iterdir()]


def test_what_an_export_needs_is_named_first(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match="pip install onnx"):
    image_inference.export(tmp_path / "none", tmp_path / "network.onnx")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
  """A data set of image files of many sizes, dark ones and bright ones."""
  root = tmp_path_factory.mktemp("photographs")
  rng = np.random.default_rng(0)
  for split, count in (("train", 10), ("test", 3)):
    for label, low in (("bright", 150), ("dark", 0)):
      folder = root / split / label
      folder.mkdir(parents=True)
      for number in range(count):
        shape = (*rng.integers(9, 15, 2), 3)
        pixels = rng.integers(low, low + 100, shape).astype(np.uint8)
        file = tiny_images.encode(pixels, "JPEG")
        (folder / f"{number}.jpg").write_bytes(file)
  prepare.prepare(
    sources.from_folder(root), name="photos", data_dir=root, keep_sizes=True
  )
  return root


def test_a_stopped_training_on_a_stream_ends_with_the_same_bits(
  photographs, tmp_path, monkeypatch
):
  config = dataclasses.replace(
    CONFIG,
    dataset="photos",
    input="stream",
    train=TrainConfig(epochs=3, batch=4, drop_path_keep=0.9),
    stream=StreamConfig(size=8, workers=0),
  )
  working = dataclasses.replace(config, stream=StreamConfig(8, workers=2))
  every = CheckpointConfig(steps=3)
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  arguments = {"data_dir": photographs, "devices": 1, "checkpoints": every}
  result = running.train_images(config, workdir=whole, **arguments)
  assert result["steps"] == 15
  assert result["test"]["examples"] == 6
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "save", _save_until(checkpoint.save, 9))
    with pytest.raises(Killed):
      running.train_images(working, workdir=stopped, **arguments)
  assert running.train_images(working, workdir=stopped, **arguments) == result
  training, _ = image_inference.load(whole)
  small_trainings.assert_same_bits(training, whole, stopped)
  measured = image_inference.evaluate(whole, data_dir=photographs, devices=1)
  assert measured == result["test"]


def _save_until(save, last):
  def mortal(directory, tree):
    save(directory, tree)
    if tree[0].step == last:
      raise Killed

  return mortal


def test_validation_images_are_measured_after_each_epoch(data_dir, tmp_path):
  config = dataclasses.replace(CONFIG, validation_fraction=0.2)
  running.train_images(
    config, workdir=tmp_path / "run", data_dir=data_dir, devices=1
  )
  reports = history(tmp_path / "run")
  errors = [report["validation_error"] for report in reports]
  assert len(errors) == CONFIG.train.epochs
  assert all(0 <= error <= 1 for error in errors)


def test_a_search_workdir_is_no_training(tmp_path):
  settings = {"search.rounds": 3}
  (tmp_path / "config.json").write_text(json.dumps({"settings": settings}))
  with pytest.raises(UserError, match="not of a search"):
    image_inference.load(tmp_path)
  with pytest.raises(UserError, match="no run there"):
    image_inference.load(tmp_path / "nothing")


# (epochs, batch, weight decay, dropout, drop-path keep, channels, cells per
# stage).
PUBLISHED = {
  "naonet_cifar10": (600, 128, 5e-4, 0.4, 0.7, 128, 6),
  "naonet_cifar100": (600, 128, 5e-4, 0.2, 0.6, 128, 6),
  "nao_ws_cifar10": (630, 144, 4e-4, 0.2, 0.6, 36, 5),
  "naonet_a_36_cifar10": (600, 128, 3e-4, 0.4, 0.8, 36, 6),
  "naonet_b_36_cifar10": (600, 128, 3e-4, 0.4, 0.8, 36, 6),
  "naonet_a_128_cifar10": (600, 128, 5e-4, 0.4, 0.7, 128, 6),
  "naonet_v2_36_cifar10": (600, 128, 5e-4, 0.4, 0.8, 36, 6),
  "naonet_a_imagenet": (250, 128, 3e-5, 0.0, 1.0, 42, 4),
  "naonet_v2_imagenet": (250, 128, 3e-5, 0.0, 1.0, 52, 4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_the_published_ones(name):
  config = image_recipes.RECIPES[name]
  assert PUBLISHED[name] == (
    config.train.epochs,
    config.train.batch,
    config.sgd.weight_decay,
    config.network.dropout,
    config.train.drop_path_keep,
    config.network.channels,
    config.network.cells_per_stage,
  )
  assert config.network.auxiliary
  cnn.resolve(config.arch)
  size = config.stream.size if config.input == "stream" else 32
  config.network.check(size)


# (arch, schedule, first and last learning rate, Nesterov, cutout, label
# smoothing, standardize).
OPTIMISERS = {
  "naonet_cifar10": ("NAONet", "cosine", 0.024, 0.0, False, 16, 0.0, True),
  "naonet_cifar100": ("NAONet", "cosine", 0.024, 0.0, False, 16, 0.0, True),
  "nao_ws_cifar10": ("NAO-WS", "restarts", 0.05, 1e-4, True, 0, 0.0, False),
  "naonet_a_36_cifar10": (
    *("NAONet-A", "cosine", 0.025, 0.0, False, 16, 0.0, False),
  ),
  "naonet_b_36_cifar10": (
    *("NAONet-B", "cosine", 0.025, 0.0, False, 16, 0.0, False),
  ),
  "naonet_a_128_cifar10": (
    *("NAONet-A", "cosine", 0.025, 0.0, False, 16, 0.0, False),
  ),
  "naonet_v2_36_cifar10": (
    *("NAONet-V2", "cosine", 0.025, 0.0, False, 16, 0.0, False),
  ),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_of_recipes_are_the_published_ones(name):
  config = image_recipes.RECIPES[name]
  assert OPTIMISERS[name] == (
    config.arch,
    config.sgd.schedule,
    config.sgd.learning_rate,
    config.sgd.end_learning_rate,
    config.sgd.nesterov,
    config.augment.cutout,
    config.train.label_smoothing,
    config.standardize,
  )
  assert (config.sgd.momentum, config.sgd.clip) == (0.9, 5.0)
  assert config.train.auxiliary_weight == 0.4


def test_imagenet_recipes_decay_by_3_percent_an_epoch():
  for name in ("naonet_a_imagenet", "naonet_v2_imagenet"):
    config = image_recipes.RECIPES[name]
    rates = [float(config.sgd.by_epoch(250)(epoch)) for epoch in (0, 1)]
    assert rates == pytest.approx([0.1, 0.097])
    assert config.train.label_smoothing == 0.1
    assert config.network.stem == "imagenet"
    assert config.test_split == "validation"


def test_four_devices_train_on_a_stream_like_one(photographs, tmp_path):
  config = dataclasses.replace(
    CONFIG,
    dataset="photos",
    input="stream",
    train=dataclasses.replace(CONFIG.train, epochs=1, batch=8),
    stream=StreamConfig(size=8, workers=0),
  )
  losses = []
  for devices in (1, 4):
    workdir = tmp_path / f"{devices}"
    running.train_images(
      config, workdir=workdir, data_dir=photographs, devices=devices
    )
    losses.append([report["loss"] for report in history(workdir)])
  np.testing.assert_allclose(*losses, rtol=2e-2)
