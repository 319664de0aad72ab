"""Consequences of settings, without a run: what devices and hosts would do.

A consequence is a program as jax traces it, the numbers that go into it, or
what the host decides. Each function here gives them as a list of texts.
"""

import contextlib
import functools
import hashlib
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.controller import ascent, fit, metrics
from nao_jax.data.augment import AugmentConfig, augment
from nao_jax.strategies import Observations, ensemble
from nao_jax.training.recipe import Recipe


def program(function, *arguments) -> str:
  """The program that a function is, with the shapes of what it takes."""
  return _traced(function, *arguments)[0]


def _traced(function, *arguments):
  """The same, and the shapes of what the function returns."""
  made, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
  # Functions of backward passes are shown by where they lie in memory.
  return digest(re.sub(" at 0x[0-9a-f]+", "", str(made))), shapes


def digest(*values) -> str:
  """A short text that tells values from others: arrays by their content."""
  found = hashlib.sha256()
  for leaf in jax.tree.leaves(values, is_leaf=lambda x: x is None):
    if isinstance(leaf, (np.ndarray, jax.Array)):
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
      leaf = np.asarray(leaf)
      found.update(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    else:
      found.update(repr(leaf).encode())
  return found.hexdigest()[:16]


@functools.cache
def training(recipe: Recipe) -> list[str]:
  """The steps of a training on images, without its network."""
  logits = jnp.ones((2, 3))
  labels = jnp.zeros(2, jnp.int32)
  auxiliary = recipe.network.auxiliary

  def loss(x):
    return recipe.loss((x, x if auxiliary else None), labels)

  def masks(key):
    return recipe.masks(key, 2, 0.5, None)

  return [
    digest(recipe.steps, recipe.steps_per_epoch, recipe.train.batch),
    *_updates(recipe.optimiser, recipe.steps_per_epoch, recipe.train.epochs),
    program(loss, logits),
    program(masks, jax.random.key(0)),
    augmentation(recipe.augment),
  ]


def _updates(optimiser, steps_per_epoch: int, epochs: int) -> list[str]:
  """Steps of an optimiser in the first and in the last epoch."""
  params = {name: np.float32([1.0, -2.0]) for name in ("kernel", "scale")}
  update = jax.jit(optimiser.update)
  found = []
  for epoch in (0, epochs - 1):
    state = optimiser.init(params)
    counts = epoch * steps_per_epoch
    state = jax.tree.map(
      lambda x, counts=counts: (
        x + counts if jnp.issubdtype(jnp.result_type(x), jnp.integer) else x
      ),
      state,
    )
    for size in (0.5, 100.0):
      gradients = jax.tree.map(lambda x, size=size: x * size, params)
      step, state = update(gradients, state, params)
      found.append(digest(step))
  return found


@functools.cache
def augmentation(config: AugmentConfig) -> str:
  """The program that changes images."""
  images = np.zeros((2, 8, 8, 1), np.uint8)
  mean = std = np.ones(1, np.float32)
  return program(
    functools.partial(augment, mean=mean, std=std, config=config),
    jax.random.key(0),
    images,
  )


class _Enough(Exception):
  """The programs that were asked for are traced."""


class Recorder:
  """Takes the place of compiled functions: traces them, and makes up results.

  Attributes:
    log: what was called with which numbers, and the programs.
  """

  # {function, its settings, types of what it takes: program and shapes}.
  _known = {}  # noqa: RUF012

  def __init__(self, legal: np.ndarray, programs: int | None = None):
    """Starts an empty log.

    Args:
      legal: architectures [N, L], which decodings give, one after the other.
      programs: number of calls after which one more raises `_Enough`.
    """
    self.log: list[str] = []
    self._legal, self._given = legal, 0
    self._left = math.inf if programs is None else programs

  def of(self, function):
    """A function that is called in the place of another."""

    def call(*arguments, **settings):
      if not self._left:
        raise _Enough
      self._left -= 1
      whole = functools.partial(function, **settings)
      leaves, tree = jax.tree.flatten(arguments)
      types = tuple(map(jax.typeof, leaves))
      key = function, tree, types, tuple(sorted(settings.items()))
      if key not in self._known:
        self._known[key] = _traced(whole, *arguments)
      made, shapes = self._known[key]
      self.log += digest(*arguments), made
      return jax.tree.map(self._made_up, shapes)

    return call

  def of_fit(self, function):
    """Does the same as `of` for `fit.fit`, whose state counts epochs."""

    def call(state, *arguments, **settings):
      new, losses = self.of(function)(state, *arguments, **settings)
      epoch = np.int32(state.epoch + settings["config"].epochs)
      return new._replace(epoch=epoch), losses

    return call

  def _made_up(self, shape):
    if shape.dtype == jnp.int32 and shape.shape[-1:] == self._legal.shape[1:]:
      count = math.prod(shape.shape[:-1])
      rows = (self._given + np.arange(count)) % len(self._legal)
      self._given += count
      return self._legal[rows].reshape(shape.shape)
    return np.zeros(shape.shape, shape.dtype)


# All that strategies have devices do, but for `fit.fit`.
_COMPILED = (
  (ascent, "propose"),
  (metrics, "reconstruct"),
  (metrics, "predict"),
  *((ensemble, name) for name in ("start", "train", "move", "judge", "place")),
)


def recording(space, monkeypatch, programs: int | None = None) -> Recorder:
  """Has all that strategies compile traced only."""
  legal = np.asarray(space.sample(jax.random.key(1), 500))
  recorder = Recorder(legal, programs)
  monkeypatch.setattr(fit, "fit", recorder.of_fit(fit.fit))
  for module, name in _COMPILED:
    monkeypatch.setattr(module, name, recorder.of(getattr(module, name)))
  return recorder


def proposing(
  strategy, space, tokens, monkeypatch, constraint=None, programs=None
) -> list[str]:
  """A round of a strategy, traced only.

  Args:
    strategy: told and asked once.
    space: the architectures.
    tokens: int32 [N, L], the pool.
    monkeypatch: of pytest.
    constraint: what is asked beside the score.
    programs: how many calls of programs to take part in; all if None.
  """
  recorder = recording(space, monkeypatch, programs)
  seen = Observations(
    tokens, np.linspace(0, 1, len(tokens)), set(space.keys(tokens)), constraint
  )
  key = jax.random.key(0)
  with contextlib.suppress(_Enough):
    state = strategy.init(key)
    recorder.log.append(digest(jax.tree.leaves(state)))
    state, _ = strategy.tell(state, key, seen, lambda *_: None, lambda *_: None)
    _, asked = strategy.ask(state, key, seen, 3)
    recorder.log.append(digest(asked.tokens))
  return recorder.log


def changed(value, limits):
  """Another value of a setting, allowed if a number; None if none is known."""
  if isinstance(value, bool):
    return not value
  if isinstance(value, tuple):
    return value[:-1]
  if limits.choices:
    rest = [choice for choice in limits.choices if choice != value]
    return rest[0] if rest else None
  candidates = [value + 1, value - 1] if isinstance(value, int) else []
  if isinstance(value, float):
    candidates = [value / 2, 0.25, value * 2, 0.5]
  for candidate in candidates:
    if candidate != value and limits.allow(candidate):
      return candidate
  return None
