"""An ensemble of controllers, trained in one program: pure, jitted functions.

Members differ in their initial weights, in the architectures held out of them
and in the random architectures that they train on.

Shapes: E controllers, L tokens, K seeds, S step sizes, M candidates (E S K).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nao_jax.controller import ascent
from nao_jax.controller.blocks import by_blocks
from nao_jax.controller.fit import Batch, loss, swap
from nao_jax.controller.model import Controller, Params, embed, normalise
from nao_jax.settings import field


@dataclasses.dataclass(frozen=True)
class NaoPlusConfig:
  """Settings of the fit of the controllers and of the proposals.

  Attributes:
    members: E, number of controllers.
    pretraining: training steps on reconstruction alone, before the first fit
      to scores.
    steps: training steps for each architecture that is new since the round
      before.
    most_steps: the most training steps in a round.
    labelled: scored architectures in a step.
    unlabelled: random architectures without a score in a step.
    learning_rate: learning rate of Adam; it falls to 0 in the second half of a
      round.
    weight_decay: decoupled weight decay.
    clip: the largest global norm of the gradients.
    trade_off: the weight of the squared error; the cross-entropy has the rest.
    seeds: K, number of architectures whose embeddings are moved.
    step_sizes: steps along the gradient, which is first scaled to the norm of
      the encoder's outputs.
    passes: passes of moving seeds; the best candidates of a pass are the seeds
      of the next.
    exploration: standard deviations of the controllers' predictions of a
      candidate that are added to their mean when proposals are chosen; the
      seeds of later passes go by the mean alone.
  """

  members: int = field(8, least=1)
  pretraining: int = field(300, least=0)
  steps: int = field(20, least=1)
  most_steps: int = field(2000, least=1)
  labelled: int = field(16, least=1)
  unlabelled: int = field(8, least=0)
  learning_rate: float = field(3e-3, above=0)
  weight_decay: float = field(1e-4, least=0)
  clip: float = field(2.0, above=0)
  trade_off: float = field(0.8, least=0, most=1)
  seeds: int = field(16, least=1)
  step_sizes: tuple[float, ...] = field(
    (0.3, 0.6, 1, 1.5, 2, 3, 5, 10), above=0
  )
  passes: int = field(3, least=1)
  exploration: float = field(0.0, least=0, added=True)


class Ensemble(NamedTuple):
  """State of the ensemble; all leaves but the last three have a first axis E.

  Attributes:
    params: parameters of the controllers.
    optimiser: Adam's moments; they are kept from round to round.
    steps: int32 [], number of training steps so far.
    began: int32 [], `steps` when the current fit began; between rounds equal to
      `steps`.
    asked: int32 [], number of proposals in the round before; 0 in the first.
  """

  params: Params
  optimiser: optax.OptState
  steps: jax.Array
  began: jax.Array
  asked: jax.Array


class _Member(NamedTuple):
  """Parameters and Adam's moments of the members, or of one of them."""

  params: Params
  optimiser: optax.OptState


class Lessons(NamedTuple):
  """Training data of T steps, with B scored architectures in each.

  Attributes:
    tokens: int32 [T, E, B, L].
    targets: float32 [T, E, B], ranks between 0 and 1.
    rates: float32 [T], learning rates.
    trade_off: float32 [T], the weight of the squared error.
    costs: float32 [T, E, B], scaled; None if the controllers do not estimate
      costs.
  """

  tokens: np.ndarray
  targets: np.ndarray
  rates: np.ndarray
  trade_off: np.ndarray
  costs: np.ndarray | None


@functools.partial(jax.jit, static_argnames=("controller", "config"))
def start(
  key: jax.Array, *, controller: Controller, config: NaoPlusConfig
) -> Ensemble:
  """Returns newly initialised controllers; consumes the key."""
  keys = jax.random.split(key, config.members)
  # One by one: with all at once the program takes longer to compile.
  params = jax.lax.map(controller.init, keys)
  none = jnp.int32(0)
  return Ensemble(
    params, jax.vmap(_adam().init)(params), steps=none, began=none, asked=none
  )


def _adam():
  return optax.scale_by_adam()


@functools.partial(jax.jit, static_argnames=("controller", "config"))
def train(
  state: Ensemble,
  key: jax.Array,
  lessons: Lessons,
  *,
  controller: Controller,
  config: NaoPlusConfig,
) -> Ensemble:
  """Takes T training steps with all members; returns the new state.

  A step with rate 0 is not counted and leaves the parameters as they are.

  Args:
    state: the state before the steps.
    key: the key of the round; each step folds in its number.
    lessons: the training data.
    controller: space and sizes of each member.
    config: the settings.
  """
  counts = (lessons.rates > 0).astype(jnp.int32)
  after = state.steps + jnp.cumsum(counts)
  # All random numbers are drawn first, as drawing them in the loop would double
  # its cost.
  varied = functools.partial(_varied, space=controller.space, config=config)
  tokens = jax.vmap(varied, (None, 0, 0))(key, after - counts, lessons.tokens)
  keys = None
  if controller.config.drops:
    keys = jax.vmap(lambda number: _dropout_keys(key, number, config.members))(
      after - counts
    )

  one = functools.partial(_step, controller=controller, config=config)
  axes = Lessons(tokens=0, targets=0, rates=None, trade_off=None, costs=0)

  def step(members, row):
    return jax.vmap(one, (0, axes, 0))(members, *row), None

  members = _Member(state.params, state.optimiser)
  (params, optimiser), _ = jax.lax.scan(
    step, members, (lessons._replace(tokens=tokens), keys)
  )
  return state._replace(params=params, optimiser=optimiser, steps=after[-1])


