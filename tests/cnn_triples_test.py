"""Convolutional cells in triples, beside the same cells in pairs."""

import json

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import cnn, triples
from tests.cnn_cells import (
  NAONET_60_TOKENS,
  PUBLISHED,
  large_cells,
  numbers,
  triples_space,
)

KINDS = {7: "identity", 9: "conv", 11: "avg_pool", 12: "max_pool"}

KERNELS = {
  14: "1x1", 15: "2x2", 16: "3x3", 17: "5x5", 19: "1x3_3x1", 20: "1x7_7x1",
}  # fmt: skip


def op_names(tokens, nodes):
  """The ops of triples, spelled out from the vocabulary; [.., branches]."""
  kinds, kernels = (np.reshape(tokens, (-1, 3)) - (nodes + 2)).T[1:]
  names = [
    f"{triples.TYPES[kind]}_{triples.KERNELS[kernel - len(triples.TYPES)]}"
    for kind, kernel in zip(kinds, kernels, strict=True)
  ]
  return [name.replace("identity_1x1", "identity") for name in names]


def test_the_vocabulary_of_triples_is_the_official_one():
  space = triples_space(5)
  assert (space.length, space.vocabulary, space.tokens_per_step) == (60, 21, 3)
  for kind, name in KINDS.items():
    assert triples.TYPES[kind - 7] == name
  for kernel, name in KERNELS.items():
    assert triples.KERNELS[kernel - 14] == name
  assert len(triples.TYPES) == len(triples.KERNELS) == 7


@pytest.mark.parametrize("nodes", range(cnn.MIN_NODES, cnn.MAX_NODES + 1))
def test_triples_allow_exactly_the_large_set_in_every_branch(nodes):
  space, pairs = triples_space(nodes), cnn.space(nodes, "large")
  assert space.length == 12 * nodes
  assert space.choices[0::3] == pairs.choices[0::2]
  for position in range(0, space.length, 3):
    base = [choices[0] for choices in space.choices]
    legal = []
    for kind in range(space.vocabulary):
      for kernel in range(space.vocabulary):
        base[position + 1 : position + 3] = kind, kernel
        if space.accepts(base):
          legal += op_names(base[position : position + 3], nodes)
    assert sorted(legal) == sorted(cnn.OP_SETS["large"])


def test_triples_are_sampled_as_uniformly_as_pairs():
  count, cells = 1500, []
  for encoding in cnn.ENCODINGS:
    space = cnn.space(5, "large", encoding)
    tokens = np.asarray(space.sample(jax.random.key(4), count))
    assert all(map(space.accepts, tokens.tolist()))
    cells.append(cnn.to_cells(tokens, encoding))
  for drawn in cells:
    ops = np.bincount(drawn[..., 1::2].ravel(), minlength=11)
    expected = 20 * count / 11
    np.testing.assert_allclose(ops, expected, atol=5 * expected**0.5)
    # In each branch by itself, and whatever its input is.
    first = drawn[:, 0, 0]
    table = np.zeros((2, 11))
    np.add.at(table, (first[:, 0], first[:, 1]), 1)
    expected = count / 22
    np.testing.assert_allclose(table, expected, atol=5 * expected**0.5)


@given(large_cells())
def test_both_codings_of_cells_are_legal_and_turn_back_into_them(cells):
  nodes = cells.shape[1]
  for encoding in cnn.ENCODINGS:
    tokens = cnn.to_tokens(cells, encoding)
    assert tokens.dtype == np.int32
    assert cnn.space(nodes, "large", encoding).accepts(tokens.tolist())
    np.testing.assert_array_equal(cnn.to_cells(tokens, encoding), cells)
  ops = [cnn.OP_SETS["large"][op] for op in cells[..., 1::2].ravel()]
  assert op_names(tokens, nodes) == ops
  np.testing.assert_array_equal(tokens[0::3], cells[..., 0::2].ravel() + 1)


