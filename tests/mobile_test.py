"""Chains of mobile blocks: the space, the networks and their costs."""

import dataclasses
import re

from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.networks import build, parameters
from nao_jax.networks import mobile as networks
from nao_jax.networks.cost import cost
from nao_jax.networks.mobile_config import (
  SEMINASNET,
  SMALL,
  MobileConfig,
  MobileNetworkConfig,
)
from nao_jax.settings import validate
from nao_jax.spaces import mobile
from nao_jax.spaces.mobile import Block
from tests import trees

KEY = jax.random.key(0)
# Two stages, three choices; one expansion is 1, and one stage keeps its width.
TINY = MobileNetworkConfig(
  MobileConfig(
    stem_width=4,
    stem_stride=1,
    first_width=4,
    places=(2, 3),
    widths=(4, 6),
    strides=(1, 2),
    last_width=5,
    kernels=(3, 5),
    expansions=(2, 1),
    epsilon=1e-3,
  ),
  classes=3,
)
IMAGES = jax.random.normal(KEY, (3, 7, 7, 3))
CHAINS = [(1, 2, 2, 1, 3), (2, 3, 1, 2, 1), (1, 1, 1, 3, 2)]


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# -- The space. ---------------------------------------------------------------

chains = st.tuples(
  *(st.sampled_from(choices) for choices in mobile.space().choices)
)


@given(chains)
def test_what_is_written_is_read(tokens):
  space = mobile.space()
  assert space.parse(space.text(tokens)).tolist() == list(tokens)


@given(chains, st.randoms())
def test_empty_places_may_stand_anywhere_in_their_stage(tokens, random):
  space, moved = mobile.space(), []
  for at in space.stages:
    first, *rest = tokens[at]
    blocks = [token for token in rest if token != 7]
    where = sorted(random.sample(range(len(rest)), len(blocks)))
    stage = [7] * len(rest)
    for place, token in zip(where, blocks, strict=True):
      stage[place] = token
    moved += [first, *stage]
  assert space.keys(np.array([moved])) == space.keys(np.array([tokens]))
  (canonical,) = space.canonical(np.array([tokens]))
  assert space.accepts(canonical.tolist())
  assert sorted(canonical) == sorted(tokens)


@given(chains, st.integers(0, 20))
def test_another_block_is_another_function(tokens, place):
  other = list(tokens)
  other[place] = tokens[place] % 6 + 1
  space = mobile.space()
  assert space.keys(np.array([other])) != space.keys(np.array([tokens]))


def test_the_published_space_has_21_places_and_a_chain_of_a_name():
  space = mobile.space()
  assert space.length == 21
  assert space.sequences == 6**6 * 7**15
  found = space.parse("SemiNASNet")
  assert space.text(found) == mobile.SEMINASNET


@pytest.mark.parametrize("stage", range(6))
def test_a_stage_that_begins_with_nothing_is_refused(stage):
  space = mobile.space()
  tokens = space.parse("SemiNASNet").tolist()
  tokens[4 * stage] = 7
  with pytest.raises(UserError, match="illegal") as error:
    space.parse(" ".join(map(str, tokens)))
  message = str(error.value)
  assert f"`arch`: token 7 at place {4 * stage + 1} of 21" in message
  assert f"begins stage {stage + 1}" in message
  assert "allowed there: 1 (MB3 3x3) 2 (MB6 3x3) 3 (MB3 5x5)" in message
  assert "nothing" not in message


def test_spaces_of_other_places_or_blocks_have_other_names():
  blocks = Block(3, 3), Block(5, 6)
  spaces = [
    mobile.space(),
    mobile.space((4, 4)),
    mobile.space((2, 3, 3), blocks),
    mobile.space((2, 3, 3), blocks[::-1]),
  ]
  assert len({space.name for space in spaces}) == len(spaces)
  assert spaces[2].length == 8
  assert spaces[2].vocabulary == 1 + 3


# -- Sizes. -------------------------------------------------------------------


