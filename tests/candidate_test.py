"""The candidate is the stand-alone network of any architecture.

Shapes: N nodes, E = 2 N branches, S = N + 2 states.
"""

import collections
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nao_jax import parallel
from nao_jax.networks import build, convolutions, parameters
from nao_jax.networks.candidate import Candidate, Cell, Ends
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.spaces import cnn
from tests import trees
from tests.layer_by_layer import layer_by_layer
from tests.short_networks import ShortConfig
from tests.tiny_networks import random_cells

BATCH = 4
TINY = NetworkConfig(nodes=3, cells_per_stage=1, channels=4, classes=3)
ONE_CELL = ShortConfig(nodes=4, channels=4, classes=3, kinds="R")
# Sizes, and pixels of an image. The first network has all the ways in which a
# cell reads another; one reduction cell shows the other ops at both strides.
# Between them they have both stems, and an auxiliary head.
NETWORKS = {
  "small": (dataclasses.replace(TINY, auxiliary=True), 32),
  "middle": (dataclasses.replace(ONE_CELL, ops="middle"), 16),
  "large": (dataclasses.replace(ONE_CELL, ops="large", stem="imagenet"), 64),
}
# What an architecture's loose ends, bool [2, S], can be like. Together, the
# first two are read in every way: untouched or calibrated, from either input.
KINDS = {
  "two, one in the reduction cell": lambda loose: (
    loose.sum(1).tolist() == [2, 1]
  ),
  "three, two in the reduction cell, inputs in both": lambda loose: (
    loose.sum(1).tolist() == [3, 2] and loose[:, :2].any(1).all()
  ),
  "one in both cells": lambda loose: (loose.sum(1) == 1).all(),
  "more in both cells": lambda loose: (loose.sum(1) > 2).all(),
}


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def _loose(cells):
  """bool [2, S]."""
  return np.asarray(cnn.unused_states(cells))


def _slot(config, cells, collection, path):
  """Maps a leaf of the stand-alone network to the candidate's: path, index.

  Args:
    config: the sizes.
    cells: the architecture.
    collection: collection of the leaf.
    path: path of the leaf, its last part a name such as branch_3_pointwise_1.
  """
  *module, name = path
  if name.startswith("branch_"):
    _, branch, leaf = name.split("_", 2)
    k = int(module[0].removeprefix("cell_"))
    rows = cells[int(config.cells[k][0])]
    branch = int(branch)
    if collection == "batch_stats":
      kind, _, stage = leaf.partition("_")
      return (*module, f"branches_{kind}"), (branch, int(stage or 1) - 1)
    op = cnn.OP_SETS[config.ops][rows.reshape(-1, 2)[branch, 1]]
    return (*module, f"{op}_{leaf}"), (branch,)
  source = _source(config, path)
  if source is None:
    return tuple(path), ()
  reduction, width = config.cells[source]
  rows = np.repeat(_loose(cells)[int(reduction)], width)
  return tuple(path), (slice(None), rows) if name == "narrow_conv" else (rows,)


def _source(config, path):
  """The cell whose loose ends a leaf reads, or None."""
  *module, name = path
  if name == "narrow_conv":
    return 2 * config.cells_per_stage + 1
  if tuple(path) == ("classifier", "kernel"):
    return len(config.cells) - 1
  reads = name in ("kernel", "even", "odd") and len(module) == 2
  if not reads or not module[1].startswith("calibration_"):
    return None
  k, i = (int(part.rpartition("_")[2]) for part in module)
  return k - 2 + i if k - 2 + i >= 0 else None


def _leaves(tree):
  """(path of names, leaf) of a nested dict."""
  for path, leaf in jax.tree.leaves_with_path(tree):
    yield tuple(part.key for part in path), np.asarray(leaf)


def _put(config, cells, collection, banks, tree):
  """The candidate's collection with the stand-alone network's leaves in it."""
  banks = {path: np.array(leaf) for path, leaf in _leaves(banks)}
  for path, leaf in _leaves(tree):
    at, index = _slot(config, cells, collection, path)
    assert banks[at][index].shape == leaf.shape, (path, at)
    banks[at][index] = leaf
  return _nest(banks)


def _nest(flat):
  tree = {}
  for (*module, name), leaf in flat.items():
    inner = tree
    for part in module:
      inner = inner.setdefault(part, {})
    inner[name] = leaf
  return tree