@pytest.mark.parametrize("nodes", [2, 5])
def test_batches_of_triples_in_numpy_and_jax_agree(nodes):
  tokens = triples_space(nodes).sample(jax.random.key(0), 6)
  tokens = tokens.reshape(2, 3, 12 * nodes)
  to_cells = jax.jit(cnn.to_cells, static_argnums=1)
  to_tokens = jax.jit(cnn.to_tokens, static_argnums=1)
  cells = to_cells(tokens, "triples")
  assert cells.dtype == jnp.int32
  assert cells.shape == (2, 3, 2, nodes, 4)
  expected = cnn.to_cells(np.asarray(tokens), "triples")
  assert isinstance(expected, np.ndarray)
  np.testing.assert_array_equal(cells, expected)
  np.testing.assert_array_equal(to_tokens(cells, "triples"), tokens)
  np.testing.assert_array_equal(cnn.to_tokens(expected, "triples"), tokens)
  none = cnn.to_cells(np.zeros((0, 12 * nodes), np.int32), "triples")
  assert cnn.to_tokens(none, "triples").shape == (0, 12 * nodes)


@given(large_cells())
def test_swaps_of_triples_are_those_of_pairs(cells):
  nodes = cells.shape[1]
  swapped = []
  for encoding in cnn.ENCODINGS:
    moves = cnn.space(nodes, "large", encoding).swap_permutations
    tokens = cnn.to_tokens(cells, encoding)[moves]
    swapped.append(cnn.to_cells(tokens, encoding))
    twice = np.take_along_axis(moves, moves, axis=-1)
    assert (twice == np.arange(moves.shape[-1])).all()
  np.testing.assert_array_equal(*swapped)


@given(large_cells(), st.data())
def test_the_same_architectures_are_equal_in_both_codings(cells, data):
  nodes = cells.shape[1]
  other = cells.copy()
  for cell, node in np.ndindex(2, nodes):
    if data.draw(st.booleans()):
      other[cell, node] = np.roll(other[cell, node], 2)
  if data.draw(st.booleans()):
    other[0, 0, 1] = data.draw(st.integers(0, 10))
  same, keys = [], []
  for encoding in cnn.ENCODINGS:
    space = cnn.space(nodes, "large", encoding)
    canonical = space.canonical(
      cnn.to_tokens(np.stack([cells, other]), encoding)
    )
    assert all(map(space.accepts, canonical.tolist()))
    same.append((canonical[0] == canonical[1]).all())
    recoded = cnn.to_tokens(cnn.to_cells(canonical, encoding))
    keys.append(cnn.space(nodes, "large").keys(recoded))
  assert keys[0] == keys[1]
  assert same[0] == same[1]


@given(large_cells(), st.sampled_from([*cnn.ENCODINGS]), st.booleans())
def test_either_coding_is_read_into_the_coding_of_the_space(
  cells, written, parted
):
  nodes = cells.shape[1]
  tokens = cnn.to_tokens(cells, written).tolist()
  if parted and written == "triples":
    tokens.insert(6 * nodes, "|")
  text = " ".join(map(str, tokens))
  for encoding in cnn.ENCODINGS:
    space = cnn.space(nodes, "large", encoding)
    assert space.encoding == encoding
    expected = cnn.to_tokens(cells, encoding)
    notation = cnn.to_text(expected, encoding)
    for form in (text, notation):
      parsed = cnn.parse(space, form)
      assert parsed.dtype == np.int32
      np.testing.assert_array_equal(parsed, expected)


# 24 numbers are triples of 2 nodes or pairs of 3, 48 of 4 or of 6.
@pytest.mark.parametrize("encoding", cnn.ENCODINGS)
@pytest.mark.parametrize("nodes", range(cnn.MIN_NODES, cnn.MAX_NODES + 1))
def test_numbers_tell_their_coding(nodes, encoding):
  space = cnn.space(nodes, "large", encoding)
  for tokens in np.asarray(space.sample(jax.random.key(nodes), 20)):
    text = " ".join(map(str, tokens))
    found = cnn.resolve(text, ops="large", nodes=4)
    assert found.space == cnn.space(nodes, "large")
    expected = cnn.to_cells(tokens, encoding)
    np.testing.assert_array_equal(cnn.to_cells(found.tokens), expected)


