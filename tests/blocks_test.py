"""Work in blocks: the same numbers, in memory that does not grow with rows."""

import functools

import jax
import numpy as np
import pytest

from nao_jax.controller import blocks, metrics
from nao_jax.controller.model import Controller
from nao_jax.spaces import cnn
from nao_jax.strategies import ensemble
from tests.tiny_controllers import TINY, random_params, random_tokens

MEMBERS = 3
CONTROLLER = Controller(cnn.space(2), TINY)


@pytest.fixture(scope="module")
def params():
  """Parameters of one controller, and of three."""
  several = [random_params(CONTROLLER, seed) for seed in range(MEMBERS)]
  return several[0], jax.tree.map(lambda *leaves: np.stack(leaves), *several)


def _functions(params):
  one, several = params
  of_one = {"controller": CONTROLLER}
  return {
    "judge": functools.partial(ensemble.judge, several, **of_one),
    "place": functools.partial(ensemble.place, one, **of_one),
    "predict": functools.partial(metrics.predict, one, **of_one),
    "reconstruct": functools.partial(metrics.reconstruct, one, **of_one),
  }


FUNCTIONS = ("judge", "place", "predict", "reconstruct")


@pytest.mark.parametrize("rows", [1, 3, 5, 6, 7, 100])
def test_blocks_give_each_row_its_own_result(rows):
  tokens = np.arange(12, dtype=np.int32).reshape(6, 2)
  total, squares = blocks.by_blocks(
    lambda block: (block.sum(1), block**2), tokens, rows
  )
  np.testing.assert_array_equal(total, tokens.sum(1))
  np.testing.assert_array_equal(squares, tokens**2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_many_architectures_get_what_each_gets_alone(name, params):
  function = _functions(params)[name]
  tokens = random_tokens(CONTROLLER.space, blocks.ROWS + 1)
  many, few = function(tokens), function(tokens[-2:])
  if name == "judge":  # Members come first.
    many, few = many.T, few.T
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(
      ours[-2:], theirs, rtol=1e-5, atol=1e-6
    ),
    many,
    few,
  )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_memory_does_not_grow_with_the_number_of_architectures(name, params):
  function = _functions(params)[name]

  def memory(blocks_):
    shape = jax.ShapeDtypeStruct(
      (blocks_ * blocks.ROWS, CONTROLLER.space.length), np.int32
    )
    program = jax.jit(function.func, static_argnames="controller").lower(
      *function.args, shape, **function.keywords
    )
    found = program.compile().memory_analysis()
    # Rows and results must grow; they are tokens and a few numbers each.
    return found.temp_size_in_bytes - shape.size * shape.dtype.itemsize

  assert memory(16) < 1.5 * memory(2)
