import collections
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from nao_jax.data import images, prepare, sources
from nao_jax.data.augment import AugmentConfig
from nao_jax.data.stream import StreamConfig
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs import checkpoint
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.spaces import cnn
from nao_jax.tasks import image_inference, image_recipes, image_training
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig
from tests import tiny_images, tracing
from tests.short_networks import two_cells

# One small separable convolution, pools and identities.
ARCH = "0 0 1 4 2 2 0 4 | 0 4 1 2 2 3 1 4"
EPOCHS, BATCH = 2, 128
STEPS = EPOCHS * (1437 // BATCH)
CONFIG = image_recipes.TrainCnnConfig(
  arch=ARCH,
  dataset="digits",
  seed=5,
  network=NetworkConfig(cells_per_stage=1, channels=4, dropout=0.1),
  train=TrainConfig(epochs=EPOCHS, batch=BATCH, drop_path_keep=0.9),
  sgd=SgdConfig(learning_rate=0.1),
  augment=AugmentConfig(padding=1, cutout=2),
)


@pytest.fixture(scope="module", autouse=True)
def fast_compilation():
  jax.config.update("jax_disable_most_optimizations", True)
  with two_cells():
    yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
  """A training that has run to its end: its workdir and its result."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  train, later = image_training.InMemory.train, collections.Counter()

  def watched(*arguments):
    for state, losses in train(*arguments):
      yield state, losses
      if int(state.step) <= STEPS // EPOCHS:
        found.clear()
      later.update(found)

  with pytest.MonkeyPatch.context() as patch, tracing.programs() as found:
    patch.setattr(image_training.InMemory, "train", watched)
    result = image_training.run(
      CONFIG, workdir=workdir, data_dir=data_dir, devices=1
    )
  assert not later, "the second epoch traces or compiles something anew"
  return workdir, result


class Killed(Exception):
  pass


def _run_until(step, workdir, data_dir, monkeypatch, **settings):
  """Runs a training that ends abruptly in the call after `step`."""
  train = image_training.InMemory.train

  def mortal(*arguments):
    for state, losses in train(*arguments):
      if int(state.step) > step:
        raise Killed
      yield state, losses

  with monkeypatch.context() as patch:
    patch.setattr(image_training.InMemory, "train", mortal)
    with pytest.raises(Killed):
      image_training.run(
        CONFIG, workdir=workdir, data_dir=data_dir, devices=1, **settings
      )


def _leaves(workdir):
  """Everything in the last checkpoint."""
  return jax.tree.leaves(image_inference.load(workdir)[1])


def _assert_same_bits(workdir, other):
  for a, b in zip(_leaves(workdir), _leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_result_says_what_was_trained_and_how_good_it_is(finished):
  workdir, result = finished
  assert json.loads((workdir / "result.json").read_text()) == result
  assert result["text"] == ARCH
  assert result["steps"] == STEPS
  assert result["test"]["examples"] == 360
  assert 0 < result["test"]["top_5_error"] < result["test"]["error"] < 0.9
  params = image_inference.load(workdir)[1].params
  assert result["parameters"] == sum(x.size for x in jax.tree.leaves(params))


def test_the_status_ends_with_all_steps(finished):
  status = json.loads((finished[0] / "status.json").read_text())
  assert status["state"] == "finished"
  assert (status["done"], status["total"]) == (STEPS, STEPS)
  assert status["rate"].endswith("images/s")


def test_history_has_a_line_an_epoch(finished):
  lines = (finished[0] / "history.jsonl").read_text().splitlines()
  reports = [json.loads(line) for line in lines]
  assert [report["epoch"] for report in reports] == list(range(EPOCHS))
  assert reports[0]["learning_rate"] == pytest.approx(0.1)
  assert reports[1]["loss"] < reports[0]["loss"]


@pytest.mark.parametrize("step", [3, STEPS // 2 + 2])
def test_a_stopped_training_ends_with_the_same_bits(
  step, finished, data_dir, tmp_path, monkeypatch
):
  # One step a call, so that it can stop after any of them.
  monkeypatch.setattr("nao_jax.training.feeds.STEPS_A_CALL", 1)
  workdir = tmp_path / "run"
  every = {"checkpoints": CheckpointConfig(steps=2)}
  _run_until(step, workdir, data_dir, monkeypatch, **every)
  result = image_training.run(
    CONFIG, workdir=workdir, data_dir=data_dir, devices=1, **every
  )
  assert result == finished[1]
  _assert_same_bits(workdir, finished[0])


def test_a_finished_training_is_left_as_it_is(finished, data_dir):
  workdir, result = finished
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*")}
  again = image_training.run(
    CONFIG, workdir=workdir, data_dir=data_dir, devices=1
  )
  assert again == result
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*")} == before


def test_another_architecture_is_refused_in_the_same_workdir(
  finished, data_dir
):
  other = dataclasses.replace(CONFIG, arch=ARCH.replace("0 0", "1 0", 1))
  with pytest.raises(UserError, match=r"holds another run \(config.arch is"):
    image_training.run(other, workdir=finished[0], data_dir=data_dir, devices=1)


def test_a_checkpoint_of_another_architecture_is_refused(finished, data_dir):
  other = dataclasses.replace(
    CONFIG, network=dataclasses.replace(CONFIG.network, channels=6)
  )
  data = image_training.open_data(other, data_dir)
  training = image_training.fit_to_data(other, data)
  with pytest.raises(UserError, match=r"array \d+ is \[.*another architecture"):
    training.restore(finished[0] / "checkpoints")


def test_a_checkpoint_of_a_rewired_cell_is_refused(finished, tmp_path):
  """Its arrays have the same shapes."""
  shutil.copytree(finished[0], tmp_path / "copy")
  file = tmp_path / "copy" / "config.json"
  file.write_text(file.read_text().replace("0 4 1 2 2 3", "1 4 0 2 2 3"))
  with pytest.raises(UserError, match="holds another architecture"):
    image_inference.load(tmp_path / "copy")


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
  file = tmp_path / "network.jax"
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
  image_inference.export(finished[0], file.with_name("network.bin"))
  assert neighbour.read_text() == "precious"
  for count in (1, 360):  # Any number of images.
    logits = exported.call(test.images[:count])
    np.testing.assert_allclose(logits, expected[:count], atol=1e-4)
  with pytest.raises(UserError, match=r"network.jax`: exists"):
    image_inference.export(finished[0], file)


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
    stream=StreamConfig(size=8, workers=2),
  )
  every = CheckpointConfig(steps=3)
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  arguments = {"data_dir": photographs, "devices": 1, "checkpoints": every}
  result = image_training.run(config, workdir=whole, **arguments)
  assert result["steps"] == 15
  assert result["test"]["examples"] == 6
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "save", _save_until(checkpoint.save, 9))
    with pytest.raises(Killed):
      image_training.run(config, workdir=stopped, **arguments)
  assert image_training.run(config, workdir=stopped, **arguments) == result
  _assert_same_bits(whole, stopped)
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
  image_training.run(
    config, workdir=tmp_path / "run", data_dir=data_dir, devices=1
  )
  lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
  errors = [json.loads(line)["validation_error"] for line in lines]
  assert len(errors) == EPOCHS
  assert all(0 <= error <= 1 for error in errors)


def test_a_training_that_diverges_stops_and_says_so(data_dir, tmp_path):
  config = dataclasses.replace(
    CONFIG, sgd=dataclasses.replace(CONFIG.sgd, learning_rate=1e30)
  )
  with pytest.raises(UserError, match=r"diverged at .* `sgd.learning_rate`"):
    image_training.run(
      config, workdir=tmp_path / "run", data_dir=data_dir, devices=1
    )
  assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"arch": "NAONet-C"}, "`arch=NAONet-C`: "),
    ({"input": "disk"}, "`input=disk`: allowed: memory, stream"),
    ({"accumulate": 0}, "`accumulate=0`: allowed: 1 or more"),
    ({"accumulate": 3}, "`accumulate=3`: `train.batch=128` is cut"),
    ({"dataset": "cifar11"}, "`dataset=cifar11`: not in"),
    ({"train": TrainConfig(epochs=0)}, "`train.epochs=0`: allowed: 1"),
    (
      {"sgd": SgdConfig(schedule="flat")},
      "`sgd.schedule=flat`: allowed:",
    ),
    ({"network": NetworkConfig(auxiliary=True)}, "`network.auxiliary=True`: "),
    ({"test_split": "dev"}, "no split `dev`"),
    ({"input": "stream", "seed": -1}, "`seed=-1`: allowed: 0"),
    ({"validation_fraction": 1e-4}, "holds out none of 1437 images"),
    (
      {"input": "stream", "stream": StreamConfig(size=10)},
      "`stream.size=10`, `network.stem=cifar`: images are 10 pixels wide",
    ),
  ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
  changes, message, data_dir, tmp_path
):
  workdir = tmp_path / "run"
  config = dataclasses.replace(CONFIG, **changes)
  with pytest.raises(UserError) as caught:
    image_training.run(config, workdir=workdir, data_dir=data_dir, devices=1)
  assert message in str(caught.value)
  assert not workdir.exists()


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


def _losses(workdir):
  lines = (workdir / "history.jsonl").read_text().splitlines()
  return [json.loads(line)["loss"] for line in lines]


def test_four_devices_train_like_one(data_dir, photographs, tmp_path):
  memory = dataclasses.replace(
    CONFIG, train=dataclasses.replace(CONFIG.train, epochs=1)
  )
  stream = dataclasses.replace(
    memory,
    dataset="photos",
    input="stream",
    train=dataclasses.replace(memory.train, batch=8),
    stream=StreamConfig(size=8, workers=0),
  )
  for config, home in ((memory, data_dir), (stream, photographs)):
    results = []
    for devices in (1, 4):
      workdir = tmp_path / f"{config.input}_{devices}"
      image_training.run(
        config, workdir=workdir, data_dir=home, devices=devices
      )
      results.append(_losses(workdir))
    np.testing.assert_allclose(*results, rtol=2e-2)
