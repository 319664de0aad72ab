"""Convolutional cells: tokens, cells, strings, published architectures."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import cnn, published, triples

# A busy machine must not fail a test.
untimed = settings(deadline=None)

SPACES = [
  (nodes, ops)
  for nodes in range(cnn.MIN_NODES, cnn.MAX_NODES + 1)
  for ops in cnn.OP_SETS
]
PUBLISHED = {entry.name: entry for entry in published.CONVOLUTIONAL}
LOOSE_ENDS = {
  "NAONet": ([3, 5, 6], [3, 4, 5, 6]),
  "NAONet-A": ([3, 5, 6], [3, 4, 5, 6]),
  "NAONet-B": ([3, 5, 6], [4, 5, 6]),
  "NAO-WS": ([3, 4, 5, 6], [3, 4, 5, 6]),
  "NAONet-V2": ([3, 4, 5, 6], [3, 4, 5, 6]),
}
NAONET_B_TOKENS = (
  "1 8 1 9 1 8 3 9 2 10 1 9 5 7 2 10 3 8 1 10 "
  "2 8 2 7 3 8 3 11 2 7 3 10 4 8 3 9 1 9 1 9"
)
# The coding of the search without weight sharing has three tokens a branch:
# input, kind, kernel.
NAONET_60_TOKENS = (
  "1 9 16 2 11 17 3 9 19 2 9 16 1 9 14 2 9 16 1 9 19 5 9 16 2 7 14 1 9 16 "
  "1 9 16 2 11 15 1 9 14 1 11 16 2 9 20 1 12 15 1 11 16 3 9 14 2 12 16 1 9 16"
)
KINDS = {7: "identity", 9: "conv", 11: "avg_pool", 12: "max_pool"}
KERNELS = {
  14: "1x1", 15: "2x2", 16: "3x3", 17: "5x5", 19: "1x3_3x1", 20: "1x7_7x1",
}  # fmt: skip


@st.composite
def architectures(draw):
  """A space and legal tokens of it."""
  space = cnn.space(*draw(st.sampled_from(SPACES)))
  tokens = [draw(st.sampled_from(choices)) for choices in space.choices]
  return space, np.array(tokens, np.int32)


@st.composite
def large_cells(draw):
  """Cells over the op set `large`, [2, nodes, 4]."""
  space = cnn.space(draw(st.integers(cnn.MIN_NODES, cnn.MAX_NODES)), "large")
  tokens = [draw(st.sampled_from(choices)) for choices in space.choices]
  return cnn.to_cells(np.array(tokens, np.int32))


def branches(row):
  return row[:2], row[2:]


def triples_space(nodes):
  return cnn.space(nodes, "large", "triples")


def op_names(tokens, nodes):
  """The ops of triples, spelled out from the vocabulary; [.., branches]."""
  kinds, kernels = (np.reshape(tokens, (-1, 3)) - (nodes + 2)).T[1:]
  names = [
    f"{triples.TYPES[kind]}_{triples.KERNELS[kernel - len(triples.TYPES)]}"
    for kind, kernel in zip(kinds, kernels, strict=True)
  ]
  return [name.replace("identity_1x1", "identity") for name in names]


def numbers(text):
  return [int(word) for word in text.replace("|", " ").split()]


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


@untimed
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


@untimed
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


@untimed
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


@untimed
@given(architectures())
def test_loose_ends_are_the_states_that_no_branch_names(drawn):
  _, tokens = drawn
  for cell in cnn.to_cells(tokens):
    used = {int(branch) for row in cell for branch in (row[0], row[2])}
    unused = set(range(len(cell) + 2)) - used
    assert set(np.flatnonzero(cnn.unused_states(cell)).tolist()) == unused
    assert unused


@pytest.mark.parametrize("name", PUBLISHED)
def test_loose_ends_of_the_published_cells_are_the_known_ones(name):
  space = cnn.space(ops=PUBLISHED[name].ops)
  unused = cnn.unused_states(cnn.to_cells(cnn.parse(space, name)))
  found = [np.flatnonzero(cell).tolist() for cell in unused]
  assert found == list(LOOSE_ENDS[name])


@untimed
@given(architectures())
def test_text_turns_back_into_the_same_tokens(drawn):
  space, tokens = drawn
  parsed = cnn.parse(space, cnn.to_text(tokens))
  assert parsed.dtype == np.int32
  np.testing.assert_array_equal(parsed, tokens)


@untimed
@given(architectures(), st.sampled_from([" ", ",", ", "]))
def test_tokens_on_the_command_line_are_read_as_tokens(drawn, separator):
  space, tokens = drawn
  text = separator.join(map(str, tokens))
  np.testing.assert_array_equal(cnn.parse(space, text), tokens)


def test_published_notation_without_a_zero_is_read_as_such():
  space = cnn.space(2, "small")
  # As tokens these are illegal: op tokens begin at 4.
  text = "1 1 1 2 2 3 1 4 1 1 1 1 2 2 1 3"
  tokens = cnn.parse(space, text)
  assert numbers(cnn.to_text(tokens)) == numbers(text)


def test_numbers_that_could_be_both_are_tokens_unless_a_bar_parts_cells():
  space = cnn.space(2, "large")
  both = "1 4 1 4 2 5 2 5 | 1 6 1 6 2 7 2 7"
  assert cnn.to_text(cnn.parse(space, both)) == both
  without = both.replace("|", "")
  assert cnn.parse(space, without).tolist() == numbers(both)


@pytest.mark.parametrize("entry", published.CONVOLUTIONAL, ids=lambda e: e.name)
def test_published_architectures_are_found_by_name_in_any_case(entry):
  space = cnn.space(ops=entry.ops)
  for name in (entry.name, entry.name.upper(), f" {entry.name.lower()} "):
    assert cnn.to_text(cnn.parse(space, name)) == entry.text


def test_naonet_b_has_the_known_tokens():
  space = cnn.space(ops="small")
  tokens = cnn.parse(space, "NAONet-B")
  assert tokens.tolist() == numbers(NAONET_B_TOKENS)
  np.testing.assert_array_equal(cnn.parse(space, NAONET_B_TOKENS), tokens)


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


@untimed
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


@untimed
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


@untimed
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


@untimed
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


def test_naonet_and_naonet_a_differ_in_the_inputs_of_one_node():
  space = cnn.space(ops="large")
  first, second = (
    cnn.to_cells(space.canonical(cnn.parse(space, name)))
    for name in ("NAONet", "NAONet-A")
  )
  np.testing.assert_array_equal(first[0], second[0])
  different = (first[1] != second[1]).any(axis=-1)
  assert np.flatnonzero(different).tolist() == [2]


@pytest.mark.parametrize("entry", published.RECURRENT, ids=lambda e: e.name)
def test_recurrent_cells_take_earlier_states_and_known_activations(entry):
  pairs = np.reshape(numbers(entry.text), (-1, 2))
  assert len(pairs) == 11
  assert (pairs >= 0).all()
  assert (pairs[:, 0] <= np.arange(11)).all()
  assert (pairs[:, 1] < 4).all()


def test_recurrent_cells_share_one_table_of_activations():
  # In the first code 2 is identity and 3 sigmoid; its tokens are known.
  tokens = "1 13 1 13 2 13 4 12 5 13 5 13 6 13 2 13 8 13 2 13 2 14"
  pairs = np.reshape(numbers(tokens), (-1, 2)) - (1, 12)
  first = [(p, ("tanh", "relu", "identity", "sigmoid")[a]) for p, a in pairs]
  found = np.reshape(numbers(published.RECURRENT[0].text), (-1, 2))
  ours = [(p, ("tanh", "relu", "sigmoid", "identity")[a]) for p, a in found]
  assert ours == first


def test_a_name_of_another_op_set_says_which_flags_it_needs():
  with pytest.raises(UserError, match=r"^`arch=naonet-a`: .*ops=large"):
    cnn.parse(cnn.space(ops="small"), "naonet-a")
  with pytest.raises(UserError, match=r"ops=small` and `network.nodes=5"):
    cnn.parse(cnn.space(7, "small"), "NAONet-B")


def test_an_unknown_name_lists_the_names():
  with pytest.raises(UserError, match=r"^`arch=NAONet-Z`: ") as caught:
    cnn.parse(cnn.space(), "NAONet-Z")
  assert all(name in str(caught.value) for name in PUBLISHED)


@untimed
@given(architectures(), st.data())
def test_a_corrupted_string_names_the_position_and_what_is_allowed(drawn, data):
  space, tokens = drawn
  words = numbers(cnn.to_text(tokens))
  words[0] = 0  # A zero says that this is the published notation.
  position = data.draw(st.integers(1, space.length - 1))
  words[position] = 12
  with pytest.raises(UserError) as caught:
    cnn.parse(space, " ".join(map(str, words)), "start")
  message = str(caught.value)
  assert message.startswith(f"`start`: token 12 at position {position} ")
  offset = cnn.to_tokens(np.zeros((2, space.length // 8, 4), np.int32))[
    position
  ]
  allowed = " ".join(str(c - offset) for c in space.choices[position])
  assert message.endswith(f"allowed there: {allowed}")


@pytest.mark.parametrize("text", ["", "0 1 2", "1 7 " * 21, "0 0 " * 21])
def test_a_string_of_the_wrong_length_says_the_right_one(text):
  with pytest.raises(UserError, match=r"has 40$"):
    cnn.parse(cnn.space(), text)


def test_a_file_that_a_search_wrote_is_read(tmp_path):
  space = cnn.space()
  tokens = cnn.parse(space, "NAONet-B")
  path = tmp_path / "best.json"
  path.write_text(json.dumps({"score": 0.9, "tokens": tokens.tolist()}))
  np.testing.assert_array_equal(cnn.parse(space, str(path)), tokens)


@pytest.mark.parametrize(
  ("content", "says"),
  [
    ("not json", "not a JSON object with a list `tokens`"),
    ("[1, 2]", "not a JSON object with a list `tokens`"),
    ('{"arch": [1]}', "not a JSON object with a list `tokens`"),
    ('{"tokens": "1 7"}', "`tokens` is not a list of integers"),
    ('{"tokens": [1, 7.0]}', "`tokens` is not a list of integers"),
    ('{"tokens": [true]}', "`tokens` is not a list of integers"),
    ('{"tokens": [1, 7]}', "2 tokens, but an architecture"),
    ('{"tokens": [' + "1, 6, " * 19 + "1, 6]}", "token 6 at position 1 "),
  ],
)
def test_a_file_with_something_else_is_refused_by_name(tmp_path, content, says):
  path = tmp_path / "arch.json"
  path.write_text(content)
  with pytest.raises(UserError) as caught:
    cnn.parse(cnn.space(), str(path))
  message = str(caught.value)
  assert message.startswith(f"`arch={path}`: ")
  assert says in message
  assert "\n" not in message


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
  path = tmp_path / "none.json"
  with pytest.raises(UserError, match=r"none\.json`: No such file"):
    cnn.parse(cnn.space(), str(path))
  (tmp_path / "folder.json").mkdir()
  with pytest.raises(UserError, match=r"folder\.json`: Is a directory"):
    cnn.parse(cnn.space(), str(tmp_path / "folder.json"))


@pytest.mark.parametrize("entry", published.CONVOLUTIONAL, ids=lambda e: e.name)
def test_a_published_name_brings_its_own_space(entry):
  found = cnn.resolve(entry.name.lower(), ops="middle", nodes=3)
  assert (found.ops, found.nodes) == (entry.ops, 5)
  assert found.space == cnn.space(5, entry.ops)
  assert cnn.to_text(found.tokens) == entry.text


@untimed
@given(architectures())
def test_numbers_tell_the_number_of_nodes_and_are_of_the_given_op_set(drawn):
  space, tokens = drawn
  ops = space.name.split("-")[1]
  for text in (cnn.to_text(tokens), " ".join(map(str, tokens))):
    found = cnn.resolve(text, ops=ops, nodes=4)
    assert found.space == space
    np.testing.assert_array_equal(found.tokens, tokens)


@untimed
@given(architectures())
def test_a_file_brings_the_space_that_it_names(tmp_path_factory, drawn):
  space, tokens = drawn
  path = tmp_path_factory.mktemp("search") / "best.json"
  content = {"space": space.name, "tokens": tokens.tolist()}
  path.write_text(json.dumps(content))
  found = cnn.resolve(str(path))
  assert found.space == space
  np.testing.assert_array_equal(found.tokens, tokens)


def test_a_file_without_a_space_is_of_the_given_one(tmp_path):
  space = cnn.space(2, "middle")
  tokens = [choices[0] for choices in space.choices]
  path = tmp_path / "mine.json"
  path.write_text(json.dumps({"tokens": tokens}))
  found = cnn.resolve(str(path), ops="middle", nodes=2)
  assert (found.space, found.tokens.tolist()) == (space, tokens)


@pytest.mark.parametrize("name", ["rnn-11", "cnn-huge-5", 5])
def test_a_file_of_another_space_is_refused_by_name(tmp_path, name):
  path = tmp_path / "best.json"
  path.write_text(json.dumps({"space": name, "tokens": [1, 2]}))
  with pytest.raises(UserError, match=f"`start={path}`: space '?{name}"):
    cnn.resolve(str(path), source="start")


@pytest.mark.parametrize(
  "text", ["NAONet-Z", "1 7 " * 21, "1 7 " * 32, "x.json"]
)
def test_what_is_no_architecture_of_any_space_is_refused(text):
  with pytest.raises(UserError, match=r"^`arch"):
    cnn.resolve(text)


@pytest.mark.parametrize("name", ["NAO-RNN", "nao-ws-rnn"])
def test_a_recurrent_cell_is_refused_as_such(name):
  for read in (cnn.resolve, lambda text: cnn.parse(cnn.space(), text)):
    with pytest.raises(UserError, match=f"={name}`: a recurrent.*NAONet-B"):
      read(name)


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


def test_cells_of_jax_tokens_stay_integers():
  tokens = jnp.asarray(cnn.parse(cnn.space(), "NAO-WS"))
  assert cnn.to_cells(tokens).dtype == jnp.int32


# As it stands in the official PyTorch code.
OFFICIAL_A = (
  "0 7 1 15 2 8 1 7 0 6 1 7 0 8 4 7 1 5 0 7 | "
  "0 7 1 13 0 6 0 14 0 9 1 10 0 14 2 6 1 11 0 7"
)


@pytest.mark.parametrize("ops", ["large", "small"])
def test_the_official_ids_of_the_large_set_are_told_from_these(ops):
  with pytest.raises(UserError, match=r"from 5 to 15: take 5 from each"):
    cnn.resolve(OFFICIAL_A, ops=ops)


def test_another_id_out_of_range_is_no_official_one():
  text = OFFICIAL_A.replace("0 7 1 15", "0 0 1 15")
  with pytest.raises(UserError) as refused:
    cnn.resolve(text, ops="large")
  assert "official" not in str(refused.value)