def _dropout_keys(key, number, members):
  """Returns a dropout key for each member in a step: [E]."""
  # The 1 makes them different from the keys of `_varied`.
  key = jax.random.fold_in(jax.random.fold_in(key, number), 1)
  return jax.random.split(key, members)


def _varied(key, number, tokens, *, space, config):
  """Augments a step's architectures: [E, B, L] to [E, B + unlabelled, L].

  Scored architectures are replaced by equivalent ones, and random architectures
  are appended.
  """

  def one(key, tokens):
    swap_key, random_key = jax.random.split(key)
    swapped = swap(swap_key, tokens, space=space)
    drawn = space.sample(random_key, config.unlabelled)
    return jnp.concatenate([swapped, drawn])

  keys = jax.random.split(jax.random.fold_in(key, number), config.members)
  return jax.vmap(one)(keys, tokens)


def _step(member, lesson, key, *, controller, config):
  """Takes one step of one member; rate 0 changes Adam's moments alone.

  Args:
    member: its parameters and moments.
    lesson: its part of one step of `Lessons`, varied by `_varied`.
    key: key of dropout, or None.
    controller: space and sizes.
    config: the settings.
  """
  tokens, targets, rate, trade_off, costs = lesson
  has_score = (jnp.arange(len(tokens)) < config.labelled).astype(jnp.float32)
  if costs is not None:
    costs = jnp.pad(costs, (0, config.unlabelled))

  def objective(params):
    targets_of_all = jnp.pad(targets, (0, config.unlabelled))
    ones = jnp.ones(len(tokens))
    total, _ = loss(
      params,
      Batch(tokens, targets_of_all, ones, costs, has_score),
      controller=controller,
      trade_off=trade_off,
      key=key,
    )
    return total

  params, optimiser = member
  gradients = jax.grad(objective)(params)
  clip = jnp.minimum(1, config.clip / (optax.tree.norm(gradients) + 1e-12))
  gradients = jax.tree.map(lambda g: g * clip, gradients)
  updates, optimiser = _adam().update(gradients, optimiser)
  params = jax.tree.map(
    lambda p, u: p - rate * (u + config.weight_decay * p), params, updates
  )
  return _Member(params, optimiser)


@functools.partial(jax.jit, static_argnames=("controller", "config"))
def move(
  params: Params,
  seeds: jax.Array,
  weights: ascent.ObjectiveWeights | None = None,
  *,
  controller: Controller,
  config: NaoPlusConfig,
) -> jax.Array:
  """Moves every seed with every member by every step size, and decodes.

  Args:
    params: parameters of the members, [E, ...].
    seeds: int32 [K, L].
    weights: weights of the ascent's objective; see `ascent.objective`.
    controller: space and sizes of each member.
    config: the settings.

  Returns:
    Architectures, int32 [M, L], in the order of [E, S, K].
  """
  sizes = jnp.array(config.step_sizes)

  def one(params):
    outputs, _ = controller.encode(params, seeds)
    uphill = ascent.gradient(params, outputs, weights, controller=controller)
    length = [
      jnp.sqrt(jnp.sum(jnp.square(x), (-2, -1), keepdims=True))
      for x in (outputs, uphill)
    ]
    uphill = uphill * length[0] / jnp.maximum(length[1], 1e-12)
    moved = normalise(outputs + sizes[:, None, None, None] * uphill)
    moved = moved.reshape(-1, *outputs.shape[1:])
    return controller.greedy_decode(params, moved, embed(moved))

  tokens = jax.vmap(one)(params)
  return tokens.reshape(-1, tokens.shape[-1])


@functools.partial(jax.jit, static_argnames="controller")
def judge(
  params: Params, tokens: jax.Array, *, controller: Controller
) -> jax.Array:
  """Returns the scores of tokens [M, L] that each member predicts, [E, M].

  Each member encodes the tokens.
  """

  def one(params, tokens):
    return controller.predict(params, controller.encode(params, tokens)[1])

  def block(tokens):
    return jax.vmap(one, (0, None), out_axes=1)(params, tokens)

  return by_blocks(block, tokens).T


@jax.jit
def first(params: Params) -> Params:
  """Returns the parameters of the first member; params are [E, ...]."""
  return jax.tree.map(lambda leaf: leaf[0], params)


@functools.partial(jax.jit, static_argnames="controller")
def place(
  params: Params, tokens: jax.Array, *, controller: Controller
) -> jax.Array:
  """Returns the embeddings [M, H] of tokens [M, L] by one member."""
  return by_blocks(lambda rows: controller.encode(params, rows)[1], tokens)
