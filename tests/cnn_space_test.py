"""Convolutional cells: tokens, cells, equivalence."""

from hypothesis import given
import jax
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import cnn
from tests.cnn_cells import SPACES, architectures


def branches(row):
  return row[:2], row[2:]


@pytest.mark.parametrize(("nodes", "ops"), SPACES)
def test_a_space_has_the_layout_of_the_weight_sharing_code(nodes, ops):
  space = cnn.space(nodes, ops)
  assert space.length == 8 * nodes
  assert space.vocabulary == 1 + (nodes + 1) + len(cnn.OP_SETS[ops])
  assert space.length % space.tokens_per_step == 0
  most = [choices[-1] for choices in space.choices[0::2]]
  assert most == 2 * [node + 2 for node in range(nodes) for _ in "ab"]
  inputs = set().union(*space.choices[0::2])
  ops_ = set().union(*space.choices[1::2])
  assert not inputs & ops_
  assert inputs | ops_ == set(range(1, space.vocabulary))


def test_sizes_of_the_five_node_spaces_are_the_known_ones():
  assert cnn.space(5, "small").vocabulary == 12
  assert cnn.space(5, "middle").vocabulary == 17
  sizes = {
    ops: float(
      np.prod([len(c) for c in cnn.space(5, ops).choices], dtype=float)
    )
    for ops in ("small", "middle", "large")
  }
  assert sizes == {
    "small": pytest.approx(2.56e25, rel=0.01),
    "middle": pytest.approx(2.7e31, rel=0.01),
    "large": pytest.approx(1.8e32, rel=0.01),
  }


@pytest.mark.parametrize("nodes", [2, 5, 7])
def test_samples_are_legal_and_cover_every_legal_token(nodes):
  space = cnn.space(nodes, "large")
  tokens = np.asarray(space.sample(jax.random.key(nodes), 300))
  for position, choices in enumerate(space.choices):
    assert set(tokens[:, position].tolist()) == set(choices)


@given(architectures())
def test_a_swap_exchanges_the_branches_of_one_node(drawn):
  space, tokens = drawn
  cells = cnn.to_cells(tokens)
  nodes = cells.shape[1]
  assert space.swap_permutations.shape == (2, nodes, space.length)
  for cell in range(2):
    for node in range(nodes):
      expected = cells.copy()
      expected[cell, node] = np.roll(cells[cell, node], 2)
      swapped = tokens[space.swap_permutations[cell, node]]
      np.testing.assert_array_equal(cnn.to_cells(swapped), expected)
      assert space.keys(swapped[None]) == space.keys(tokens[None])


@given(architectures())
def test_the_canonical_form_sorts_the_branches_of_each_node(drawn):
  space, tokens = drawn
  canonical = space.canonical(tokens)
  assert space.accepts(canonical.tolist())
  expected = [
    [[*min(pair), *max(pair)] for pair in map(branches, cell)]
    for cell in cnn.to_cells(tokens).tolist()
  ]
  assert cnn.to_cells(canonical).tolist() == expected


@given(architectures())
def test_cells_count_from_zero_and_turn_back_into_tokens(drawn):
  space, tokens = drawn
  cells = cnn.to_cells(tokens)
  nodes = space.length // 8
  assert cells.shape == (2, nodes, 4)
  for node, row in enumerate(cells.swapaxes(0, 1)):
    assert (row >= 0).all()
    assert (row[:, 0::2] <= node + 1).all()
    assert (row[:, 1::2] < len(space.choices[1])).all()
  back = cnn.to_tokens(cells)
  assert back.dtype == np.int32
  np.testing.assert_array_equal(back, tokens)


@pytest.mark.parametrize("nodes", [2, 7])
def test_batches_in_numpy_and_jax_agree(nodes):
  space = cnn.space(nodes)
  tokens = space.sample(jax.random.key(0), 6).reshape(2, 3, space.length)
  cells = jax.jit(cnn.to_cells)(tokens)
  assert isinstance(cells, jax.Array)
  np.testing.assert_array_equal(cells, cnn.to_cells(np.asarray(tokens)))
  np.testing.assert_array_equal(jax.jit(cnn.to_tokens)(cells), tokens)
  unused = jax.jit(cnn.unused_states)(cells)
  assert unused.shape == (2, 3, 2, nodes + 2)
  np.testing.assert_array_equal(unused, cnn.unused_states(np.asarray(cells)))


@given(architectures())
def test_loose_ends_are_the_states_that_no_branch_names(drawn):
  _, tokens = drawn
  for cell in cnn.to_cells(tokens):
    used = {int(branch) for row in cell for branch in (row[0], row[2])}
    unused = set(range(len(cell) + 2)) - used
    assert set(np.flatnonzero(cnn.unused_states(cell)).tolist()) == unused
    assert unused


@pytest.mark.parametrize("nodes", [-1, 0, 1, 8])
def test_a_cell_has_two_to_seven_nodes(nodes):
  with pytest.raises(UserError, match=f"`nodes={nodes}`: .*2 to 7"):
    cnn.space(nodes)


def test_an_unknown_op_set_lists_the_op_sets():
  with pytest.raises(UserError, match=r"`ops=huge`: .*small, middle, large"):
    cnn.space(5, "huge")


def test_spaces_are_equal_by_value_and_differ_by_nodes_and_ops():
  assert cnn.space(5, "small") == cnn.space()
  assert hash(cnn.space(5, "small")) == hash(cnn.space())
  assert len({cnn.space(*which) for which in SPACES}) == len(SPACES)
