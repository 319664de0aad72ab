"""Scores of networks at their first weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nao_jax.networks import build, edge_config, parameters, untrained
from nao_jax.networks.candidate import with_fan_ins
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileConfig, MobileNetworkConfig
from nao_jax.spaces import nasbench201
from tests import tiny_networks, tracing, trees
from tests.tiny_networks import stand_alone_variables

KEY = jax.random.key(0)
EDGES = EdgeNetworkConfig(cells_per_stage=1, channels=4, classes=5)
NETWORKS = {
  "nao": NetworkConfig(
    nodes=2, cells_per_stage=1, channels=4, classes=5, dropout=0.5
  ),
  "mobile": MobileNetworkConfig(
    MobileConfig(
      stem_width=4,
      stem_stride=1,
      first_width=4,
      places=(2,),
      widths=(4,),
      strides=(2,),
      last_width=8,
      kernels=(3, 5),
      expansions=(3,),
    ),
    classes=5,
  ),
}
NETWORKS["own"] = dataclasses.replace(
  edge_config.own_cells(
    [
      edge_config.operation("conv_1x1"),
      edge_config.Operation("twice", lambda channels: {}, lambda x, *_: 2 * x),
    ],
    [(0, 1), (0, 2), (1, 2)],
  ),
  **{"cells_per_stage": 1, "channels": 4, "classes": 5},
)
IMAGES = jax.random.normal(KEY, (6, 8, 8, 3))
LABELS = jnp.arange(6) % 5
NOTHING, DEEP = (
  f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|"
  for op in ("none", "nor_conv_3x3")
)
MIXED = (
  "|nor_conv_1x1~0|+|none~0|nor_conv_1x1~1|"
  "+|avg_pool_3x3~0|skip_connect~1|nor_conv_3x3~2|"
)
CELLS = [*map(nasbench201.parse, (MIXED, NOTHING, DEEP))]


@pytest.fixture(scope="module")
def edges():
  """Weights, and {score: (values of CELLS twice, programs)}."""
  params = untrained.first_weights(EDGES, KEY, IMAGES)
  found = {}
  for name, function in untrained.SCORES.items():
    score = functools.partial(function, EDGES, params, IMAGES, LABELS)
    with tracing.programs() as programs:
      values = [np.asarray(score(np.array(CELLS))) for _ in range(2)]
      values.append(np.asarray(score(np.array(CELLS[::-1]))))
    found[name] = values, programs
  return params, found


def assert_one_program(programs, name):
  own = {"synaptic_flow": "_synaptic_flow"}.get(name, name)
  assert programs[f"trace {own}"] == programs[f"compile jit({own})"] == 1


def test_one_program_serves_all_architectures(edges):
  for name, (_, programs) in edges[1].items():
    assert_one_program(programs, name)


def test_a_score_depends_on_its_own_architecture_alone(edges):
  for (once, again, reverse), _ in edges[1].values():
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, reverse[::-1])
    assert np.isfinite(once).all()


def test_a_cell_without_operations_scores_least(edges):
  for (values, *_), _ in edges[1].values():
    assert values.argmin() == 1
  assert edges[1]["synaptic_flow"][0][0][1] == 0


def _alone(params, cell):
  """A function of weights, images and whether to normalise; its weights."""
  cells = EDGES.to_cells(np.asarray(cell))
  module = build.candidate(EDGES)
  shapes = parameters.shapes(module, IMAGES, jnp.asarray(cells))["batch_stats"]
  stats = jax.tree.map_with_path(
    lambda path, x: np.full(x.shape, float("variance" in path[-1].key)), shapes
  )
  variables = stand_alone_variables(
    {"params": params, "batch_stats": stats}, cells.tolist(), EDGES
  )
  network = build.stand_alone(EDGES, tuple(map(int, cell)))

  def run(weights, images, stats=None):
    given = {"params": weights, "batch_stats": stats or first}
    (logits, _), after = network.apply(
      given, images, None, stats is not None, mutable=["batch_stats"]
    )
    return logits, after["batch_stats"]

  first = variables["batch_stats"]
  return run, variables["params"], first


@pytest.mark.parametrize("number", [0, 2])
def test_the_gradient_is_that_of_the_network_alone(edges, number):
  params, found = edges
  run, weights, _ = _alone(params, CELLS[number])

  def loss(weights):
    picked = jax.nn.log_softmax(run(weights, IMAGES)[0])
    return -picked[jnp.arange(6), LABELS].mean()

  expected = optax.tree.norm(jax.grad(loss)(weights))
  value = found["gradient_norm"][0][0][number]
  np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize("number", [0, 2])
def test_the_flow_is_what_each_kernel_passes_on(edges, number):
  """Finite differences: a kernel's flow is that of its factor."""
  params, found = edges
  run, weights, first = _alone(params, CELLS[number])
  with jax.enable_x64(True):
    weights = jax.tree.map(lambda x: abs(np.float64(x)), weights)
    image, step = np.ones((1, 8, 8, 3)), 1e-6
    total = 0
    for path, _ in jax.tree.leaves_with_path(weights):
      if any(part in path[-1].key for part in ("scale", "offset", "bias")):
        continue

      def output(factor, path=path):
        changed = jax.tree.map_with_path(
          lambda p, x: x * factor if p == path else x, weights
        )
        return run(changed, image, first)[0].sum()

      total += (output(1 + step) - output(1 - step)) / (2 * step)
  value = found["synaptic_flow"][0][0][number]
  np.testing.assert_allclose(value, np.log1p(total), rtol=1e-5)


