"""Networks of summed edges: NAS-Bench-201's, and cells of one's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.networks import edge_config, edge_network, parameters
from nao_jax.networks.cost import cost
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.edge_network import EdgeNetwork
from nao_jax.spaces import nasbench201

KEY = jax.random.key(0)
SMALL = EdgeNetworkConfig(cells_per_stage=1, channels=4)
IMAGES = jax.random.normal(KEY, (3, 8, 8, 3))
MIXED = (
  "|nor_conv_1x1~0|+|none~0|nor_conv_1x1~1|"
  "+|avg_pool_3x3~0|skip_connect~1|nor_conv_3x3~2|"
)
BEST = (
  "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
  "+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)
ALL = {
  op: f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|"
  for op in nasbench201.OPS
}


def _stand_alone(config, tokens):
  return edge_network.EdgeStandAlone(config, tuple(map(int, tokens)))


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ("cell", "sizes", "expected"),
  [
    (BEST, {}, 1_288_506),
    (BEST, {"classes": 100}, 1_294_356),
    (BEST, {"channels": 8, "cells_per_stage": 2}, 140_818),
    (MIXED, {}, 372_346),
    (ALL["none"], {}, 73_306),
    (ALL["nor_conv_3x3"], {}, 1_531_546),
  ],
)
def test_networks_have_as_many_parameters_as_the_official_ones(
  cell, sizes, expected
):
  network = _stand_alone(EdgeNetworkConfig(**sizes), nasbench201.parse(cell))
  shapes = parameters.shapes(network, jnp.zeros((1, 32, 32, 3)))
  assert _count(shapes["params"]) == expected
  tokens = nasbench201.parse(cell)
  assert cost(network.config, tokens, 32).parameters == expected


def _random_variables(network, *inputs):
  """Variables in which no BatchNorm is the identity."""
  variables = parameters.initialise(network, KEY, *inputs)
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(KEY, len(leaves))
  noise = [
    jax.random.uniform(k, x.shape, minval=0.5, maxval=1.5)
    for k, x in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(
    tree, [x + n for x, n in zip(leaves, noise, strict=True)]
  )


def _own(variables, rows):
  """The variables of the stand-alone network, out of the candidate's."""
  found = {}
  for collection, modules in variables.items():
    found[collection] = {}
    for module, leaves in modules.items():
      if not module.startswith("cell_"):
        found[collection][module] = leaves
        continue
      own = {}
      for edge, op in enumerate(rows):
        if collection == "params":
          prefix = f"operation_{op}_"
          own |= {
            f"edge_{edge}_{name.removeprefix(prefix)}": x[edge]
            for name, x in leaves.items()
            if name.startswith(prefix)
          }
        elif edge_config.NASBENCH201[op].shapes(4):
          own |= {
            f"edge_{edge}_{name.removeprefix('edges_')}_1": x[edge, 0]
            for name, x in leaves.items()
          }
      if own:
        found[collection][module] = own
  return found


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_candidate_computes_what_the_stand_alone_network_does(
  seed, deterministic
):
  tokens = np.asarray(nasbench201.space().sample(jax.random.key(seed), 1))[0]
  rows = SMALL.to_cells(tokens)
  candidate = EdgeNetwork(SMALL, tracks=True)
  variables = _random_variables(candidate, IMAGES, rows)
  masks = jax.random.uniform(KEY, (3, 6, 3))
  settings = {"deterministic": deterministic, "mutable": ["batch_stats"]}
  (logits, _), stats = candidate.apply(
    variables, IMAGES, rows, masks, **settings
  )
  own = _own(variables, rows.tolist())
  (expected, _), other = _stand_alone(SMALL, tokens).apply(
    own, IMAGES, masks, **settings
  )
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    stats["batch_stats"]["last_norm"]["mean"],
    other["batch_stats"]["last_norm"]["mean"],
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize("affine", [True, False])
def test_only_chosen_operations_have_gradients(affine):
  config = dataclasses.replace(SMALL, affine=affine)
  network = EdgeNetwork(config)
  rows = config.to_cells(nasbench201.parse(BEST))
  variables = _random_variables(network, IMAGES, rows)

  def loss(variables):
    logits, _ = network.apply(variables, IMAGES, rows)
    return jnp.sum(logits**2)

  gradient = jax.grad(loss)(variables)["params"]["cell_1"]
  assert any("scale" in name for name in gradient) == affine
  for name, leaf in gradient.items():
    op = int(name.split("_")[1])
    for edge, used in enumerate(rows.tolist()):
      assert bool(np.any(leaf[edge])) == (used == op), (name, edge)


def test_one_program_serves_every_architecture():
  network = EdgeNetwork(SMALL)
  variables = parameters.initialise(
    network, KEY, IMAGES, SMALL.to_cells(nasbench201.parse(BEST))
  )
  apply = jax.jit(lambda rows: network.apply(variables, IMAGES, rows)[0])
  tokens = np.asarray(nasbench201.space().sample(KEY, 5))
  found = [np.asarray(apply(row)) for row in SMALL.to_cells(tokens)]
  assert apply._cache_size() == 1
  assert len({row.tobytes() for row in found}) == 5


@pytest.mark.parametrize(
  ("edges", "message"),
  [
    ((), "none"),
    (((0, 1), (2, 1)), "edge 1 leads from state 2 to state 1; an edge leads"),
    (((0, 1), (1, 2), (0, 1)), "an earlier edge has read"),
    (((0, 2),), "no edge leads to state 1"),
    (((0, 1), (0, 2)), "no edge reads state 1"),
  ],
)
def test_tables_of_edges_that_are_no_cells_are_refused(edges, message):
  with pytest.raises(UserError, match=message):
    edge_config.check_edges(edges)


@pytest.mark.parametrize(
  "apply", [lambda x, *_: x[:, ::2], lambda x, *_: x.astype(jnp.float16)]
)
def test_operations_that_change_shape_or_type_are_refused(apply):
  bad = edge_config.Operation("bad", lambda channels: {}, apply)
  operations = (*edge_config.NASBENCH201[:4], bad)
  config = dataclasses.replace(SMALL, operations=operations)
  with pytest.raises(UserError, match="operation 'bad' turns maps float32"):
    config.check(8)


def test_a_space_of_another_number_of_tokens_is_refused():
  config = dataclasses.replace(SMALL, edges=((0, 1), (1, 2)))
  with pytest.raises(UserError, match="6 tokens, and the cell 2 edges"):
    config.check(8)
