"""Costs, against the networks themselves: their shapes and their programs."""

import dataclasses
import math
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from nao_jax.networks import pooling
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig, Stem
from nao_jax.networks.stand_alone import Cell, StandAlone
from nao_jax.spaces import cnn, published

NAMES = [entry.name for entry in published.CONVOLUTIONAL]
OPS = [(ops, op) for ops, names in cnn.OP_SETS.items() for op in names]
TINY = NetworkConfig(nodes=2, cells_per_stage=1, channels=4)
IMAGE_SIZES = {"cifar": 32, "imagenet": 224}


class Counts(NamedTuple):
  """Counts and shapes that are compared."""

  parameters: list[int]  # Of the stem, each cell, the classifier.
  auxiliary_parameters: int
  shapes: list[tuple[int, int]]  # [C, H] of the stem, each cell.
  multiply_adds: int  # With the auxiliary head's.


def counted(config, tokens, image_size, image_channels=3) -> Counts:
  found = cost(config, tokens, image_size, image_channels)
  auxiliary = found.auxiliary.multiply_adds if found.auxiliary else 0
  return Counts(
    [part.parameters for part in found.parts],
    found.auxiliary_parameters,
    [tuple(part.output) for part in found.parts[:-1]],
    found.multiply_adds + auxiliary,
  )


def measured(config, tokens, image_size, image_channels=3) -> Counts:
  """Counts the real network, which is traced and not run."""
  network = StandAlone(config, tuple(np.asarray(tokens).tolist()))
  shape = (1, image_size, image_size, image_channels)

  def build(images):
    return network.init_with_output(
      jax.random.key(0), images, mutable=True, capture_intermediates=_is_part
    )

  image = jax.ShapeDtypeStruct(shape, np.float32)
  program, (_, found) = jax.make_jaxpr(build, return_shape=True)(image)
  cells = [f"cell_{k}" for k in range(len(config.cells))]
  maps = [found["intermediates"][part] for part in ("stem", *cells)]
  return Counts(
    [_size(found, part) for part in ("stem", *cells, "classifier")],
    _size(found, "auxiliary"),
    [jax.tree.leaves(each)[-1].shape[:2] for each in maps],
    _multiply_adds(program),
  )


def _is_part(module, method) -> bool:
  return isinstance(module, Stem | Cell) and method == "__call__"


def _size(variables, module) -> int:
  leaves = jax.tree.leaves(variables["params"].get(module, {}))
  return sum(leaf.size for leaf in leaves)


def _multiply_adds(program) -> int:
  return sum(map(_multiply_adds_of, program.eqns))


def _multiply_adds_of(equation) -> int:
  name, parameters = equation.primitive.name, equation.params
  if name == "dot_general":
    (contracted, _), _ = parameters["dimension_numbers"]
    x, output = equation.invars[0].aval, equation.outvars[0].aval
    return output.size * math.prod(x.shape[axis] for axis in contracted)
  if name == "conv_general_dilated":
    kernel, output = equation.invars[1].aval, equation.outvars[0].aval
    outputs = parameters["dimension_numbers"].rhs_spec[0]
    return output.size * kernel.size // kernel.shape[outputs]
  # Of one platform's shifted sums and the others' convolution, the latter.
  within = jax.tree.leaves(list(parameters.values()))
  programs = [leaf for leaf in within if hasattr(leaf, "eqns")]
  return max(map(_multiply_adds, programs), default=0)


@pytest.fixture(autouse=True, scope="module")
def _pools_without_convolution():
  """Pools are not counted, but an average pool is written as a convolution."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pooling, "avg_pool", pooling.max_pool)
    yield


@st.composite
def networks(draw):
  """A small network of any space: its configuration and its tokens."""
  config = NetworkConfig(
    ops=draw(st.sampled_from(list(cnn.OP_SETS))),
    nodes=draw(st.integers(2, 4)),
    cells_per_stage=draw(st.integers(1, 2)),
    channels=draw(st.sampled_from([2, 6])),
    classes=draw(st.integers(1, 100)),
    stem=draw(st.sampled_from(list(IMAGE_SIZES))),
    auxiliary=draw(st.booleans()),
  )
  space = cnn.space(config.nodes, config.ops)
  return config, [draw(st.sampled_from(tokens)) for tokens in space.choices]


@pytest.mark.parametrize("sizes", [(1, 4), (6, 36)], ids=["tiny", "official"])
@pytest.mark.parametrize("name", NAMES)
def test_published_networks_cost_what_they_have_and_do(name, sizes):
  architecture = cnn.resolve(name)
  config = NetworkConfig(architecture.ops, 5, *sizes, auxiliary=True)
  expected = measured(config, architecture.tokens, 32)
  assert counted(config, architecture.tokens, 32) == expected


@settings(max_examples=12)
@given(networks())
def test_any_network_costs_what_it_has_and_does(network):
  config, tokens = network
  size = IMAGE_SIZES[config.stem]
  assert counted(config, tokens, size) == measured(config, tokens, size)


@pytest.mark.parametrize(("ops", "op"), OPS)
def test_every_op_costs_what_it_does_at_both_strides(ops, op):
  config = dataclasses.replace(TINY, ops=ops)
  index = cnn.OP_SETS[ops].index(op)
  cell = [[0, index, 1, index], [2, index, 2, index]]
  tokens = cnn.to_tokens(np.array([cell, cell]))
  assert counted(config, tokens, 8, 1) == measured(config, tokens, 8, 1)


def test_loose_inputs_of_a_reduction_cell_cost_what_halves_them():
  # Input 0 is a loose end of both cells, and so are both nodes.
  cell = [[1, 4, 1, 4], [1, 4, 1, 4]]
  tokens = cnn.to_tokens(np.array([cell, cell]))
  assert counted(TINY, tokens, 8) == measured(TINY, tokens, 8)


# Without the auxiliary head; the first is the paper's 144.6M network.
@pytest.mark.parametrize(
  ("name", "stem", "cells", "channels", "expected"),
  [
    ("NAONet-A", "cifar", 6, 128, 144_576_394),
    ("NAONet-A", "cifar", 6, 36, 11_470_150),
    ("NAONet-B", "cifar", 6, 36, 2_921_302),
    ("NAONet-V2", "cifar", 6, 36, 4_387_654),
    ("NAONet-A", "imagenet", 4, 42, 11_353_831),
    ("NAONet-V2", "imagenet", 4, 52, 7_026_850),
  ],
)
@pytest.mark.parametrize("auxiliary", [False, True])
def test_published_networks_have_the_published_size(
  name, stem, cells, channels, expected, auxiliary
):
  architecture = cnn.resolve(name)
  config = NetworkConfig(
    ops=architecture.ops,
    cells_per_stage=cells,
    channels=channels,
    classes=10 if stem == "cifar" else 1000,
    stem=stem,
    auxiliary=auxiliary,
  )
  found = cost(config, architecture.tokens, IMAGE_SIZES[stem])
  assert found.parameters == expected
  assert (found.auxiliary_parameters > 0) == auxiliary


def test_four_times_the_pixels_take_four_times_the_multiply_adds():
  tokens = cnn.resolve("NAONet-A").tokens
  config = NetworkConfig(ops="large")
  small, large = (cost(config, tokens, size).parts[:-1] for size in (32, 64))
  for a, b in zip(small, large, strict=True):
    assert b.multiply_adds == 4 * a.multiply_adds
    assert b.parameters == a.parameters