def test_networks_have_as_many_parameters_as_the_official_ones():
  images = jnp.zeros((1, 224, 224, 3))
  network = MobileNetworkConfig(classes=1000)
  found = parameters.shapes(build.supernet(network), images, jnp.zeros(21, int))
  assert _count(found["params"]) == 16_034_168
  network = MobileNetworkConfig(SEMINASNET, classes=1000)
  tokens = tuple(mobile.space().parse("SemiNASNet").tolist())
  found = parameters.shapes(build.stand_alone(network, tokens), images)
  assert _count(found["params"]) == 6_319_360
  assert cost(network, np.array(tokens), 224).parameters == 6_319_360


@pytest.mark.parametrize("chain", CHAINS)
def test_costs_count_what_the_stand_alone_network_has_and_does(chain):
  module = build.stand_alone(TINY, chain)
  found = cost(TINY, np.array(chain), 7)
  shapes = parameters.shapes(module, IMAGES[:1])
  assert found.parameters == _count(shapes["params"])
  variables = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
  outputs = []

  def keep(next_call, arguments, keywords, context):
    result = next_call(*arguments, **keywords)
    if context.method_name == "__call__" and context.module.name:
      outputs.append(jax.tree.leaves(result)[0].shape)
    return result

  with nn.intercept_methods(keep):
    jax.eval_shape(module.apply, variables, IMAGES[:1])
  sizes = [part.output for part in found.parts]
  maps = [shape[:2] for shape in outputs if len(shape) == 4]
  assert maps == [(size.width, size.size) for size in sizes[:-1]]


def test_multiply_adds_are_those_of_the_literature():
  # Of MobileNetV2, whose blocks these are: 300 million at 224 pixels.
  tokens = np.array(
    [2, 2, 7, 7, 2, 2, 2, 7, 2, 2, 2, 2, 2, 2, 2, 7, 2, 2, 2, 7, 2]
  )
  widths = (24, 32, 64, 96, 160, 320)
  network = MobileNetworkConfig(MobileConfig(widths=widths), classes=1000)
  found = cost(network, tokens, 224)
  assert found.parameters == 3_504_872
  assert found.multiply_adds == 300_774_272


# -- Networks. ----------------------------------------------------------------


def _random_variables(network, *inputs):
  """Variables in which no BatchNorm is the identity."""
  variables = parameters.initialise(network, KEY, *inputs)
  rng = np.random.default_rng(0)

  def moved(path, leaf):
    words = ("scale", "offset", "mean", "variance")
    if not any(word in path[-1].key for word in words):
      return leaf
    return leaf + rng.uniform(-0.3, 0.3, leaf.shape).astype(np.float32)

  return jax.tree.map_with_path(moved, variables)


def _where(place):
  """The stage of a place, its part of the stage, and its number in there."""
  for number, stage in enumerate(TINY.stages):
    if place in range(stage.places.start, stage.places.stop):
      at = place - stage.places.start
      return f"stage_{number}", "next" if at else "first", max(at - 1, 0)
  raise ValueError(place)


def _own(variables, rows):
  """The variables of the stand-alone network, out of the candidate's."""
  found = {
    collection: {k: v for k, v in modules.items() if not k.startswith("stage")}
    for collection, modules in variables.items()
  }
  blocks = TINY.sizes.blocks
  for place, row in enumerate(rows):
    if row == len(blocks):
      continue
    module, part, at = _where(place)
    prefix = f"{part}_block_{row}_"
    shapes = networks.block_shapes(blocks[row], 1, 1)
    norms = [leaf[-2:] for leaf in shapes if leaf.startswith("scale")]
    for collection, modules in variables.items():
      if collection == "params":
        found[collection][f"place_{place}"] = {
          leaf: modules[module][prefix + leaf][at] for leaf in shapes
        }
        continue
      widths = {
        name: len(variables["params"][module][f"{prefix}scale{name}"][at])
        for name in norms
      }
      found[collection][f"place_{place}"] = {
        f"{kind}{name}": modules[module][f"{part}_{kind}"][at, call, :width]
        for kind in ("mean", "variance")
        for call, (name, width) in enumerate(widths.items())
      }
  return found


