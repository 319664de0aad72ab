"""Networks of summed edges: NAS-Bench-201's, and cells of one's own."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.evaluators import remote
from nao_jax.networks import convolutions, edge_config, edge_network, parameters
from nao_jax.networks.cost import cost
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.edge_network import EdgeNetwork
from nao_jax.spaces import nasbench201
from tests import trees
from tests.tiny_networks import stand_alone_variables

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
  own = stand_alone_variables(variables, rows.tolist(), SMALL)
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


def test_edges_may_stand_in_any_order_in_which_states_are_complete():
  edges = ((0, 2), (2, 3), (0, 1), (1, 3))
  config = edge_config.own_cells(edge_config.NASBENCH201, edges)
  config = dataclasses.replace(config, cells_per_stage=1, channels=4)
  rows = np.array([3, 2, 2, 3])
  tokens = rows + config.to_cells(np.zeros(4, int)) * -1
  network = EdgeNetwork(config, tracks=True)
  variables = _random_variables(network, IMAGES, rows)
  own = stand_alone_variables(variables, rows.tolist(), SMALL)

  def of_candidate(images):
    return network.apply(variables, images, rows, deterministic=True)[0].sum()

  def of_stand_alone(images):
    alone = _stand_alone(config, tokens)
    return alone.apply(own, images, deterministic=True)[0].sum()

  for found, expected in zip(
    jax.value_and_grad(of_candidate)(IMAGES),
    jax.value_and_grad(of_stand_alone)(IMAGES),
    strict=True,
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


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


def _shuffle_shapes(channels):
  affine = {"scale_a": (channels,), "offset_a": (channels,)}
  return affine | {"dense": (channels, channels, 3, 3), "mix": (channels,) * 2}


def _shuffle(x, weights, norm):
  x = norm(x[::-1], weights, "_a")
  x = convolutions.conv(x, weights["dense"], padding=((1, 1), (1, 1)))
  return convolutions.pointwise(x, weights["mix"])


SHUFFLE = edge_config.Operation("shuffle", _shuffle_shapes, _shuffle)
OWN = dataclasses.replace(
  edge_config.own_cells(
    [*edge_config.NASBENCH201, SHUFFLE],
    # Two edges between the same states, and one that skips a state.
    [(0, 1), (0, 1), (0, 2), (1, 2)],
  ),
  cells_per_stage=1,
  channels=4,
)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rows", [(3, 5, 1, 5), (5, 4, 2, 3)])
def test_gradients_are_those_of_the_stand_alone_network(rows, affine):
  config = dataclasses.replace(OWN, affine=affine)
  rows = np.int32(rows)
  tokens = rows + np.int32([c[0] for c in config.space.choices])
  candidate = EdgeNetwork(config, tracks=True)
  variables = _random_variables(candidate, IMAGES, rows)
  masks = jax.random.uniform(KEY, (3, 4, 3))

  def loss(params, network, stats, *arguments):
    (logits, _), _ = network.apply(
      {"params": params, "batch_stats": stats},
      *arguments,
      deterministic=False,
      mutable=["batch_stats"],
    )
    return jnp.sum(jnp.sin(logits))

  stats = variables["batch_stats"]
  found = jax.grad(loss)(
    variables["params"], candidate, stats, IMAGES, rows, masks
  )
  own = stand_alone_variables(variables, rows.tolist(), config)
  expected = jax.grad(loss)(
    own["params"],
    _stand_alone(config, tokens),
    own["batch_stats"],
    IMAGES,
    masks,
  )
  found = stand_alone_variables({"params": found}, rows.tolist(), config)[
    "params"
  ]
  trees.assert_close(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("affine", [True, False])
def test_costs_count_what_the_stand_alone_network_learns(affine):
  config = dataclasses.replace(OWN, affine=affine)
  tokens = np.asarray(config.space.sample(KEY, 1))[0]
  network = _stand_alone(config, tokens)
  shapes = parameters.shapes(network, jnp.zeros((1, 8, 8, 3)))
  assert cost(config, tokens, 8).parameters == _count(shapes["params"])


def test_edges_that_add_zeros_do_not_run():
  rows = jnp.int32([0, 3, 0, 1, 2, 0])
  for config in (SMALL, pickle.loads(pickle.dumps(SMALL))):
    plan = edge_network._plan(config, rows)
    assert plan.order[: plan.count].tolist() == [1, 3, 4]


def test_networks_can_be_sent_to_other_processes():
  sent = pickle.loads(pickle.dumps(SMALL))
  assert [one.name for one in sent.operations] == list(nasbench201.OPS)


def _keep(x, weights, norm):
  del weights, norm
  return x


@pytest.mark.parametrize(
  ("shapes", "apply", "message"),
  [
    ({"bias": (4,)}, _keep, "'bias' .*4.*: a kernel of this name has 2 axes"),
    ({"my_mean": (4, 4)}, _keep, "names with `mean`"),
    ({"scale": (3,)}, _keep, "a scale or an offset has shape .4."),
    ({}, lambda x, w, norm: norm(x, w), "uses the parameter 'scale'"),
    (
      {"scale": (4,), "offset": (4,)},
      _keep,
      "has 1 scales, and normalises 0 times",
    ),
  ],
)
def test_parameters_that_would_start_wrong_are_refused(shapes, apply, message):
  bad = edge_config.Operation("bad", lambda channels: shapes, apply)
  operations = (*edge_config.NASBENCH201[:4], bad)
  config = dataclasses.replace(SMALL, operations=operations)
  with pytest.raises(UserError, match=message):
    config.check(8)


def test_local_functions_cannot_be_sent_and_the_remedy_is_said():
  local = edge_config.Operation("local", lambda channels: {}, _keep)
  config = edge_config.own_cells([local], [(0, 1)])
  with pytest.raises(UserError, match="at the top level of a module"):
    remote._bytes(config)
