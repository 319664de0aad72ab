"""A search whose training images are streamed."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax import settings
from nao_jax.data import images, stream
from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import Record
from nao_jax.data.stream import ImageStream, Part, StreamConfig
from nao_jax.errors import UserError
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.shared import SharedWeights
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.supernet import Supernet
from nao_jax.runs import checkpoint
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import cnn
from nao_jax.strategies.nao import NaoConfig
from nao_jax.tasks import image_presets
from nao_jax.tasks.image_finals import ImageFinalConfig, ImageFinalistConfig
from nao_jax.training import candidate, recipe, stand_alone, supernet
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig
from nao_jax.training.supernet_feeds import SupernetFeed
from tests import running, tiny_images, trees
from tests.short_networks import ShortConfig, two_cells
from tests.stand_ins import Killed, nothing

TRAIN, HELD_OUT, TEST, BATCH, CLASSES = 8, 8, 6, 4, 3
KEY = jax.random.key(1)
TRAINER = supernet.Trainer(
  ShortConfig(nodes=2, channels=2, classes=CLASSES, kinds="N"),
  recipe.TrainConfig(epochs=4, batch=BATCH, drop_path_keep=0.9),
  SgdConfig(learning_rate=0.01),
  AugmentConfig(),
  TRAIN,
)
CANDIDATE = candidate.Trainer(
  **vars(TRAINER) | {"train": recipe.TrainConfig(epochs=2, batch=BATCH)}
)
POOL = np.stack([cnn.to_tokens(np.full((2, 2, 4), op)) for op in (0, 1)])


class Records(list):
  """Records that notice which of them are read."""

  def __init__(self, records):
    super().__init__(records)
    self.read = []

  def __getitem__(self, index):
    self.read.append(index)
    return super().__getitem__(index)


def _records(count, seed, labels=None) -> Records:
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (count, 9, 9, 3), np.uint8)
  labels = rng.integers(0, CLASSES, count) if labels is None else labels
  files = map(tiny_images.encode, pixels)
  return Records(map(Record, files, labels.tolist(), [""] * count))


def _data(held_out_labels=None, test_labels=None) -> ImageStream:
  """Held out are every other one of the records to train with."""
  records = _records(TRAIN + HELD_OUT, 0)
  if held_out_labels is not None:
    for number, label in enumerate(held_out_labels.tolist()):
      at = 2 * number
      records[at] = list.__getitem__(records, at)._replace(label=label)
  numbers = np.arange(TRAIN + HELD_OUT)
  return ImageStream(
    "noise",
    CLASSES,
    Part(records, numbers[1::2]),
    _records(TEST, 1, test_labels),
    StreamConfig(size=8, workers=0),
    Part(records, numbers[::2]),
  )


def _evaluator(data, devices=1, each=1) -> SharedWeights:
  return SharedWeights(TRAINER, data, 2, devices, each_step=each)


def _score(evaluator, state, round_=0, keep=nothing):
  return evaluator.score(state, KEY, POOL, round_, nothing, keep)


def _assert_same_bits(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, jax.device_get(other))


@pytest.fixture(scope="module")
def evaluator():
  return _evaluator(_data())


@pytest.fixture(scope="module")
def whole(evaluator):
  """A round without a stop: the state, the scores, and what was kept."""
  kept = []
  ended, scores = _score(
    evaluator,
    evaluator.init(jax.random.key(0)),
    keep=lambda *one: kept.append(jax.device_get(one)),
  )
  return jax.device_get(ended), scores, kept


def test_a_round_goes_on_from_every_step_to_the_same_bits(evaluator, whole):
  ended, scores, kept = whole
  steps = [int(state.supernet.step) for state, _ in kept]
  assert steps == [1, 2, 3, 4, 4]
  for state, _ in kept:
    again, found = _score(evaluator, evaluator.replicate(state))
    _assert_same_bits(ended, again)
    np.testing.assert_array_equal(scores, found)


def test_every_step_changes_the_weights(whole):
  leaves = [jax.tree.leaves(state.supernet.params) for state, _ in whole[2]]
  for before, after in itertools.pairwise(leaves[:4]):
    assert any(map(np.any, map(np.subtract, before, after)))


def test_held_out_records_are_never_trained_on():
  data = _data()
  evaluator, records = _evaluator(data), data.train.split
  state = evaluator.init(jax.random.key(0))
  assert sorted(set(records.read)) == list(range(0, 16, 2))
  records.read.clear()
  _score(evaluator, state)
  # Each epoch of the two sees each of the others once; one is made ahead.
  assert sorted(records.read[: 2 * TRAIN]) == sorted([*range(1, 16, 2)] * 2)
  assert all(number % 2 for number in records.read)
  assert not data.test.read


def test_the_second_round_has_an_order_of_its_own():
  data = _data()
  evaluator, records = _evaluator(data), data.train.split
  state = evaluator.init(jax.random.key(0))
  orders = []
  for round_ in range(2):
    records.read.clear()
    # A search gives the same key in every round.
    state, _ = evaluator.score(state, KEY, POOL, round_, nothing)
    orders.append(records.read[: 2 * TRAIN])
  assert int(state.supernet.step) == 8
  assert orders[0] != orders[1]


def test_shared_weights_are_scored_on_the_held_out_images(whole):
  state, data = whole[0], _data()
  apply = jax.jit(Supernet(TRAINER.network).apply)
  batches = (data.validation.images / 255 - data.mean) / data.std
  predicted = np.concatenate(
    [
      jnp.argmax(apply(state.supernet.params, batch, cells)[0], -1)
      for batch in np.split(np.float32(batches), HELD_OUT // BATCH)
      for cells in [cnn.to_cells(POOL[0])]
    ]
  )
  wrong = np.arange(HELD_OUT) >= HELD_OUT / 4
  labels = (predicted + wrong) % CLASSES
  again = _evaluator(_data(labels))
  _, scores = _score(again, again.replicate(state))
  assert scores[0] == 0.25


@pytest.mark.parametrize("each", [1, 2])
def test_two_devices_train_and_score_as_one(each):
  found = []
  for devices in (1, 2):
    evaluator = _evaluator(_data(), devices, each)
    state, scores = _score(evaluator, evaluator.init(jax.random.key(0)))
    found.append((jax.device_get(state.supernet.params), scores))
  (one, scores), (two, others) = found
  trees.assert_close(two, one, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(scores, others, atol=1 / HELD_OUT)


def _candidates(part="validation", devices=1, data=None) -> ImageCandidates:
  data = data or _data()
  return ImageCandidates(CANDIDATE, data, 5, devices, part)


def test_candidates_on_a_stream_train_alike_alone_and_beside_others():
  alone = _candidates()
  start = alone.start(POOL[0])
  ((first, loss, _),) = alone.epoch([POOL[0]], [start], [0])
  ((second, later, score),) = alone.epoch([POOL[0]], [first], [1])
  assert loss != later
  both = _candidates(devices=2).epoch([*POOL[::-1]], [start, first], [0, 1])
  np.testing.assert_allclose(both[1][1], later, rtol=1e-5)
  assert both[1][2] == score
  trees.assert_close(second, both[1][0], rtol=1e-3, atol=1e-5)


def test_each_epoch_of_a_candidate_has_an_order_of_its_own():
  data, orders = _data(), []
  candidates = _candidates(data=data)
  state = candidates.start(POOL[0])
  for epoch in range(2):
    data.train.split.read.clear()
    ((state, _, _),) = candidates.epoch([POOL[0]], [state], [epoch])
    read = [number for number in data.train.split.read if number % 2]
    orders.append(read[:TRAIN])
  assert sorted(orders[0]) == sorted(orders[1]) == list(range(1, 16, 2))
  assert orders[0] != orders[1]


@pytest.mark.parametrize(("part", "count"), [("validation", 8), ("test", 6)])
def test_candidates_are_measured_on_the_part_that_is_asked_for(
  part, count, monkeypatch
):
  start, cells = _candidates().start(POOL[0]), np.asarray(cnn.to_cells(POOL[0]))
  data = _data()
  shown = {
    "validation": data.validation.images,
    "test": next(iter(data.test_batches(TEST)))[0].images,
  }
  labels = {
    name: np.argmax(
      stand_alone.classify(
        start,
        pixels,
        data.mean,
        data.std,
        trainer=CANDIDATE,
        architecture=(cells,),
      ),
      -1,
    )
    for name, pixels in shown.items()
  }
  # Of each part the first two are right.
  right = {
    name: (row + (np.arange(len(row)) >= 2)) % CLASSES
    for name, row in labels.items()
  }
  monkeypatch.setattr(
    ImageCandidates,
    "_stream_epoch",
    lambda self, states, *_: (states, np.zeros((1, 1))),
  )
  candidates = _candidates(part, data=_data(*right.values()))
  ((_, _, score),) = candidates.epoch([POOL[0]], [start], [0])
  assert score == pytest.approx(2 / count)


def test_a_stream_holds_out_what_is_held_out_in_memory(tmp_path):
  arguments = {"data_dir": tmp_path, "validation_fraction": 0.02, "seed": 3}
  streamed = stream.open_stream(
    "digits", config=StreamConfig(size=8, workers=0), **arguments
  )
  kept = images.load("digits", **arguments)
  assert streamed.train_examples == kept.train_examples
  assert streamed.validation_examples == kept.validation_examples == 29
  found = streamed.validation
  np.testing.assert_array_equal(found.labels, kept.validation.labels)
  assert found.images.shape == (29, 8, 8, 3)


# The whole search.

CONFIG = dataclasses.replace(
  image_presets.PRESETS["digits"],
  input="stream",
  strategy="random",
  validation_fraction=0.76,
  network=NetworkConfig(nodes=2, cells_per_stage=1, channels=2),
  train=TrainConfig(epochs=4, batch=16, drop_path_keep=0.9),
  stream=StreamConfig(size=8, workers=0),
  search=SearchConfig(pool_size=3, rounds=1, new_per_round=1),
  nao=NaoConfig(top_k=1),
  finalists=2,
  # Of one program with the comparison.
  finalist=ImageFinalistConfig(
    epochs=1,
    batch=16,
    channels=2,
    cells_per_stage=1,
    drop_path_keep=1.0,
    dropout=0.0,
    auxiliary=False,
  ),
  final=ImageFinalConfig(
    cells=1, repeats=1, epochs=1, batch=16, channels=2, cells_per_stage=1
  ),
)


@pytest.fixture(scope="module")
def short_networks():
  with two_cells():
    yield


@pytest.fixture(scope="module")
def finished(home, digits_folder, short_networks):
  """A search in one go, whose images a worker decodes: what it found."""
  del short_networks
  config = dataclasses.replace(CONFIG, stream=StreamConfig(size=8, workers=1))
  return running.search_images(
    config, workdir=home / "whole", data_dir=digits_folder, devices=1
  )


def test_a_search_stopped_within_a_round_finds_the_same(
  finished, home, digits_folder, monkeypatch
):
  save = checkpoint.save

  def mortal(directory, tree):
    save(directory, tree)
    if any(np.shape(x) == () and x == 11 for x in jax.tree.leaves(tree)):
      raise Killed

  arguments = {
    "workdir": home / "stopped",
    "data_dir": digits_folder,
    "devices": 1,
    "checkpoints": CheckpointConfig(steps=1),
  }
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "save", mortal)
    with pytest.raises(Killed):
      running.search_images(CONFIG, **arguments)
  train, begun = SupernetFeed.train, []

  def watched(*given):
    begun.append(given[-1])
    return train(*given)

  monkeypatch.setattr(SupernetFeed, "train", watched)
  again = running.search_images(CONFIG, **arguments)
  # Step 11 is the third of the second round.
  assert begun == [3]
  assert json.dumps(again) == json.dumps(finished)


def test_scores_finalists_and_comparison_are_accuracies(finished):
  ranked = finished["finalists"]
  scores = [
    row["validation_accuracy"]
    for kind in ("searched", "random")
    for row in ranked[kind]
  ]
  scores += finished["test_accuracy"]["searched"][0]
  assert len(scores) == 5
  # Of 228 images that were held out, and of 100 to report on.
  counts = np.float64(scores) * ([228] * 4 + [100])
  np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
  assert min(scores) > 0
  assert max(scores) < 1
  assert finished["image"] == [8, 8, 3]


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("validation_fraction", 0.0, "no image is left to score with"),
    ("validation_fraction", 0.0001, "holds out none of 300 examples"),
    ("validation_fraction", 0.9999, "leaves none of 300 examples"),
    ("stream.size", 10, "`network.stem=cifar`: images are 10 pixels wide"),
    ("input", "disk", "`input=disk`: allowed: memory, stream"),
    ("test_split", "other", "has no split `other`"),
    ("train.batch", 100, "`train.batch=100`: there are 72 training images"),
  ],
)
def test_what_a_streamed_search_cannot_do_is_refused(
  name, value, message, digits_folder, tmp_path
):
  config = settings.replace(CONFIG, {name: value})
  with pytest.raises(UserError, match=message):
    running.search_images(
      config, workdir=tmp_path / "run", data_dir=digits_folder, devices=1
    )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"input": "memory", "stream.size": 10},
      "`stream.size=10`: acts only with `input=stream`",
    ),
    (
      {"augment.padding": 3},
      "`augment.padding=3`: acts only with `input=memory`",
    ),
  ],
)
def test_changes_of_images_that_nobody_makes_are_refused(changes, message):
  streamed = image_presets.PRESETS["imagenet"]
  with pytest.raises(UserError, match=message):
    settings.validate(settings.replace(streamed, changes), streamed)