def test_the_jacobians_are_those_of_each_image(edges):
  params, found = edges
  run, weights, first = _alone(params, CELLS[0])
  _, after = run(weights, IMAGES)
  stats = jax.tree.map(lambda x, y: (y - 0.9 * x) / 0.1, first, after)

  def outputs(image):
    return run(weights, image[None], stats)[0].sum()

  jacobians = np.stack([jax.grad(outputs)(image).ravel() for image in IMAGES])
  values = np.linalg.eigvalsh(np.corrcoef(np.float64(jacobians))) + 1e-5
  np.testing.assert_allclose(
    found["jacobian_covariance"][0][0][0],
    -(np.log(values) + 1 / values).sum(),
    rtol=1e-3,
  )


def test_the_scale_of_the_classifier_acts_on_the_flow_alone(edges):
  """Every path leads through it; correlations have no scale."""
  params, found = edges
  kernel = 2 * params["classifier"]["kernel"]
  larger = params | {"classifier": params["classifier"] | {"kernel": kernel}}
  given = EDGES, larger, IMAGES, LABELS, np.array(CELLS)
  before = found["synaptic_flow"][0][0]
  np.testing.assert_allclose(
    np.expm1(untrained.synaptic_flow(*given)), 2 * np.expm1(before), rtol=1e-9
  )
  np.testing.assert_allclose(
    untrained.jacobian_covariance(*given),
    found["jacobian_covariance"][0][0],
    rtol=1e-4,
  )


def test_a_flow_may_have_hundreds_of_digits(edges):
  params = jax.tree.map(lambda x: x * np.float32(1e6), edges[0])
  cells = np.array(CELLS)
  flow = untrained.synaptic_flow(EDGES, params, IMAGES, LABELS, cells)
  before = edges[1]["synaptic_flow"][0][0]
  # Ten convolutions after each other: the stem, twelve in cells, four between
  # them, and the classifier; every path but those of shortcuts has them.
  assert 200 < np.asarray(flow)[2] - before[2] < 18 * np.log(1e6)


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("nao", "jacobian_covariance"),
    ("mobile", "synaptic_flow"),
    ("own", "gradient_norm"),
  ],
)
def test_other_spaces_are_scored_by_one_program_too(kind, name):
  network, score = NETWORKS[kind], untrained.SCORES[name]
  params = untrained.first_weights(network, KEY, IMAGES)
  tokens = np.asarray(network.space.sample(jax.random.key(1), 6))
  with tracing.programs() as programs:
    values, reverse = (
      np.asarray(score(network, params, IMAGES, LABELS, rows))
      for rows in (tokens, tokens[::-1])
    )
  np.testing.assert_array_equal(values, reverse[::-1])
  assert np.isfinite(values).all()
  assert len({*values.tolist()}) == len({*map(tuple, tokens.tolist())})
  assert_one_program(programs, name)
  if name == "jacobian_covariance":
    # Equal images have equal Jacobians, unless these are nothing but rounding.
    images = IMAGES.at[1].set(IMAGES[0])
    twice = np.asarray(score(network, params, images, LABELS, tokens))
    assert twice.max() < -1e4 < values.min()


def test_weights_follow_the_fan_in_of_an_architecture():
  network = tiny_networks.TINY
  module = build.candidate(network)
  cells = tiny_networks.random_cells(3, 0)
  params = parameters.initialise(module, KEY, IMAGES, cells[0])["params"]
  scaled = jax.jit(functools.partial(with_fan_ins, network))
  for own in cells:
    expected = build.initialise_candidate(module, KEY, IMAGES, own)["params"]
    trees.assert_close(scaled(params, own), expected, rtol=1e-6)