def _loss(outputs):
  """Cross-entropy with class 0."""
  return sum(
    weight * -jnp.mean(jax.nn.log_softmax(logits)[:, 0])
    for weight, logits in zip((1, 0.4), outputs, strict=True)
    if logits is not None
  )


def _step(network, variables, images, *cells, masks):
  """Evaluation's outputs, then all that comes of a training step."""

  def loss(params):
    outputs, new = network.apply(
      {"params": params, "batch_stats": variables["batch_stats"]},
      images,
      *cells,
      masks,
      deterministic=False,
      mutable=["batch_stats"],
    )
    return _loss(outputs), (outputs, new["batch_stats"])

  (value, (outputs, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(
    variables["params"]
  )
  evaluation = network.apply(variables, images, *cells)
  return {
    "loss": value,
    "outputs": outputs,
    "evaluation": evaluation,
    "params": gradient,
    "batch_stats": stats,
  }


def _scattered(network, seed, *inputs):
  """Variables near those of a fresh network, none of them equal."""
  shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if "scale" in name or "variance" in name:
      return rng.uniform(0.5, 1.5, leaf.shape)
    return rng.normal(size=leaf.shape) / 4

  return jax.tree.map_with_path(draw, shapes)


@pytest.fixture(scope="module", autouse=True)
def double_precision():
  """The two networks add up in other orders."""
  with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
    # The convolutions of other platforms than CPU compile faster.
    patch.setattr(
      convolutions.lax,
      "platform_dependent",
      lambda *args, cpu, default: default(*args),
    )
    yield


def _of_each_kind(config):
  sample = random_cells(1000, 0, config)
  return [
    next(cells for cells in sample if kind(_loose(cells)))
    for kind in KINDS.values()
  ]


def _with_each_op(config):
  """Two kinds, and as few more as show each op at each stride."""
  chosen, sample = _of_each_kind(config)[:2], random_cells(1000, 0, config)
  ops = range(len(cnn.OP_SETS[config.ops]))
  missing = {*itertools.product(ops, (False, True))}
  missing.difference_update(*(_run(config, cells) for cells in chosen))
  while missing:
    shown = [missing.intersection(_run(config, cells)) for cells in sample]
    most = max(shown, key=len)
    assert most, missing
    chosen.append(sample[shown.index(most)])
    missing -= most
  return chosen


@pytest.fixture(scope="module", params=NETWORKS)
def comparison(request, traces):
  """Compares an architecture in the candidate with its stand-alone network."""
  config, size = NETWORKS[request.param]
  images = _random(0, BATCH, size, size, 3)
  banks = _scattered(
    Candidate(config), 1, images, random_cells(1, 0, config)[0]
  )

  @jax.jit
  def step(variables, cells, masks):
    traces[config.ops] += 1
    return _step(Candidate(config), variables, images, cells, masks=masks)

  def compare(seed, cells):
    network = _stand_alone(config, cells)
    variables = _scattered(network, seed, images)
    masks = np.random.default_rng(seed).uniform(
      0.5, 2, (len(config.cells), 2 * config.nodes, BATCH)
    )

    def put(into, tree):
      return {c: _put(config, cells, c, into[c], tree[c]) for c in into}

    given = put(banks, variables)
    zeros = {
      "params": jax.tree.map(np.zeros_like, banks["params"]),
      "batch_stats": given["batch_stats"],
    }
    # Not as one program: a maximum that is fused with what makes its inputs may
    # round the equal values of a tie differently, and take another one.
    with layer_by_layer():
      expected = _step(network, variables, images, masks=masks)
    return (
      step(given, cells, masks),
      expected | put(zeros, expected),
      put(_full(banks, True), _full(variables, False)),
      given,
    )

  return [compare(*case) for case in enumerate(_with_each_op(config))]


def _run(config, cells):
  """Yields the branches of a network: (op, whether at stride 2)."""
  for reduction in {reduction for reduction, _ in config.cells}:
    for source, op in cells[int(reduction)].reshape(-1, 2).tolist():
      yield op, reduction and source < 2


def _stand_alone(config, cells):
  return StandAlone(config, tuple(cnn.to_tokens(cells).tolist()))


def _full(tree, value):
  return jax.tree.map(lambda leaf: np.full(leaf.shape, value), tree)


# Some leaves are 0 but for rounding.
_assert_close = functools.partial(trees.assert_close, share=1e-5, atol=1e-12)


@pytest.mark.parametrize(
  "what", ["outputs", "evaluation", "loss", "params", "batch_stats"]
)
def test_the_candidate_is_the_stand_alone_network(what, comparison):
  for found, expected, _, _ in comparison:
    _assert_close(found[what], expected[what])


def test_what_is_not_used_has_no_gradient_and_keeps_its_statistics(comparison):
  def compare(unused, found, expected):
    np.testing.assert_array_equal(np.asarray(found)[unused], expected[unused])

  for found, _, unused, given in comparison:
    zeros = _full(given["params"], 0)
    jax.tree.map(compare, unused["params"], found["params"], zeros)
    jax.tree.map(compare, *(c["batch_stats"] for c in (unused, found, given)))


def test_every_architecture_of_a_space_runs_the_same_program(
  comparison, traces
):
  assert comparison
  assert set(traces.values()) == {1}


def _ends(seed, loose):
  """Makes loose ends of a cell of half the width, one side of 8 pixels."""
  return Ends(_random(seed, len(loose), 4, 8, 8, BATCH), np.array(loose))


# One input has the cell's width as it is; the other is calibrated.
INPUTS = _ends(0, [False, True, False, True, False]), _ends(1, [True] * 5)
ROWS = random_cells(4, 3, TINY)[:, 1]


@pytest.fixture(scope="module")
def variables():
  """Variables of a reduction cell."""
  return _scattered(Cell("small", 8, True), 1, *INPUTS, ROWS[0], None)


def _train_cell(variables, inputs, rows, axis_name=None):
  """Sums over the batch of all devices; and the running statistics."""
  cell = Cell("small", 8, True, axis_name, "tracked")

  def total(params):
    ends, new = cell.apply(
      variables | {"params": params}, *inputs, rows, None, mutable="batch_stats"
    )
    return jnp.sum(jnp.sin(ends.maps)), new

  (value, new), gradient = jax.value_and_grad(total, has_aux=True)(
    variables["params"]
  )
  return parallel.total((value, gradient), axis_name), new


@pytest.fixture(scope="module")
def expected(variables):
  """Results of each of the architectures, one after the other."""
  step = jax.jit(_train_cell)
  results = [step(variables, INPUTS, rows) for rows in ROWS]
  assert len({float(value) for (value, _), _ in results}) == len(ROWS)
  return results


def test_architectures_may_differ_between_devices_and_in_a_map(
  variables, expected
):
  def train(inputs, rows):
    return jax.lax.map(functools.partial(_train_cell, variables, inputs), rows)

  found = parallel.spread(train, in_axes=(None, 0), devices=2)(
    INPUTS, ROWS.reshape(2, 2, *ROWS.shape[1:])
  )
  _assert_close(
    jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found),
    jax.tree.map(lambda *leaves: np.stack(leaves), *expected),
  )


def test_devices_agree_on_the_statistics_of_the_whole_batch(
  variables, expected
):
  def train(parts):
    inputs = [
      Ends(x, ends.loose) for x, ends in zip(parts, INPUTS, strict=True)
    ]
    return _train_cell(variables, inputs, ROWS[0], parallel.AXIS)

  parts = [np.stack(np.split(ends.states, 2, -1)) for ends in INPUTS]
  found = parallel.spread(train, in_axes=0, out_axes=None, devices=2)(parts)
  _assert_close(found, expected[0])


def test_first_weights_are_distributed_as_in_the_stand_alone_network():
  config = dataclasses.replace(TINY, channels=8, classes=400, auxiliary=True)
  images, key = np.zeros((1, 32, 32, 3)), jax.random.key(0)
  checked = collections.Counter()
  for cells in _of_each_kind(config):
    banks = dict(
      _leaves(build.initialise_candidate(Candidate(config), key, images, cells))
    )
    plain = parameters.initialise(_stand_alone(config, cells), key, images)
    for (collection, *path), leaf in _leaves(plain):
      at, index = _slot(config, cells, collection, path)
      ours = banks[collection, *at][index]
      if not leaf.std():
        np.testing.assert_array_equal(ours, leaf)
      elif leaf.size > 300:
        assert stats.ks_2samp(ours.ravel(), leaf.ravel()).pvalue > 1e-4, path
        checked[at[-1]] += 1
  assert {"kernel", "bias", "even", "odd", "narrow_conv"} < set(checked)
