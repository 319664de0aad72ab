"""Consequences of the settings of drivers on images, cheap ones first."""

import dataclasses
import functools

import jax
import numpy as np
from PIL import Image

from nao_jax.data import images, stream
from nao_jax.errors import UserError
from nao_jax.evaluators.shared import NO_SCORES, SharedState
from nao_jax.networks import build, parameters
from nao_jax.search import loop
from nao_jax.spaces import cnn
from nao_jax.strategies import Observations
from nao_jax.tasks import image_training
from nao_jax.tasks import images as image_task
from nao_jax.tasks.training import keys
from nao_jax.training import stand_alone, supernet, supernet_feeds
from tests import acting
from tests.acting_searches import KEY, loop_of, proposals, retrained
from tests.stand_ins import nothing


@functools.cache
def _digits(home, dataset, fraction, seed, test_split="test"):
  try:
    return images.load(
      dataset,
      data_dir=home / "data",
      validation_fraction=fraction,
      seed=seed,
      test_split=test_split,
    )
  except UserError as error:
    return str(error)


def _parts(config, home):
  """Yields what is loaded; returns the data, or None if they are refused."""
  data = _digits(
    home,
    config.dataset,
    config.validation_fraction,
    config.seed,
    config.test_split,
  )
  if isinstance(data, str):
    yield data
    return None
  parts = (data.train, data.validation, data.test)
  yield acting.digest([part.labels for part in parts])
  return data


def _few(data):
  """The first images of each part, so that arrays are small."""
  parts = {
    part: type(getattr(data, part))(*(x[:96] for x in getattr(data, part)))
    for part in ("train", "validation", "test")
  }
  return dataclasses.replace(data, **parts)


def _wider(data, size):
  """The data with images of another size."""
  train = np.zeros((len(data.train.images), size, size, 1), np.uint8)
  return dataclasses.replace(data, train=data.train._replace(images=train))


@functools.cache
def network(trainer, shape) -> str:
  """The program of a network's loss.

  Of a network that trains alone it is that of the gradient, which is where
  batches are cut up.
  """
  images, labels = np.zeros((2, *shape), np.float32), np.zeros(2, np.int32)
  one = images[:1]
  if type(trainer) is stand_alone.Trainer:
    variables = parameters.shapes(trainer.model(), one)
    state = jax.eval_shape(trainer.start, variables)
    gradients = functools.partial(stand_alone.gradients, trainer=trainer)
    return acting.program(gradients, state, KEY, images, labels)
  cells = np.zeros((2, trainer.network.nodes, 4), np.int32)
  masks = jax.eval_shape(lambda key: trainer.masks(key, 2, 0.5, None), KEY)
  batch = (images, cells, masks), labels, {"dropout": KEY}
  if type(trainer) is supernet.Trainer:
    model, loss = build.supernet(trainer.network), supernet.batch_loss
    given = (parameters.shapes(model, one, cells),)
  else:
    loss = stand_alone.batch_loss
    variables = parameters.shapes(trainer.model(), one, cells)
    given = variables["params"], variables.get("batch_stats", {})
  return acting.program(
    functools.partial(loss, trainer=trainer), *given, *batch
  )


def _image_training(trainer, shape):
  yield from acting.training(trainer)
  yield network(trainer, shape)


def _shared_images(evaluator, monkeypatch):
  """The architectures of two rounds, and the images that they train on."""
  log = []

  def program(*_, **__):
    def steps(state, key, *rest):
      log.append(acting.digest(key, rest))
      # In memory, a call takes some steps; of a stream, it takes one.
      some = np.ndim(rest[-1]) == 0
      count, losses = (int(rest[-1]), np.zeros(25)) if some else (1, 0.0)
      return state._replace(step=state.step + count), losses

    return steps

  def score(params, shares, *_):
    del params
    return np.zeros(shares.shape[:2], np.float32)

  monkeypatch.setattr(supernet_feeds, "program", program)
  evaluator.__dict__["_score_chunk"] = score
  state = supernet.TrainState({}, (), np.int32(0))
  state = SharedState(state, NO_SCORES, np.int32(0))
  network = evaluator.trainer.network
  space = cnn.space(network.nodes, network.ops)
  tokens = np.asarray(space.sample(KEY, 6))
  for round_, count in enumerate((4, 6)):
    state, _ = evaluator.score(state, KEY, tokens[:count], round_, nothing)
  return log


def search_cnn(config, monkeypatch, home):
  yield acting.digest(config.evaluator == "shared")
  data = yield from _parts(config, home)
  if data is None:
    return
  if config.input == "memory":
    few = _few(data)
    monkeypatch.setattr(images, "load", lambda *_, **__: few)
  try:
    task = image_task.Images(home / "data").open(config, 1)
  except UserError as error:
    yield str(error)
    return
  config, data = task.config, task.data
  yield acting.digest(type(data).__name__)
  if config.input == "stream":
    yield _coloured(data.config, monkeypatch)
  yield acting.digest(data.mean, data.std)
  yield loop_of(config.search)
  yield acting.digest([proxy.name for proxy in task.proxies()])
  shape = data.image_shape
  if config.evaluator == "shared":
    evaluator = task.shared()
    yield from _image_training(evaluator.trainer, shape)
    yield from _shared_images(evaluator, monkeypatch)
  else:
    candidates, _ = task.candidates()
    yield from _image_training(candidates.trainer, shape)
  for candidates in retrained(task):
    yield from _image_training(candidates.trainer, shape)
  space = cnn.space(config.network.nodes, config.network.ops, config.encoding)
  yield acting.digest(space.choices)
  tokens = np.asarray(space.sample(KEY, config.search.pool_size))
  constraint = loop.of_plain_tokens(task.constraint, space)
  if constraint is not None:
    seen = Observations(tokens, np.arange(len(tokens)), set(), constraint)
    yield acting.digest(
      constraint.costs(tokens), seen.allows(tokens), seen.order
    )
  yield from proposals(config, constraint)


def train_cnn(config, monkeypatch, home):
  yield acting.digest(config.input == "stream")
  data = yield from _parts(config, home)
  if data is None:
    return
  data = _few(data)
  if config.input == "stream":
    data = _wider(data, config.stream.size)
  training = image_training.fit_to_data(config, data)
  yield acting.digest(training.tokens, training.normaliser, keys(config.seed))
  yield from _image_training(training.trainer, data.image_shape)
  if config.input == "memory":
    return
  yield _coloured(config.stream, monkeypatch)


def _coloured(config, monkeypatch) -> str:
  """A training image of a stream, made from one with colours."""
  image = Image.fromarray(
    np.arange(3 * 40 * 50, dtype=np.uint8).reshape(40, 50, 3)
  )
  with monkeypatch.context() as patch:
    patch.setattr(stream.pixels, "read", lambda encoded, _: encoded)
    cut = stream._train_example(
      _Record(image), np.random.default_rng(0), config
    )
  return acting.digest(np.asarray(cut.images))


class _Record:
  """An image as a stream reads it."""

  def __init__(self, image):
    self.place, self.label, self.encoded = "here", 0, image
