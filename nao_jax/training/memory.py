"""Memory that a training step needs, counted without a device.

Between its forward and its backward pass, a step keeps the values that the
gradients are computed from. JAX reports them without running anything: the
function that pulls gradients back is a pytree of these values. Compilers also
need room for intermediate values; `working` estimates it by a rule of thumb.

Shapes: B images per step, D devices, M micro-batches.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nao_jax.networks import build, parameters
from nao_jax.training import (
  candidate,
  language,
  recurrent,
  stand_alone,
  stand_alone_language,
  supernet,
)

# Number of maps of the largest size that are live at once as intermediates.
_UNDER_WAY = 4
# Primitives that only reshape their input, or are recomputed where needed.
_RESHAPING = ("reshape", "squeeze", "copy")
_CALLS = {
  "jit": "jaxpr",
  "pjit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}


class Memory(NamedTuple):
  """Bytes on one device.

  Attributes:
    state: parameters, running statistics and the optimiser's state.
    gradients: gradients of one micro-batch, and the sum over all.
    kept: values kept between the two passes of one micro-batch.
    working: intermediate values of the computation under way.
    data: images or text kept on the device, and the inputs of one step.
  """

  state: int
  gradients: int
  kept: int
  working: int
  data: int

  @property
  def total(self) -> int:
    """Returns the sum of all parts."""
    return sum(self)


def size(tree: Any) -> int:
  """Returns the bytes of arrays, or of their shapes."""
  return sum(
    leaf.size * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  )


def kept(loss: Callable, params: Any, *inputs: Any) -> tuple[int, int]:
  """Counts the bytes kept between the forward and the backward pass.

  The parameters and inputs are not counted, as the caller has them anyway; nor
  are broadcast scalars, which compilers compute again.

  Args:
    loss: a function (params, *inputs) that returns the scalar to differentiate.
    params: arrays or their shapes.
    *inputs: arrays or their shapes.

  Returns:
    Bytes of all the values, and of the largest array among them.
  """

  def residuals(params, *inputs):
    return jax.vjp(lambda params: loss(params, *inputs), params)[1]

  jaxpr = jax.make_jaxpr(residuals)(params, *inputs).jaxpr
  makers = {
    var: equation for equation in jaxpr.eqns for var in equation.outvars
  }
  found = {_origin(var, makers) for var in jaxpr.outvars}
  sizes = [
    var.aval.size * var.aval.dtype.itemsize
    for var in found - {None, *jaxpr.invars, *jaxpr.constvars}
    if not jnp.issubdtype(var.aval.dtype, jax.dtypes.prng_key)
  ]
  return sum(sizes), max(sizes, default=0)


def _origin(var, makers: dict):
  """Returns the variable whose memory `var` shares; None for a constant."""
  if hasattr(var, "val"):  # A number in the program.
    return None
  equation = makers.get(var)
  if equation is None:
    return var
  name = equation.primitive.name
  if name == "broadcast_in_dim" and not equation.invars[0].aval.shape:
    return None
  if name in _RESHAPING:
    return _origin(equation.invars[0], makers)
  inner = equation.params.get(_CALLS.get(name))
  if inner is None:
    return var
  # A function may return one of its arguments, which takes no further memory.
  inside = {v: e for e in inner.jaxpr.eqns for v in e.outvars}
  at = equation.outvars.index(var)
  source = _origin(inner.jaxpr.outvars[at], inside)
  if source is None or source in inner.jaxpr.constvars:
    return None
  if source in inner.jaxpr.invars:
    read = equation.invars[inner.jaxpr.invars.index(source)]
    return _origin(read, makers)
  # Results that are the same variable count once.
  twins = [_origin(v, inside) is source for v in inner.jaxpr.outvars]
  return equation.outvars[twins.index(True)]


# Cached, as the search for a fitting size asks for the same two sizes often.
@functools.lru_cache(maxsize=16)
def of_network(
  trainer: stand_alone.Trainer,
  image_shape: tuple[int, ...],
  *,
  held: int = 0,
  devices: int = 1,
) -> Memory:
  """Counts a step of one network's training, or of a candidate's.

  Args:
    trainer: the settings; may be a `training.candidate.Trainer`.
    image_shape: (H, W, C).
    held: number of uint8 images that are kept on the device.
    devices: D, the devices that share a batch.
  """
  own = trainer.train.batch // devices
  part = own // trainer.accumulate
  architecture = ()
  if isinstance(trainer, candidate.Trainer):
    architecture = (_shape(trainer.network.architecture_shape, jnp.int32),)
  one = _shape((1, *image_shape))
  variables = parameters.shapes(trainer.model(), one, *architecture)
  params, stats = variables["params"], variables.get("batch_stats", {})

  def loss(params, stats, *batch):
    return stand_alone.batch_loss(params, stats, *batch, trainer)[0]

  batch = _batch(trainer, image_shape, part, architecture)
  counted, largest = kept(loss, params, stats, *batch)
  largest = max(largest, _inside(trainer, image_shape, part))
  optimiser = jax.eval_shape(trainer.optimiser.init, params)
  inputs = _shape((own, *image_shape)), _masks(trainer, own)
  return Memory(
    state=size((params, stats, optimiser)),
    gradients=2 * size(params),
    kept=counted,
    working=_UNDER_WAY * largest,
    data=held * math.prod(image_shape) + size(inputs),
  )


def of_supernet(
  trainer: supernet.Trainer,
  image_shape: tuple[int, ...],
  *,
  held: int = 0,
  devices: int = 1,
  each: int = 1,
) -> Memory:
  """Counts a step of a supernet's training.

  Args:
    trainer: the settings.
    image_shape: (H, W, C).
    held: see `of_network`.
    devices: see `of_network`.
    each: architectures that a step trains, a multiple of D or 1.
  """
  own = trainer.train.batch // devices
  part = own if each == 1 else trainer.train.batch // each
  cells = _shape(trainer.network.architecture_shape, jnp.int32)
  one = _shape((1, *image_shape))
  params = parameters.shapes(build.supernet(trainer.network), one, cells)

  def loss(params, *batch):
    return supernet.batch_loss(params, *batch, trainer)

  batch = _batch(trainer, image_shape, part, (cells,))
  counted, largest = kept(loss, params, *batch)
  largest = max(largest, _inside(trainer, image_shape, part))
  optimiser = jax.eval_shape(trainer.optimiser.init, params)
  return Memory(
    state=size((params, optimiser)),
    gradients=(1 if each == 1 else 2) * size(params),
    kept=counted,
    working=_UNDER_WAY * largest,
    data=held * math.prod(image_shape) + size(_shape((own, *image_shape))),
  )


def _inside(trainer, image_shape, images: int) -> int:
  """Returns the bytes of the largest map that is computed again, not kept."""
  return 4 * images * trainer.network.largest_inside(image_shape[0])


def of_text(
  trainer: stand_alone_language.Trainer | recurrent.Trainer,
  *,
  words: int = 0,
  devices: int = 1,
) -> Memory:
  """Counts a step of a language model's training, for the longest bptt window.

  Args:
    trainer: settings of the training of one cell, or of a search, whose weights
      all cells share.
    words: number of words of text that are kept on the device.
    devices: D, the devices that share the streams.
  """
  steps, state = trainer, None
  if isinstance(trainer, stand_alone_language.Trainer):
    steps = trainer.steps
    state = jax.eval_shape(trainer.init, jax.random.key(0))
  model, streams = steps.model, steps.train.batch // devices
  weights = jax.eval_shape(steps.init, jax.random.key(0))
  cell = _shape((model.nodes, 2), jnp.int32)
  chosen = jax.eval_shape(steps.of_cell, weights, cell)

  def loss(weights, cell, batch, hidden):
    return language.objective(
      weights, cell, batch, hidden, steps.train.slowness
    )[0]

  counted, largest = kept(
    loss,
    chosen,
    cell,
    _longest_batch(steps, streams),
    _shape((streams, model.width)),
  )
  return Memory(
    state=size(weights if state is None else state),
    gradients=size(chosen) + size(weights),
    kept=counted,
    working=_UNDER_WAY * largest,
    data=4 * words,
  )


def _longest_batch(trainer: recurrent.Trainer, streams: int) -> language.Batch:
  """Returns the shapes of the longest bptt window, with its masks."""
  steps = language.longest(trainer.train)
  return language.Batch(
    _shape((steps + 1, streams), jnp.int32),
    _shape((), jnp.int32),
    jax.eval_shape(
      lambda: language.masks(jax.random.key(0), trainer.model, streams, None)
    ),
  )


def _shape(shape, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)


def _batch(trainer, image_shape, images: int, architecture: tuple) -> tuple:
  """Returns the shapes of a network's inputs, labels and random keys."""
  inputs = _shape((images, *image_shape)), *architecture
  rngs = jax.eval_shape(lambda: {"dropout": jax.random.key(0)})
  labels = _shape((images,), jnp.int32)
  return (*inputs, _masks(trainer, images)), labels, rngs


def _masks(trainer, images: int):
  """Returns the shape of the drop-path factors for `images`, or None."""
  network = trainer.network
  if trainer.train.drop_path_keep == 1 or not network.branches:
    return None
  return _shape((len(network.cells), network.branches, images))


def least_accumulate(
  trainer: stand_alone.Trainer,
  image_shape: tuple[int, ...],
  room: int,
  *,
  held: int = 0,
  devices: int = 1,
) -> int | None:
  """Returns the fewest micro-batches with which a training fits, or None.

  Args:
    trainer: the settings.
    image_shape: (H, W, C).
    room: bytes available on each device.
    held: see `of_network`.
    devices: see `of_network`.
  """

  def memory(parts):
    changed = dataclasses.replace(trainer, accumulate=parts)
    return of_network(changed, image_shape, held=held, devices=devices)

  own = trainer.train.batch // devices
  # Memory grows linearly with the images of a micro-batch.
  one, more = memory(own), memory(max(own // 2, 1))
  images = own // max(own // 2, 1)
  slope = (more.total - one.total) / max(images - 1, 1)
  for parts in range(1, own + 1):
    needed = one.total + slope * (own // parts - 1)
    if own % parts == 0 and needed <= room:
      return parts
  return None
