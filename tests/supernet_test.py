"""The supernet: one program, separate weights, and only the chosen ones.

Shapes: N nodes, E = 2 N branches. An edge is a pair of branch and input.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.networks import convolutions, normalisation, ops, parameters
from nao_jax.networks.supernet import Cell, Supernet
from nao_jax.spaces import cnn
from tests import trees
from tests.layer_by_layer import layer_by_layer
from tests.short_networks import ShortConfig
from tests.tiny_networks import TINY, random_cells

CONFIG = ShortConfig(nodes=3, channels=2, classes=3, kinds="NRN")
OPS = cnn.OP_SETS[CONFIG.ops]
SEP_3, SEP_5, AVERAGE, MAX, IDENTITY = range(5)
BATCH = 3
BRANCHES = 2 * CONFIG.nodes
NETWORK = Supernet(CONFIG)

CHAIN = ((0, SEP_3, 1, SEP_5), (2, IDENTITY, 2, SEP_3), (3, MAX, 3, AVERAGE))
LOOSE_INPUT = (
  (1, SEP_3, 1, IDENTITY),
  (1, MAX, 2, SEP_3),
  (3, SEP_5, 1, SEP_5),
)
ALL_NODES_LOOSE = (
  (0, IDENTITY, 0, SEP_5), (0, SEP_3, 0, SEP_3), (0, AVERAGE, 0, IDENTITY),
)  # fmt: skip
STRIDED = (
  (0, IDENTITY, 1, IDENTITY),
  (0, MAX, 2, IDENTITY),
  (3, SEP_3, 1, SEP_5),
)
ARCHITECTURES = [
  *random_cells(2, seed=1),
  np.array([CHAIN, LOOSE_INPUT], np.int32),
  np.array([ALL_NODES_LOOSE, CHAIN], np.int32),
  np.array([STRIDED, STRIDED], np.int32),
]


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


IMAGES = _random(0, BATCH, 8, 8, 3)
NO_DROP = np.ones((len(CONFIG.cells), BRANCHES, BATCH), np.float32)


def _edge(branch, source):
  """Position of an edge among all, counted one by one."""
  edges = [(b, s) for b in range(BRANCHES) for s in range(2 + b // 2)]
  return edges.index((branch, source))


def _loose_ends(rows):
  used = {int(source) for row in rows for source in (row[0], row[2])}
  return [state for state in range(len(rows) + 2) if state not in used]


@pytest.fixture(scope="module")
def params():
  """Random parameters, offsets and scales included, so that all matter."""
  params = parameters.initialise(
    NETWORK, jax.random.key(0), IMAGES, ARCHITECTURES[0]
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32),
    params,
  )


@pytest.fixture(scope="module")
def gradients(traces):
  """(params, cells, masks) to the gradients of a loss."""

  def loss(params, cells, masks):
    traces["gradients"] += 1
    logits, _ = NETWORK.apply(params, IMAGES, cells, masks)
    return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

  return jax.jit(jax.grad(loss))


@pytest.fixture(scope="module")
def scores(traces):
  """(params, cells) to logits."""

  def logits(params, cells):
    traces["scores"] += 1
    return NETWORK.apply(params, IMAGES, cells)[0]

  return jax.jit(logits)


def test_every_architecture_runs_the_same_program(
  params, traces, gradients, scores
):
  for cells in random_cells(50, seed=0):
    found = gradients(params, cells, NO_DROP)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.isfinite(scores(params, cells)).all()
  assert traces == {"gradients": 1, "scores": 1}
  assert gradients._cache_size() == scores._cache_size() == 1


def test_architectures_score_differently(params, scores):
  logits = [np.asarray(scores(params, cells)) for cells in ARCHITECTURES]
  distances = [
    np.abs(a - b).max() for i, a in enumerate(logits) for b in logits[:i]
  ]
  assert min(distances) > 1e-3


def _chosen(cells):
  """{(cell, bank): indices of the slices that an architecture uses}."""
  chosen = collections.defaultdict(set)
  for k, (reduction, _) in enumerate(CONFIG.cells):
    rows = cells[int(reduction)].tolist()
    for node, row in enumerate(rows):
      for side in range(2):
        branch, (source, op) = 2 * node + side, row[2 * side : 2 * side + 2]
        if op in (SEP_3, SEP_5):
          chosen[k, OPS[op]].add(_edge(branch, source))
        if op == IDENTITY and reduction and source < 2:
          chosen[k, "identity"].add(2 * branch + source)
    for state in _loose_ends(rows):
      chosen[k, "output_kernel"].add(state)
      if reduction and state < 2:
        chosen[k, "loose_input"].add(state)
  return chosen


def _banks(tree):
  """(cell, bank, leaf [edges, ...]) of all parameters that have a choice."""
  names = ("sep_conv_3x3", "sep_conv_5x5", "identity", "loose_input")
  for k in range(len(CONFIG.cells)):
    for name, leaf in tree["params"][f"cell_{k}"].items():
      for bank in (*names, "output_kernel"):
        if name.startswith(bank):
          yield k, bank, np.asarray(leaf)


@pytest.mark.parametrize("cells", ARCHITECTURES)
def test_exactly_the_chosen_weights_have_a_gradient(cells, params, gradients):
  chosen = _chosen(cells)
  for k, bank, leaf in _banks(gradients(params, cells, NO_DROP)):
    moved = np.flatnonzero(leaf.reshape(len(leaf), -1).any(axis=1))
    assert set(moved) == chosen[k, bank], (k, bank)


def test_a_dropped_branch_has_no_gradient(params, gradients):
  cells = np.array([LOOSE_INPUT, LOOSE_INPUT], np.int32)
  masks = NO_DROP.copy()
  masks[2, 0] = 0  # Branch 0 of cell 2 reads input 1 with a 3x3 convolution.
  found = gradients(params, cells, masks)["params"]
  at = _edge(0, 1)
  kernels = [found[f"cell_{k}"]["sep_conv_3x3_pointwise_1"] for k in (1, 2)]
  assert not kernels[1][at].any()
  assert kernels[0][at].any()
  assert kernels[1][_edge(3, 2)].any()


def _exchange_weights(params, node):
  """Gives each branch of a node the weights of the other."""
  a, b = 2 * node, 2 * node + 1

  def exchange(path, leaf):
    name, leaf = path[-1].key, np.array(leaf)
    one, other = slice(0, 0), slice(0, 0)
    if name.startswith("sep_conv"):
      sources = range(2 + node)
      one = [_edge(a, source) for source in sources]
      other = [_edge(b, source) for source in sources]
    elif name.startswith("identity"):
      one, other = [2 * a, 2 * a + 1], [2 * b, 2 * b + 1]
    leaf[one], leaf[other] = leaf[other], leaf[one]
    return leaf

  return jax.tree_util.tree_map_with_path(exchange, params)


def test_branches_own_separate_weights(params, scores):
  cells = np.array([CHAIN, STRIDED], np.int32)
  swapped = cells.copy()
  swapped[:, 0] = cells[:, 0, [2, 3, 0, 1]]
  expected = scores(params, cells)
  assert np.abs(scores(params, swapped) - expected).max() > 1e-3
  exchanged = _exchange_weights(params, node=0)
  np.testing.assert_array_equal(scores(exchanged, swapped), expected)


def _equations(jaxpr):
  """All equations of a program, those inside others included."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner)


