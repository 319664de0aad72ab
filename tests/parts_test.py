"""Parts of the data: which one is trained on, selected by and reported on.

Each part gets labels of which another share agrees with the network, or a text
of its own; so the score from an evaluator tells which part it read.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.data import text
from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import Examples, ImageData
from nao_jax.data.text import Corpus
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.shared import SharedWeights
from nao_jax.evaluators.shared_language import SharedLanguage
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.networks.supernet import Supernet
from nao_jax.spaces import cnn, rnn
from nao_jax.training import (
  candidate,
  language,
  recipe,
  recurrent,
  stand_alone,
  supernet,
)
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.optimisers import SgdConfig
from tests.short_networks import ShortConfig
from tests.stand_ins import nothing

COUNT, BATCH, CLASSES = 8, 4, 3
KEY = jax.random.key(1)
SHARES = {"train": 0.25, "validation": 0.5, "test": 0.75}
TRAINER = supernet.Trainer(
  ShortConfig(nodes=2, channels=2, classes=CLASSES, kinds="N"),
  recipe.TrainConfig(epochs=1, batch=BATCH, drop_path_keep=1.0),
  SgdConfig(),
  AugmentConfig(),
  COUNT,
)
MEAN, STD = np.float32([0.5]), np.float32([0.3])
POOL = np.stack([cnn.to_tokens(np.full((2, 2, 4), op)) for op in (0, 1)])


def _evaluator(parts) -> SharedWeights:
  data = ImageData(
    "noise", CLASSES, *(parts[part] for part in SHARES), MEAN, STD
  )
  return SharedWeights(TRAINER, data, 1, devices=1)


@pytest.fixture(scope="module")
def noise():
  """{part: images with labels at random}."""
  rng = np.random.default_rng(0)
  return {
    part: Examples(
      rng.integers(0, 256, (COUNT, 8, 8, 1), np.uint8),
      rng.integers(0, CLASSES, COUNT).astype(np.int32),
    )
    for part in SHARES
  }


@pytest.fixture(scope="module")
def evaluator(noise):
  return _evaluator(noise)


@pytest.fixture(scope="module")
def trained(evaluator):
  """The state at the end of its only round, and the scores."""
  state, scores = evaluator.score(
    evaluator.init(jax.random.key(0)), KEY, POOL, 0, nothing
  )
  return jax.device_get(state), scores


@pytest.fixture(scope="module")
def predicted(trained, noise):
  """{part: what each member of the pool says of it, [members, COUNT]}."""
  apply = jax.jit(Supernet(TRAINER.network).apply)

  def predict(images, tokens):
    batches = (images / 255 - MEAN) / STD
    return np.concatenate(
      [
        jnp.argmax(apply(trained[0].supernet.params, batch, cells)[0], -1)
        for batch in np.split(np.float32(batches), COUNT // BATCH)
        for cells in [cnn.to_cells(tokens)]
      ]
    )

  return {
    part: np.stack([predict(examples.images, tokens) for tokens in POOL])
    for part, examples in noise.items()
  }


@pytest.fixture(scope="module")
def relabelled(noise, predicted):
  """The parts, of which the first member is right about its SHARES."""
  parts = {}
  for part, share in SHARES.items():
    wrong = np.arange(COUNT) >= share * COUNT
    labels = np.int32((predicted[part][0] + wrong) % CLASSES)
    parts[part] = noise[part]._replace(labels=labels)
  return parts


def test_shared_weights_are_scored_on_the_validation_part(
  evaluator, trained, relabelled, predicted
):
  again = _evaluator(relabelled)
  # All steps of the round are done; only the scores are missing.
  _, scores = again.score(again.replicate(trained[0]), KEY, POOL, 0, nothing)
  expected = {
    part: (predicted[part] == examples.labels).mean(1)
    for part, examples in relabelled.items()
  }
  assert {part: row[0] for part, row in expected.items()} == SHARES
  np.testing.assert_allclose(scores, expected["validation"], atol=1e-6)


def test_shared_weights_are_trained_on_the_training_part(
  evaluator, trained, noise
):
  other = {
    part: noise["train"]
    if part == "train"
    else Examples(255 - examples.images, 2 - examples.labels)
    for part, examples in noise.items()
  }
  again = _evaluator(other)
  # The same program, which takes the data as an argument.
  again.__dict__["_score_chunk"] = evaluator._score_chunk
  state, _ = again.score(again.init(jax.random.key(0)), KEY, POOL, 0, nothing)
  jax.tree.map(
    np.testing.assert_array_equal,
    trained[0].supernet.params,
    jax.device_get(state.supernet.params),
  )


@pytest.mark.parametrize("part", ["validation", "test"])
def test_candidates_are_measured_on_the_part_that_is_asked_for(
  part, noise, monkeypatch
):
  trainer = candidate.Trainer(**vars(TRAINER))
  cells = np.asarray(cnn.to_cells(POOL[0]))

  def candidates(parts):
    images = ImageData("noise", CLASSES, *parts.values(), MEAN, STD)
    return ImageCandidates(trainer, images, 0, 1, part, last_only=True)

  start = candidates(noise).start(POOL[0])
  classify = jax.jit(
    functools.partial(
      stand_alone.classify, trainer=trainer, architecture=(cells,)
    )
  )
  parts = {
    name: examples._replace(
      labels=np.int32(
        jnp.argmax(classify(start, examples.images, MEAN, STD), -1)
        + (np.arange(COUNT) >= SHARES[name] * COUNT)
      )
      % CLASSES
    )
    for name, examples in noise.items()
  }
  # The network stays as it is.
  monkeypatch.setattr(
    ImageCandidates,
    "_train_epoch",
    lambda self, states, *_: (states, np.zeros((1, 1))),
  )
  ((_, _, found),) = candidates(parts).epoch([POOL[0]], [start], [0])
  assert found == SHARES[part]


# Texts.

WORDS = 9
STREAMS = 4


@pytest.fixture(scope="module")
def corpus():
  """Parts that are not alike."""
  rng = np.random.default_rng(1)
  parts = [
    rng.integers(0, most, count).astype(np.int32)
    for most, count in ((9, 300), (4, 80), (2, 90))
  ]
  return Corpus("noise", tuple(f"w{n}" for n in range(WORDS)), *parts)


@pytest.mark.parametrize("score_tokens", [0, 40])
def test_shared_cells_are_scored_on_the_validation_text(corpus, score_tokens):
  trainer = recurrent.Trainer(
    LanguageModelConfig(3, 6, WORDS),
    TextTrainConfig(epochs=1, batch=STREAMS, bptt=12),
    shared=True,
  )
  evaluator = SharedLanguage(trainer, corpus, 0, 1, score_tokens, devices=1)
  rows = np.asarray(rnn.space(3).sample(jax.random.key(4), 2))
  # Larger ones, so that scores differ; and all epochs are done.
  state = evaluator.init(jax.random.key(5))
  state = state._replace(
    weights=jax.tree.map(lambda x: 20 * x, state.weights), epoch=np.int32(1)
  )
  _, scores = evaluator.score(state, KEY, rows, 0, nothing)

  def measure(part, cell):
    streams = text.streams(part, STREAMS)
    # In one piece, not in windows.
    whole = language.windows(streams, len(streams) - 1)
    bank = jax.tree.map(jnp.asarray, jax.device_get(state.weights))
    weights = trainer.of_cell(bank, cell)
    return -float(language.measure(weights, cell, whole))

  cells = np.asarray(rnn.to_cells(rows))
  end = score_tokens or None
  validation, train, test = (
    np.array([measure(part[:end], cell) for cell in cells])
    for part in (corpus.validation, corpus.train, corpus.test)
  )
  np.testing.assert_allclose(scores, validation, rtol=1e-5)
  for other in (train, test):
    assert (abs(other - validation) > 0.01).all()
