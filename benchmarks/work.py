"""The pieces of work that are timed: one program each, and its lower bound.

Inputs are random: speed does not depend on them, except on the architectures,
which change with every step.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import counting
from benchmarks.counting import Needed
from nao_jax import parallel
from nao_jax.controller import ascent, fit
from nao_jax.controller.model import Controller
from nao_jax.data.augment import AugmentConfig
from nao_jax.networks import recurrent
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.spaces import cnn, rnn
from nao_jax.training import candidate, language, stand_alone, supernet
from nao_jax.training import recurrent as recurrent_training
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Images, TrainConfig

# Number of architectures in the pool, and that the controller is fitted to.
_POOL, _LABELLED = 64, 600


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of all works; the defaults are those of the official search.

  Attributes:
    batch: images a step.
    channels: channels of the networks, in the first stage.
    cells_per_stage: cells in a stage of the networks.
    nodes: nodes in a cell of the networks; an architecture has 8 tokens for
      each.
    streams: streams of text.
    steps: words of a bptt window.
    width: width of the language model.
    vocabulary: number of words of the language model.
    devices: number of devices that train and score the supernet.
    bfloat16: whether networks for images compute in bfloat16.
    published_channels: channels of the published network.
    published_cells: cells in a stage of the published network.
  """

  batch: int = 32
  channels: int = 20
  cells_per_stage: int = 3
  nodes: int = 5
  streams: int = 64
  steps: int = 35
  width: int = 300
  vocabulary: int = 10_000
  devices: int = 1
  bfloat16: bool = False
  published_channels: int = 128
  published_cells: int = 6

  @property
  def network(self) -> NetworkConfig:
    """The network for images."""
    return NetworkConfig(
      channels=self.channels,
      cells_per_stage=self.cells_per_stage,
      nodes=self.nodes,
    )


class Work(NamedTuple):
  """A program to time.

  Attributes:
    program: the jitted program.
    arguments: arguments of the first call.
    after: maps the number of a call, the arguments of the previous call and
      its result to the arguments of the call.
    amount: units of work in a call.
    unit: name of the unit, in the plural.
    needed: lower bound on the work in a call.
  """

  program: Any
  arguments: tuple
  after: Callable[[int, tuple, Any], tuple]
  amount: int
  unit: str
  needed: Needed


def _same(number, arguments, result):
  del number, result
  return arguments


def with_state(number, arguments, result):
  """Passes on the new state, for programs that return the state and a loss."""
  del number
  return (result[0], *arguments[1:])


class Vision(NamedTuple):
  """Inputs of works on images.

  Attributes:
    recipe: settings of a trainer.
    data: the images.
    tokens: architectures.
    indices: int32 [1, B], the images of a step.
  """

  recipe: dict
  data: Images
  tokens: np.ndarray
  indices: jax.Array


def vision_of(sizes: Sizes) -> Vision:
  """Returns the inputs of works on images."""
  random = np.random.RandomState(0)
  return Vision(
    {
      "network": sizes.network,
      "train": TrainConfig(batch=sizes.batch),
      "sgd": SgdConfig(),
      "augment": AugmentConfig(),
      "examples": 50_000,
      "bfloat16": sizes.bfloat16,
    },
    Images(
      jnp.asarray(random.randint(0, 256, (512, 32, 32, 3), np.uint8)),
      jnp.asarray(random.randint(0, 10, 512, np.int32)),
      jnp.full(3, 0.5),
      jnp.full(3, 0.25),
    ),
    np.asarray(cnn.space(sizes.nodes).sample(jax.random.key(0), _POOL)),
    jnp.arange(sizes.batch)[None],
  )


def _forward(vision: Vision) -> Needed:
  """Returns the mean work of one architecture on one batch.

  All feature maps are assumed to fit a cache.
  """
  network, images = vision.recipe["network"], vision.data.images
  costs = [cost(network, row, images.shape[1]) for row in vision.tokens]
  each = np.mean([found.multiply_adds for found in costs])
  return Needed(2 * vision.indices.size * float(each), 0)