def test_the_choice_of_an_op_is_a_branch_of_the_program(params):
  program = jax.make_jaxpr(NETWORK.apply)(params, IMAGES, ARCHITECTURES[0])
  branches = [
    len(equation.params["branches"])
    for equation in _equations(program.jaxpr)
    if equation.primitive.name == "cond"
  ]
  # Reduction cells choose twice: with stride and without.
  assert branches.count(len(OPS)) == 2 + 2


WIDTH, SIZE = 4, 4


@pytest.fixture(
  scope="module", params=[False, True], ids=["normal", "reduction"]
)
def cell(request):
  """A cell, its parameters, and its program in double precision."""
  module = Cell(CONFIG.ops, WIDTH, reduction=request.param)
  with jax.enable_x64(True):
    inputs = _inputs()
    shapes = jax.eval_shape(
      module.init, jax.random.key(0), *inputs[:2], np.array(CHAIN), None
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape) / 2, shapes["params"]
    )

    def run(params, previous, current, rows, masks):
      return module.apply({"params": params}, previous, current, rows, masks)

    yield module.reduction, params, run, jax.jit(_pulled(run))


def _inputs():
  """The input before the last is larger, and has other channels."""
  return (
    _random(1, 2, 2 * SIZE, 2 * SIZE, BATCH).astype(float),
    _random(2, WIDTH, SIZE, SIZE, BATCH).astype(float),
  )


def _pulled(function):
  """(params, previous, current, rows, masks) to value and gradients."""

  def run(params, previous, current, rows, masks):
    value, pull_back = jax.vjp(
      lambda *arguments: function(*arguments, rows, masks),
      params,
      previous,
      current,
    )
    weights = np.random.default_rng(3).normal(size=value.shape)
    return value, pull_back(jnp.asarray(weights))

  return run


