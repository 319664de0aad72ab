"""First weights: their distributions, however and wherever they are drawn."""

import collections
import re

import jax
import numpy as np
import pytest
from scipy import stats

from nao_jax.networks import build, candidate, macro, parameters, supernet
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.spaces import cnn
from tests.tiny_networks import random_cells

WIDTH, CLASSES, NODES = 16, 300, 3
IMAGES = np.zeros((1, 32, 32, 3), np.float32)


def _config(ops="small"):
  return macro.NetworkConfig(ops, NODES, 1, WIDTH, CLASSES, auxiliary=True)


def _supernet(config):
  network, cells = supernet.Supernet(config), random_cells(1, 0, config)[0]
  return parameters.initialise(network, jax.random.key(0), IMAGES, cells), cells


def _stand_alone(config):
  cells = random_cells(1, 1, config)[0]
  network = StandAlone(config, tuple(cnn.to_tokens(cells).tolist()))
  return parameters.initialise(network, jax.random.key(1), IMAGES), cells


def _candidate(config):
  network, cells = candidate.Candidate(config), random_cells(1, 2, config)[0]
  return build.initialise_candidate(
    network, jax.random.key(2), IMAGES, cells
  ), cells


NETWORKS = {
  "supernet": _supernet,
  "stand-alone": _stand_alone,
  "candidate": _candidate,
}


@pytest.fixture(scope="module", params=NETWORKS)
def drawn(request):
  """(kind of network, op set, its architecture, its variables), three times."""
  draws = []
  for ops in cnn.OP_SETS:
    variables, cells = NETWORKS[request.param](_config(ops))
    draws.append((request.param, ops, cells, variables))
  return draws


def _leaves(variables):
  """((path of the module, name), array) of each leaf, collections left out."""
  for path, leaf in jax.tree.leaves_with_path(variables):
    (_, *modules, name) = (part.key for part in path)
    yield (tuple(modules), name), np.asarray(leaf)


def _fan_in(kind, cells, modules, name):
  """Counts by hand the numbers that one output of a kernel reads.

  The output of a cell has its width in the supernet, and otherwise the width
  times its loose ends.
  """
  layout = _config().cells

  def channels(k):
    """Returns the channels of cell k's output; k is -1 for the stem."""
    if k < 0:
      return 3 * WIDTH
    reduction, width = layout[k]
    used = cells[int(reduction)][:, ::2].ravel()
    loose = NODES + 2 - len(set(used.tolist()))
    return width * (1 if kind == "supernet" else loose)

  if modules == ("stem",):
    return 3 * 3 * 3
  if modules == ("auxiliary",):
    return channels(3) if "narrow" in name else 128 * 2 * 2
  if modules == ("auxiliary", "classifier"):
    return 768
  if modules == ("classifier",):
    return channels(len(layout) - 1)
  k = int(modules[0].removeprefix("cell_"))
  if len(modules) > 1:  # A calibration of input 0 or 1.
    return channels(k - 2 + int(modules[1][-1]))
  return 1 if "depthwise" in name else layout[k][1]


def _unit_kernels(drawn):
  """{kind of kernel: its draws, each times sqrt(fan in / 2)}."""
  units = collections.defaultdict(list)
  for kind, _, cells, variables in drawn:
    for (modules, name), leaf in _leaves(variables):
      if re.search("scale|offset|bias|mean|variance|structuring", name):
        continue
      fan_in, window = _fan_in(kind, cells, modules, name), ()
      if re.search("dense|depthwise", name):
        window = leaf.shape[-2:]
        fan_in *= np.prod(window)
      module = re.sub("_?[0-9]", "", modules[-1])
      leaf_name = re.search("[a-z]*(_conv)?(_[12])?$", name)[0]
      unit = leaf.ravel() * np.sqrt(fan_in / 2)
      units[module, leaf_name, window].append(unit)
  return {kind: np.concatenate(unit) for kind, unit in units.items()}


def test_kernels_are_normal_with_variance_2_over_the_fan_in(drawn):
  units = _unit_kernels(drawn)
  assert len(units) >= 18
  for kind, unit in units.items():
    assert stats.kstest(unit, "norm").pvalue > 1e-4, (kind, unit.std())
    assert unit.std() == pytest.approx(1, abs=4 / np.sqrt(unit.size)), kind


def test_structuring_functions_are_nearly_flat(drawn):
  found = [
    leaf
    for *_, variables in drawn
    for (_, name), leaf in _leaves(variables)
    if "structuring" in name
  ]
  assert found or drawn[0][0] == "stand-alone"
  for leaf in found:
    assert 0 < np.abs(leaf).max() < 0.1


def test_batch_norm_starts_as_the_identity(drawn):
  counted = collections.Counter()
  for *_, variables in drawn:
    for (_, name), leaf in _leaves(variables):
      kind = re.search("scale|offset|mean|variance", name)
      if kind:
        counted[kind[0]] += 1
        expected = float(kind[0] in ("scale", "variance"))
        np.testing.assert_array_equal(leaf, expected)
  assert counted["scale"] == counted["offset"] > 20


def test_biases_of_classifiers_are_uniform_by_their_features(drawn):
  biases = [
    leaf * np.sqrt(_fan_in(kind, cells, modules, name))
    for kind, _, cells, variables in drawn
    for (modules, name), leaf in _leaves(variables)
    if name == "bias"
  ]
  assert len(biases) == 2 * len(drawn)  # One for each head.
  for bias in biases:
    assert stats.kstest(bias, "uniform", (-1, 2)).pvalue > 1e-4
    assert 0.97 < np.abs(bias).max() <= 1


# (module, its inputs): wide, so that leaves are large enough to compare.
MODULES = {
  "stem": (macro.Stem(macro.NetworkConfig(channels=64)), IMAGES),
  "auxiliary head": (
    macro.AuxiliaryHead(CLASSES),
    np.zeros((WIDTH, 8, 8, 1), np.float32),
  ),
  "calibration": (
    macro.Calibration(64, 4),
    np.zeros((64, 8, 8, 1), np.float32),
  ),
  "cell of the supernet": (
    supernet.Cell("small", 64, True),
    *np.zeros((2, 64, 4, 4, 1), np.float32),
    random_cells(1, 0, _config())[0, 1],
    np.ones((2 * NODES, 1), np.float32),
  ),
}


@pytest.mark.parametrize("kind", MODULES)
def test_one_draw_and_a_draw_for_each_parameter_have_one_distribution(kind):
  module, *inputs = MODULES[kind]
  each = jax.jit(module.init)(jax.random.key(0), *inputs)
  at_once = parameters.initialise(module, jax.random.key(1), *inputs)

  def sizes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

  assert sizes(at_once) == sizes(each)
  for (at, ours), (_, theirs) in zip(
    _leaves(at_once), _leaves(each), strict=True
  ):
    if not theirs.std():
      np.testing.assert_array_equal(ours, theirs)
    else:
      assert (ours != theirs).mean() > 0.99, at
      test = stats.ks_2samp(ours.ravel(), theirs.ravel())
      assert test.pvalue > 1e-4, at