def momentum(params) -> Needed:
  """Counts reads of gradient, weights, momentum; writes of the latter two."""
  return counting.passes(params, 5)


def supernet_train(sizes: Sizes) -> Work:
  """Builds a training step: augment, forward, backward, update."""
  return supernet_step(vision_of(sizes), sizes.devices)


def supernet_step(vision: Vision, devices: int) -> Work:
  """Builds a training step of any supernet for images."""
  trainer = supernet.Trainer(**vision.recipe)
  pool = jnp.asarray(trainer.network.to_cells(vision.tokens))
  state = trainer.init(jax.random.key(1), vision.data)
  rest = jax.random.key(2), vision.data
  indices = vision.indices.reshape(1, devices, -1)

  def after(number, arguments, result):
    member = pool[number % _POOL][None, None]
    steps = supernet.Steps(indices, member)
    return (result[0], *arguments[1:3], steps, arguments[-1])

  return Work(
    parallel.spread(
      functools.partial(
        supernet.train_steps, trainer=trainer, axis_name=parallel.AXIS
      ),
      in_axes=(None, None, None, supernet.Steps(1, None), None),
      out_axes=(None, None),
      devices=devices,
      donate=(0,),
    ),
    (
      *parallel.replicate((state, *rest), devices=devices),
      supernet.Steps(indices, pool[None, :1]),
      jnp.int32(1),
    ),
    after,
    vision.indices.size,
    "images",
    counting.training(_forward(vision)).plus(momentum(state.params)),
  )


def supernet_score(sizes: Sizes) -> Work:
  """Builds the scoring of one architecture a device, on one batch."""
  return supernet_scoring(vision_of(sizes), sizes.devices)


def supernet_scoring(vision: Vision, devices: int) -> Work:
  """Builds the scoring by any supernet for images."""
  trainer = supernet.Trainer(**vision.recipe)
  state = trainer.init(jax.random.key(1), vision.data)
  pool = jnp.asarray(trainer.network.to_cells(vision.tokens))
  counted = jnp.ones_like(vision.indices, bool)
  rest = vision.data, vision.indices, counted
  params, *rest = parallel.replicate((state.params, *rest), devices=devices)

  def arguments(number):
    own = (number + jnp.arange(devices)) % _POOL
    return params, pool[own][:, None], *rest

  return Work(
    parallel.spread(
      functools.partial(
        supernet.score, network=trainer.network, bfloat16=trainer.bfloat16
      ),
      in_axes=(None, 0, None, None, None),
      devices=devices,
    ),
    arguments(0),
    lambda number, *_: arguments(number),
    vision.indices.size * devices,
    "images",
    _forward(vision).times(devices),
  )


def scratch_train(sizes: Sizes) -> Work:
  """Builds a training step of a candidate that is trained alone."""
  vision = vision_of(sizes)
  trainer = candidate.Trainer(**vision.recipe)
  cells = jnp.asarray(cnn.to_cells(vision.tokens))
  shape = vision.data.images.shape[1:]
  state = trainer.init(jax.random.key(1), shape, cells[0])

  def program(state, key, data, indices, cells):
    return stand_alone.train_steps(
      state, key, data, (indices, None), trainer=trainer, architecture=(cells,)
    )

  def after(number, arguments, result):
    return (result[0], *arguments[1:-1], cells[number % _POOL])

  arguments = jax.random.key(2), vision.data, vision.indices, cells[0]
  return Work(
    jax.jit(program, donate_argnums=0),
    (jax.tree.map(jnp.asarray, state), *arguments),
    after,
    sizes.batch,
    "images",
    counting.training(_forward(vision)).plus(momentum(state.params)),
  )