def _plain_cell(params, previous, current, rows, masks, *, reduction):
  """A cell in plain Python, for one architecture."""
  calibrated = ops.factorized_reduction(
    jax.nn.relu(previous), params["calibration_0"]
  )
  states = [calibrated, current]
  for branch in range(BRANCHES):
    source, op = rows[branch // 2][2 * (branch % 2) :][:2]
    stride = 2 if reduction and source < 2 else 1
    at = _edge(branch, source)
    if op == IDENTITY and stride == 2:
      at = 2 * branch + source
    weights = {
      leaf: params[f"{OPS[op]}_{leaf}"][at]
      for leaf in ops.shapes(OPS[op], WIDTH, stride)
    }
    y = ops.apply(OPS[op], states[source], weights, stride=stride)
    y = y * masks[branch]
    if branch % 2:
      states[-1] = states[-1] + y
    else:
      states.append(y)
  loose = _loose_ends(rows)
  ends = [
    _shrunk(params, states[state], state)
    if reduction and state < 2
    else states[state]
    for state in loose
  ]
  kernel = jnp.concatenate([params["output_kernel"][state] for state in loose])
  y = convolutions.pointwise(jax.nn.relu(jnp.concatenate(ends)), kernel)
  return normalisation.batch_norm(
    y, params["output_scale"], params["output_offset"]
  )


def _shrunk(params, x, state):
  leaves = ("even", "odd", "scale", "offset")
  weights = {leaf: params[f"loose_input_{leaf}"][state] for leaf in leaves}
  return ops.factorized_reduction(x, weights)


@pytest.mark.parametrize("seed", range(len(ARCHITECTURES)))
def test_a_cell_equals_its_evaluation_in_plain_python(seed, cell):
  reduction, params, _, pulled = cell
  rows = ARCHITECTURES[seed][int(reduction)]
  masks = np.random.default_rng(seed).uniform(0.5, 2, (BRANCHES, BATCH))
  masks[seed % BRANCHES, 0] = 0

  def plain(params, previous, current, _, masks):
    return _plain_cell(
      params, previous, current, rows.tolist(), masks, reduction=reduction
    )

  with jax.enable_x64(True):
    found = pulled(params, *_inputs(), rows, masks)
    with layer_by_layer():
      expected = _pulled(plain)(params, *_inputs(), None, masks)
  trees.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("cell", [True], ids=["reduction"], indirect=True)
def test_architectures_can_be_mapped_over(cell):
  _, params, run, pulled = cell
  rows = np.stack([CHAIN, STRIDED])
  masks = np.ones((BRANCHES, BATCH))
  with jax.enable_x64(True):
    arguments = (params, *_inputs())
    mapped = jax.vmap(run, (None, None, None, 0, None))
    found = jax.jit(mapped)(*arguments, rows, masks)
    expected = [pulled(*arguments, row, masks)[0] for row in rows]
  np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@layer_by_layer()
def _count(config, size=8):
  """Parameters of a supernet, from shapes alone."""
  shapes = jax.eval_shape(
    Supernet(config).init,
    jax.random.key(0),
    jnp.zeros((1, size, size, 3)),
    jnp.zeros((2, config.nodes, 4), jnp.int32),
  )
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _expected_count(nodes, channels, classes):
  """Counts parameters of one cell a stage, ops `small`, by hand.

  The widths are C, 2C, 2C, 4C, 4C.
  """

  def mixing(before, after):
    """A 1x1 convolution or a factorized reduction, and its BatchNorm."""
    return before * after + 2 * after

  def cell(width, reduction):
    edges = nodes * (nodes + 3)
    separable = sum(2 * (mixing(width, width) + width * k * k) for k in (3, 5))
    output = (nodes + 2) * width**2 + 2 * width
    strided = 2 * 2 * nodes + 2 if reduction else 0
    return edges * separable + output + strided * mixing(width, width)

  c = channels
  stem = 27 * 3 * c + 2 * 3 * c
  cells = cell(c, False) + sum(
    cell(width, reduction)
    for width in (2 * c, 4 * c)
    for reduction in (True, False)
  )
  calibrations = (
    2 * mixing(3 * c, c)
    + mixing(3 * c, 2 * c)
    + 2 * mixing(c, 2 * c)
    + 3 * mixing(2 * c, 4 * c)
  )
  return stem + cells + calibrations + (4 * c + 1) * classes


@pytest.mark.parametrize("nodes", range(cnn.MIN_NODES, cnn.MAX_NODES + 1))
def test_the_parameters_can_be_counted_by_hand(nodes):
  config = dataclasses.replace(TINY, nodes=nodes, channels=6, classes=7)
  assert _count(config) == _expected_count(nodes, 6, 7)


def test_a_published_implementation_has_as_many_parameters():
  config = dataclasses.replace(TINY, nodes=5, channels=8, classes=10)
  assert _expected_count(5, 8, 10) == 788_754
  # The auxiliary head is not in the hand count.
  both = dataclasses.replace(config, auxiliary=True)
  assert _count(both, 32) == 1_195_548
