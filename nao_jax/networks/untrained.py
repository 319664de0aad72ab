"""Scores of networks at their first weights, of any number of architectures.

The architecture is an argument of the candidate's program (candidate.py), so
that each score is traced and compiled once for all of them. All architectures
have the same first weights: those of a place and an operation are one draw,
whatever the rest is; only the scale follows the fan-in that an architecture
has. BatchNorm uses the batch's statistics, except where it says otherwise.

A score takes the network's sizes, weights from `first_weights`, normalised
images float32 [B, H, W, c], their labels int32 [B], and architectures of
`network.space`, int32 [N, L].

Shapes: N architectures, L tokens, B images.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import optax

from nao_jax.networks import build, candidate, parameters
from nao_jax.networks.build import Network
from nao_jax.networks.macro import NetworkConfig

# Factor of the input and of the outputs' gradient, so that nothing overflows.
_SMALL = 2.0**-400
# Addition to eigenvalues, as published.
_LEAST = 1e-5


def first_weights(
  network: Network, key: jax.Array, images: jax.Array
) -> dict[str, Any]:
  """Returns the weights that all architectures share; runs on the host.

  Args:
    network: the sizes.
    key: consumed.
    images: float32 [B, H, W, c]; only the shape matters.
  """
  module = build.candidate(_bare(network))
  cells = jnp.zeros(network.architecture_shape, jnp.int32)
  return parameters.initialise(module, key, images[:1], cells)["params"]


def _bare(network: Network) -> Network:
  """Returns the network without what only trainings have."""
  own = {field.name for field in dataclasses.fields(network)}
  without = {"auxiliary": False, "dropout": 0.0}
  return dataclasses.replace(
    network, **{name: without[name] for name in own & without.keys()}
  )


def _of_each(network: Network, params, images, tokens, score) -> jax.Array:
  """Scores one architecture after the other.

  `score` is a function of a network's weights, of `run` and of the first
  running statistics; `run` is a function of weights, images and running
  statistics, in whose place the batch's own are used by default; it returns the
  logits [B, classes], and statistics after a step of training.
  """
  network = _bare(network)
  module = build.candidate(network)
  cells = network.to_cells(tokens)
  first = jax.tree.map_with_path(
    lambda path, leaf: jnp.full(
      leaf.shape, float("variance" in path[-1].key), images.dtype
    ),
    parameters.shapes(module, images, cells[0])["batch_stats"],
  )

  def one(row):
    own = params
    if isinstance(network, NetworkConfig):
      own = candidate.with_fan_ins(network, params, row)

    def run(weights, images, stats=None):
      variables = {"params": weights, "batch_stats": stats or first}
      given = variables, images, row, None, stats is not None
      (logits, _), after = module.apply(*given, mutable=["batch_stats"])
      return logits, after["batch_stats"]

    return score(own, run, first)

  return lax.map(one, cells)


@functools.partial(jax.jit, static_argnums=0)
def gradient_norm(
  network: Network,
  params: dict,
  images: jax.Array,
  labels: jax.Array,
  tokens: jax.Array,
) -> jax.Array:
  """Returns the norms of the gradients of the mean cross-entropy, [N].

  The norm is the Euclidean one over all weights (Abdelfattah et al. 2021).
  """

  def score(own, run, _):
    def loss(weights):
      logits, _ = run(weights, images)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
      ).mean()

    return optax.tree.norm(jax.grad(loss)(own))

  return _of_each(network, params, images, tokens, score)


def synaptic_flow(
  network: Network,
  params: dict,
  images: jax.Array,
  labels: jax.Array,
  tokens: jax.Array,
) -> jax.Array:
  """Returns log(1 + synaptic flow), float64 [N] (Tanaka et al. 2020).

  The flow is the sum over all kernels of |w| d(sum of the outputs) / d|w| in
  the network whose weights are |w|, for one image of ones. BatchNorm passes
  its maps on, as at the first running statistics, and structuring functions
  are flat. Outputs must be in proportion to the input, as those of the
  operations that ship are. It is computed in float64, in which it may have 400
  digits.
  """
  del labels
  with jax.enable_x64(True):
    image = jnp.ones((1, *images.shape[1:]), jnp.float64)
    return _synaptic_flow(network, params, image, tokens)


@functools.partial(jax.jit, static_argnums=0)
def _synaptic_flow(network, params, image, tokens):
  def positive(path, leaf):
    name = path[-1].key
    if "scale" in name:
      return jnp.ones(leaf.shape, image.dtype)
    kernel = not any(part in name for part in ("offset", "bias", "structuring"))
    return jnp.abs(leaf.astype(image.dtype)) * kernel

  def score(own, run, first):
    weights = jax.tree.map_with_path(positive, own)
    gradients = jax.grad(
      lambda weights: _SMALL * run(weights, _SMALL * image, first)[0].sum()
    )(weights)
    flows = jax.tree.map_with_path(
      lambda path, w, g: 0 if "scale" in path[-1].key else jnp.vdot(w, g),
      weights,
      gradients,
    )
    flow = sum(jax.tree.leaves(flows))
    return jnp.logaddexp(0, jnp.log(flow) - 2 * jnp.log(_SMALL))

  return _of_each(network, params, image, tokens, score)


@functools.partial(jax.jit, static_argnums=0)
def jacobian_covariance(
  network: Network,
  params: dict,
  images: jax.Array,
  labels: jax.Array,
  tokens: jax.Array,
) -> jax.Array:
  """Returns scores of the correlations between images' Jacobians, [N].

  A Jacobian is the gradient of the sum of an image's outputs with respect to
  the image. The score is -sum(log(v + k) + 1 / (v + k)) over the eigenvalues v
  of the matrix of correlations between them, k = 1e-5 (Mellor et al. 2021,
  first version); it is near -B where they are independent, and far below where
  they are alike. Constant Jacobians count as equal. Unlike there, BatchNorm's
  statistics of the batch are constants: a sum over the batch of what BatchNorm
  gives never changes, so that networks which end with it would have none.
  """
  del labels

  def score(own, run, first):
    keep, (_, after) = parameters.MOMENTUM, run(own, images)
    stats = jax.tree.map(
      lambda old, new: (new - keep * old) / (1 - keep), first, after
    )
    jacobians = jax.grad(lambda x: run(own, x, stats)[0].sum())(images)
    jacobians = jacobians.reshape(len(images), -1)
    centred = jacobians - jacobians.mean(1, keepdims=True)
    norms = jnp.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / norms
    correlations = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST)
    correlations = jnp.where(jnp.isfinite(correlations), correlations, 1)
    values = jnp.maximum(jnp.linalg.eigvalsh(correlations), 0) + _LEAST
    return -jnp.sum(jnp.log(values) + 1 / values)

  return _of_each(network, params, images, tokens, score)


# By the names of the settings.
SCORES: dict[str, Callable[..., jax.Array]] = {
  "gradient_norm": gradient_norm,
  "synaptic_flow": synaptic_flow,
  "jacobian_covariance": jacobian_covariance,
}
