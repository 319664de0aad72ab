"""The stand-alone networks against the reference numbers."""

from collections.abc import Iterator, Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.spaces import cnn
from tests.layer_by_layer import layer_by_layer
from tests.reference import formula
from tests.reference.check import Check, compare

# Numbers of parameters differ by less than one, or not at all.
EXACT = 0.5

# Full sizes whose parameters are counted: {name: (stem, N, C)}.
SIZES = {
  "params_N6_C36": ("cifar", 6, 36),
  "params_N6_C128": ("cifar", 6, 128),
  "params_imagenet_N4_C42": ("imagenet", 4, 42),
  "params_imagenet_N4_C52": ("imagenet", 4, 52),
}


def checks(case: dict, arrays: Mapping[str, np.ndarray]) -> Iterator[Check]:
  """Compares every output of one case.

  Args:
    case: its entry in the JSON file.
    arrays: what the case's arrays hold, by names without the case's.

  Yields:
    A check for each output.
  """
  network = _network(case)
  yield from _counts(case, network)
  size = case["image_size"]
  images = jnp.asarray(formula.images((case["batch"], size, size, 3)))
  variables = _variables(network, images)
  for output, value in _outputs(network, variables, images).items():
    yield compare(case, output, value, arrays[output])


@layer_by_layer()
def _outputs(network: StandAlone, variables, images) -> dict[str, jax.Array]:
  (logits, auxiliary), _ = network.apply(
    variables, images, None, False, mutable="batch_stats"
  )
  evaluation, _ = network.apply(variables, images)
  return {
    "train_logits": logits,
    "aux_logits": auxiliary,
    "eval_logits": evaluation,
  }


def _network(case: dict) -> StandAlone:
  cells = np.array(case["arch"].split(), np.int32).reshape(2, -1, 4)
  sizes = ("cells_per_stage", "channels", "classes")
  config = NetworkConfig(
    ops=case["space"],
    nodes=cells.shape[1],
    auxiliary=True,
    **{size: case[size] for size in sizes},
  )
  return StandAlone(config, tuple(cnn.to_tokens(cells).tolist()))


def _counts(case: dict, network: StandAlone) -> Iterator[Check]:
  """Exact numbers of parameters; nothing is allocated."""
  small = network.config
  for output, expected in _flat_counts(case):
    size, _, auxiliary = output.rpartition("_with")
    config = dataclasses.replace(small, auxiliary=auxiliary == "_aux")
    if size in SIZES:
      stem, cells, channels = SIZES[size]
      config = dataclasses.replace(
        config,
        stem=stem,
        cells_per_stage=cells,
        channels=channels,
        classes=10 if stem == "cifar" else 1000,
      )
    ours = count(dataclasses.replace(network, config=config))
    yield Check(output, abs(ours - expected), EXACT)


def _flat_counts(case: dict) -> Iterator[tuple[str, int]]:
  """`params_SIZE_with_aux` or `.._without_aux`, nested in the case or not."""
  for name, value in case.items():
    if not name.startswith("params"):
      continue
    if isinstance(value, dict):
      yield from ((f"{name}_{key}", number) for key, number in value.items())
    else:
      yield name, value


def count(network: StandAlone) -> int:
  """Parameters of a network, from shapes alone."""
  size = 32 if network.config.stem == "cifar" else 224
  shapes = _shapes(network, jnp.zeros((1, size, size, 3)))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@layer_by_layer()
def _shapes(network: StandAlone, images):
  return jax.eval_shape(network.init, jax.random.key(0), images)


def _variables(network: StandAlone, images):
  """Running statistics are fresh; weights are the formula's."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(value_of(path[-1].key, leaf.shape)),
    _shapes(network, images),
  )


def value_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a tensor of a network; weights are the formula's."""
  if "scale" in name or "variance" in name:
    return np.ones(shape, np.float32)
  if "offset" in name or "mean" in name:
    return np.zeros(shape, np.float32)
  if name == "bias":
    return formula.bias(shape[0])
  if "depthwise" in name:  # [C, k, k] for [C, 1, k, k].
    return formula.weight((shape[0], 1, *shape[1:]))[:, 0]
  if len(shape) == 4:
    return formula.weight(shape)
  return formula.weight(shape[::-1]).T