@pytest.fixture(scope="module")
def candidate():
  """The candidate, its variables, and a compiled function of both modes.

  The function takes variables, a chain and whether it is a training; it
  returns logits, the gradient of their sine, and new statistics.
  """
  module = build.candidate(TINY)
  variables = _random_variables(module, IMAGES, jnp.zeros(5, int))

  def loss(params, stats, rows, deterministic):
    (logits, _), new = module.apply(
      {"params": params, "batch_stats": stats},
      IMAGES,
      rows,
      deterministic=deterministic,
      mutable=["batch_stats"],
    )
    return jnp.sum(jnp.sin(logits)), (logits, new)

  gradients = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=3)

  def run(rows, deterministic):
    (_, (logits, new)), gradient = gradients(
      variables["params"],
      variables["batch_stats"],
      np.int32(rows),
      deterministic,
    )
    return logits, gradient, new

  return variables, run, gradients


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_candidate_computes_what_the_stand_alone_network_does(
  candidate, chain, deterministic
):
  variables, run, _ = candidate
  rows = TINY.to_cells(np.array(chain))
  logits, gradient, stats = run(rows, deterministic)
  module, own = build.stand_alone(TINY, chain), _own(variables, rows.tolist())

  def loss(params):
    (logits, _), new = module.apply(
      own | {"params": params},
      IMAGES,
      deterministic=deterministic,
      mutable=["batch_stats"],
    )
    return jnp.sum(jnp.sin(logits)), (logits, new)

  (_, (expected, new)), wanted = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(own["params"])
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  found = _own({"params": gradient} | stats, rows.tolist())
  close = {"rtol": 2e-3, "atol": 2e-4}
  for one, other in (
    (found["params"], wanted),
    (found["batch_stats"], new["batch_stats"]),
  ):
    trees.assert_close(one, other, **close)


@pytest.mark.parametrize("chain", CHAINS)
def test_only_chosen_blocks_have_gradients(candidate, chain):
  rows = TINY.to_cells(np.array(chain)).tolist()
  _, gradient, stats = candidate[1](rows, False)
  variables = candidate[0]
  for place, row in enumerate(rows):
    module, part, at = _where(place)
    for block in range(len(TINY.sizes.blocks)):
      prefix = f"{part}_block_{block}_"
      leaves = [
        np.any(leaf[at])
        for name, leaf in gradient[module].items()
        if name.startswith(prefix)
      ]
      assert all(leaves) if row == block else not any(leaves)
    name = f"{part}_mean"
    before = variables["batch_stats"][module][name]
    moved = np.any(stats["batch_stats"][module][name][at] != before[at])
    assert moved == (row < len(TINY.sizes.blocks))


def test_one_program_serves_every_chain(candidate):
  chains = np.array([*CHAINS, (2, 2, 2, 2, 2)])
  found = [np.asarray(candidate[1](row, True)[0]) for row in chains - 1]
  assert len({row.tobytes() for logits in found for row in logits}) == 4 * 3
  assert candidate[2]._cache_size() <= 2


def test_the_supernet_normalises_by_the_batch(candidate):
  """In a training step the candidate does so, too."""
  rows = np.int32(CHAINS[0]) - 1
  supernet = build.supernet(TINY)
  params = {"params": candidate[0]["params"]}
  logits, _ = jax.jit(supernet.apply)(params, IMAGES, rows)
  np.testing.assert_allclose(
    logits, candidate[1](rows, False)[0], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"widths": (4,)}, "`widths=(4,)`: 1 numbers, but `places=(2, 3)` has 2"),
    ({"strides": (1, 2, 1)}, "`strides=(1, 2, 1)`: 3 numbers"),
    (
      {"expansions": (1,)},
      "`expansions=(1,)`: 1 numbers, but `kernels=(3, 5)`",
    ),
    ({"kernels": (3, 4)}, "`kernels=(3, 4)`: 4 is even; give odd"),
    ({"kernels": (3, 3), "expansions": (2, 2)}, "expansion 2 occurs twice"),
    ({"places": (2, 0)}, "`places=(2, 0)`: allowed: 1 to 1000"),
  ],
)
def test_sizes_that_do_not_fit_together_are_refused(changes, message):
  with pytest.raises(UserError, match=re.escape(message)):
    validate(dataclasses.replace(TINY.sizes, **changes))


def test_images_that_are_too_small_are_refused():
  with pytest.raises(UserError, match=r"16 pixels wide, .* 32-fold"):
    MobileNetworkConfig().check(16)
  MobileNetworkConfig(SMALL).check(32)
