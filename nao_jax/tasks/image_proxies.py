"""Signals of convolutional cells that need no training.

Shapes: N architectures, L tokens, B images.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.data.augment import normalise
from nao_jax.data.images import Examples, ImageData
from nao_jax.data.stream import ImageStream
from nao_jax.errors import UserError
from nao_jax.networks import untrained
from nao_jax.networks.build import Network
from nao_jax.runs.environment import in_32_bits
from nao_jax.strategies.proxies import Proxy
from nao_jax.tasks import image_costs
from nao_jax.tasks.image_config import SearchCnnConfig

_COSTS = {"parameters": "params", "multiply_adds": "multiply_adds"}
NAMES = (*_COSTS, *untrained.SCORES)
# The most images that a score sees.
BATCH = 64
# Architectures in one call of a program.
_A_CALL = 32


def check(config: SearchCnnConfig, others: Sequence[Proxy]) -> None:
  """Checks the names of signals, and that finalists can rank by them.

  Args:
    config: the settings of the search.
    others: signals of the caller.

  Raises:
    UserError: see `parse`; or no signal is quick where finalists need one.
  """
  parse(config.proxies, config.space, others)
  ranking = config.finalists and config.finalist.by_signals
  known = quick(config.proxies, config.space)
  if ranking and not (known or any(other.quick for other in others)):
    raise UserError(
      f"`finalist.by_signals=True` `proxies={config.proxies}`: no signal is "
      f"quick enough to rank a pool; name {' or '.join(_COSTS)} in `proxies`, "
      "or give `finalist.by_signals=False`"
    )


def parse(text: str, space: str, others: Sequence[Proxy] = ()) -> list[str]:
  """Returns the names in the setting `proxies`.

  Args:
    text: its value, names with commas between them.
    space: the setting `space`.
    others: signals of the caller.

  Raises:
    UserError: a name is unknown, occurs twice or means nothing in the space.
  """
  names = text.split(",") if text else []
  own = [*names, *(other.name for other in others)]
  for name in own[len(names) :]:
    if own.count(name) > 1:
      raise UserError(
        f"`signals`: {name!r} is there twice, or in `proxies={text}`; give it "
        "another name"
      )
  for at, name in enumerate(names):
    if name not in NAMES or name in names[:at]:
      raise UserError(
        f"`proxies={text}`: {name!r} {'twice' if name in NAMES else 'unknown'}"
        f"; allowed: each of {', '.join(NAMES)} once, with commas between them"
      )
  if space == "own" and "multiply_adds" in names:
    raise UserError(
      f"`proxies={text}`: multiply-adds of your own operations are not known; "
      "leave them out"
    )
  return names


def quick(text: str, space: str) -> list[str]:
  """Returns the names in the setting `proxies` of signals that are quick."""
  return [name for name in parse(text, space) if name in _COSTS]


def proxies(
  names: Sequence[str],
  network: Network,
  data: ImageData | ImageStream,
  seed: int,
) -> tuple[Proxy, ...]:
  """Makes signals; those of networks are computed at the same first weights.

  Args:
    names: names among `NAMES`.
    network: the sizes of the networks.
    data: the images; some of the training part are used.
    seed: seed of the weights and of the choice of images.
  """
  functions = {
    name: image_costs.exact(cost, network, data.image_shape)
    for name, cost in _COSTS.items()
  }
  if scores := [name for name in names if name in untrained.SCORES]:
    examples = _some(data, seed)
    images = normalise(examples.images, data.mean, data.std)
    labels = jnp.asarray(examples.labels)
    key = jax.random.key(seed)
    params = jax.device_put(untrained.first_weights(network, key, images))
    functions |= {
      name: _in_calls(untrained.SCORES[name], network, params, images, labels)
      for name in scores
    }
  return tuple(Proxy(name, functions[name], name in _COSTS) for name in names)


def _some(data: ImageData | ImageStream, seed: int) -> Examples:
  """Draws B training examples."""
  batch = min(BATCH, data.train_examples)
  if isinstance(data, ImageStream):
    return next(data.train_batches(batch, seed=seed))
  rows = np.random.default_rng(seed).permutation(data.train_examples)[:batch]
  return Examples(data.train.images[rows], data.train.labels[rows])


def _in_calls(score: Callable, *given) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function of any number of architectures, of one program."""

  @in_32_bits
  def function(tokens: np.ndarray) -> np.ndarray:
    calls = -(-len(tokens) // _A_CALL)
    rows = np.resize(tokens, (calls, _A_CALL, tokens.shape[1]))
    values = [np.asarray(score(*given, row)) for row in rows]
    return np.concatenate(values)[: len(tokens)]

  return function