def controller_fit(sizes: Sizes) -> Work:
  """Builds an epoch of the controller's fit on 600 architectures, batch 100."""
  controller = Controller(cnn.space(sizes.nodes))
  config = fit.FitConfig(epochs=1)
  params = controller.init(jax.random.key(0))
  tokens = controller.space.sample(jax.random.key(1), _LABELLED)
  targets = jnp.linspace(0, 1, _LABELLED)

  def loss(params, tokens, targets):
    return fit.loss(
      params,
      fit.Batch(tokens, targets, jnp.ones(len(tokens))),
      controller=controller,
      trade_off=config.trade_off,
    )

  forward = counting.count(
    loss, params, tokens[: config.batch], targets[: config.batch]
  )
  step = counting.training(forward).plus(counting.passes(params, 7))
  return Work(
    jax.jit(functools.partial(fit.fit, controller=controller, config=config)),
    (
      fit.start(params, config),
      jax.random.key(2),
      fit.Examples(tokens, targets),
    ),
    with_state,
    _LABELLED,
    "sequences",
    step.times(_LABELLED / config.batch),
  )


def propose(sizes: Sizes) -> Work:
  """Builds proposals, 100 seeds x 10 step sizes: encode, gradient, decode."""
  controller = Controller(cnn.space(sizes.nodes))
  params = controller.init(jax.random.key(0))
  seeds = controller.space.sample(jax.random.key(1), 100)
  arguments = params, seeds, jnp.arange(1.0, 11.0)
  program = functools.partial(ascent.propose, controller=controller)
  return Work(
    jax.jit(program),
    arguments,
    _same,
    1000,
    "candidates",
    counting.count(program, *arguments),
  )


def _language(sizes: Sizes):
  """Returns settings, weights, architectures and text."""
  trainer = recurrent_training.Trainer(
    LanguageModelConfig(width=sizes.width, vocabulary=sizes.vocabulary),
    TextTrainConfig(batch=sizes.streams, bptt=sizes.steps),
    shared=True,
  )
  cells = rnn.to_cells(np.asarray(rnn.space().sample(jax.random.key(0), _POOL)))
  rows = np.random.RandomState(0).randint(
    0, sizes.vocabulary, (sizes.steps + 1, sizes.streams)
  )
  weights = trainer.init(jax.random.key(1))
  return trainer, weights, jnp.asarray(cells), jnp.asarray(rows, jnp.int32)


def _read(weights, cells, rows) -> Needed:
  """Returns the work of a forward pass over one bptt window."""

  def loss(weights, rows):
    hidden = jnp.zeros((rows.shape[1], weights.embedding.shape[1]))
    outputs = recurrent.apply(weights, cells[0], rows[:-1], hidden)
    return recurrent.logits(weights, outputs.dropped)

  return counting.count(loss, recurrent.choose(weights, cells[0]), rows)


def rnn_supernet_train(sizes: Sizes) -> Work:
  """Builds a step on one bptt window: forward, backward, decay, descend."""
  trainer, weights, cells, rows = _language(sizes)
  hidden = jnp.zeros((sizes.streams, sizes.width))
  state = recurrent_training.State(weights, hidden)

  def program(state, key, number, cell, rows):
    batch = language.Batch(rows, sizes.steps)
    return recurrent_training.update(
      state, key, number, cell, batch, trainer=trainer
    )

  def after(number, arguments, result):
    key, *_, rows = arguments[1:]
    return result[0], key, jnp.int32(number), cells[number % _POOL], rows

  needed = counting.training(_read(weights, cells, rows))
  first = state, jax.random.key(2), jnp.int32(0), cells[0], rows
  return Work(
    jax.jit(program, donate_argnums=0),
    first,
    after,
    sizes.streams * sizes.steps,
    "words",
    needed.plus(counting.passes(weights, 2)),
  )


def rnn_supernet_score(sizes: Sizes) -> Work:
  """Builds the scoring of one architecture on one bptt window."""
  trainer, weights, cells, rows = _language(sizes)
  return Work(
    jax.jit(functools.partial(recurrent_training.score, trainer=trainer)),
    (weights, cells[:1], rows[None]),
    lambda number, *_: (weights, cells[number % _POOL][None], rows[None]),
    sizes.streams * sizes.steps,
    "words",
    _read(weights, cells, rows),
  )


ALL = (
  supernet_train,
  supernet_score,
  controller_fit,
  propose,
  rnn_supernet_train,
  rnn_supernet_score,
  scratch_train,
)