@pytest.mark.parametrize(("nodes", "encoding"), [(2, "triples"), (3, "pairs")])
def test_a_message_names_the_space_that_numbers_were_read_in(nodes, encoding):
  space = cnn.space(nodes, "large", encoding)
  tokens = [choices[0] for choices in space.choices]
  tokens[-1] = 99
  with pytest.raises(UserError, match=f"token 99 .* space '{space.name}'"):
    cnn.resolve(" ".join(map(str, tokens)), ops="large")


@pytest.mark.parametrize("parted", [True, False])
def test_the_sixty_tokens_of_naonet_are_its_published_cells(parted):
  words = NAONET_60_TOKENS.split()
  text = " ".join([*words[:30], *["|"][:parted], *words[30:]])
  space = triples_space(5)
  tokens = cnn.parse(space, text)
  assert tokens.tolist() == numbers(NAONET_60_TOKENS)
  np.testing.assert_array_equal(cnn.parse(space, "NAONet"), tokens)
  assert cnn.to_text(tokens, "triples") == PUBLISHED["NAONet"].text
  published_tokens = cnn.parse(cnn.space(5, "large"), "NAONet")
  plain = cnn.parse(cnn.space(5, "large"), text)
  np.testing.assert_array_equal(plain, published_tokens)
  found = cnn.resolve(text)  # The op set need not be said.
  assert (found.ops, found.nodes) == ("large", 5)
  np.testing.assert_array_equal(found.tokens, published_tokens)


def test_a_file_of_triples_is_read_as_such(tmp_path):
  space = triples_space(2)
  tokens = np.asarray(space.sample(jax.random.key(1), 1)[0])
  path = tmp_path / "best.json"
  content = {"space": space.name, "tokens": tokens.tolist()}
  path.write_text(json.dumps(content))
  np.testing.assert_array_equal(cnn.parse(space, str(path)), tokens)
  found = cnn.resolve(str(path))
  assert found.space == cnn.space(2, "large")
  expected = cnn.to_cells(tokens, "triples")
  np.testing.assert_array_equal(cnn.to_cells(found.tokens), expected)


def test_a_kernel_that_the_type_does_not_have_is_refused():
  text = NAONET_60_TOKENS.replace("1 9 16", "1 9 15", 1)
  expected = r"token 15 at position 2 .* after token 9 .*there: 14 16 19 20$"
  for read in (cnn.resolve, lambda text: cnn.parse(triples_space(5), text)):
    with pytest.raises(UserError, match=expected):
      read(text)


def test_triples_say_how_long_they_are_and_what_they_need():
  with pytest.raises(UserError, match=r"3 tokens, .* has 60$"):
    cnn.parse(triples_space(5), "0 1 2")
  with pytest.raises(UserError, match=r"NAONet-B needs `network.ops=small`"):
    cnn.parse(triples_space(5), "NAONet-B")
  with pytest.raises(UserError, match=r"60 tokens, .*'cnn-small-5' has 40$"):
    cnn.parse(cnn.space(), NAONET_60_TOKENS)


@pytest.mark.parametrize("ops", ["small", "middle"])
def test_triples_are_for_the_large_set_alone(ops):
  with pytest.raises(UserError, match=f"`encoding=triples`: .*`ops={ops}`"):
    cnn.space(5, ops, "triples")


def test_an_unknown_coding_lists_the_codings():
  with pytest.raises(UserError, match=r"`encoding=paper`: .*: pairs, triples$"):
    cnn.space(encoding="paper")


def test_naonet_is_what_its_own_coding_says():
  expected = []
  coded = np.reshape(numbers(NAONET_60_TOKENS), (-1, 3)).tolist()
  for state, kind, kernel in coded:
    kernel = "" if KINDS[kind] == "identity" else f"_{KERNELS[kernel]}"
    name = KINDS[kind] + kernel
    expected += [state - 1, cnn.OP_SETS["large"].index(name)]
  assert numbers(PUBLISHED["NAONet"].text) == expected
