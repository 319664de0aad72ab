"""The supernet against the reference numbers."""

from collections.abc import Iterator, Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.supernet import Supernet
from tests.reference import formula
from tests.reference.check import Check, compare
from tests.reference.networks import EXACT, value_of


def checks(case: dict, arrays: Mapping[str, np.ndarray]) -> Iterator[Check]:
  """Compares every output of one case.

  Args:
    case: its entry in the JSON file.
    arrays: what the case's arrays hold, by names without the case's.

  Yields:
    A check for each output.
  """
  cells = np.array(case["arch"].split(), np.int32).reshape(2, -1, 4)
  size = case["image_size"]
  images = jnp.asarray(formula.images((case["batch"], size, size, 3)))
  network = _network(case, nodes=cells.shape[1])
  shapes = jax.eval_shape(network.init, jax.random.key(0), images, cells)
  yield from _counts(case, shapes["params"])
  params = jax.tree_util.tree_map_with_path(_fill, shapes)
  ours = _apply(network, params, images, cells)
  for output, value in zip(("logits", "aux_logits"), ours, strict=True):
    yield compare(case, output, value, arrays[output])


def _network(case: dict, nodes: int) -> Supernet:
  sizes = ("cells_per_stage", "channels", "classes")
  return Supernet(
    NetworkConfig(
      ops=case["space"],
      nodes=nodes,
      auxiliary=True,
      **{size: case[size] for size in sizes},
    )
  )


def _counts(case: dict, shapes: dict) -> Iterator[Check]:
  """Exact numbers of parameters, with the auxiliary head and without."""
  without = {name: tree for name, tree in shapes.items() if name != "auxiliary"}
  for output, tree in (("with_aux", shapes), ("without_aux", without)):
    count = sum(leaf.size for leaf in jax.tree.leaves(tree))
    error = abs(count - case["params"][output])
    yield Check(f"params_{output}", error, EXACT)


# Cases of one op set and size share a compile: the architecture is data.
@functools.partial(jax.jit, static_argnums=0)
def _apply(network, params, images, cells):
  return network.apply(params, images, cells)


def _fill(path, leaf) -> np.ndarray:
  """The formula's values; cells stack tensors that it sees one by one."""
  module, name = path[-2].key, path[-1].key
  stacked = module.startswith("cell_")
  value = value_of(name, leaf.shape[1:] if stacked else leaf.shape)
  return np.broadcast_to(value, leaf.shape).astype(np.float32)
