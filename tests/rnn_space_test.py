"""Recurrent cells: tokens, cells, strings, published architectures."""

import json

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import notation, published, rnn

PUBLISHED = {entry.name: entry for entry in published.RECURRENT}
NAO_RNN_TOKENS = "1 13 1 13 2 13 4 12 5 13 5 13 6 13 2 13 8 13 2 13 2 15"


@st.composite
def architectures(draw):
  """A space and legal tokens of it."""
  space = rnn.space(draw(st.integers(rnn.MIN_NODES, rnn.MAX_NODES)))
  tokens = [draw(st.sampled_from(choices)) for choices in space.choices]
  return space, np.array(tokens, np.int32)


def joined(tokens):
  return " ".join(map(str, tokens))


def test_eleven_nodes_give_22_tokens_and_a_vocabulary_of_16():
  space = rnn.space()
  assert (space.length, space.vocabulary) == (22, 16)
  assert space.tokens_per_step == 2
  assert space == rnn.space(11) != rnn.space(10)


@pytest.mark.parametrize("nodes", range(rnn.MIN_NODES, rnn.MAX_NODES + 1))
def test_a_node_reads_what_is_before_it_and_has_any_activation(nodes):
  space = rnn.space(nodes)
  assert space.length == 2 * nodes
  predecessors, activations = space.choices[0::2], space.choices[1::2]
  assert [len(choices) for choices in predecessors] == [*range(1, nodes + 1)]
  assert set(map(len, activations)) == {len(rnn.ACTIVATIONS)}
  # The two kinds of tokens together are 1 .. V - 1, and do not collide.
  tokens = sorted({*predecessors[-1], *activations[0]})
  assert tokens == [*range(1, space.vocabulary)]
  assert len(tokens) == nodes + len(rnn.ACTIVATIONS)


@given(architectures())
def test_tokens_to_cells_and_back_is_the_identity(drawn):
  space, tokens = drawn
  cells = rnn.to_cells(tokens)
  assert cells.shape == (space.length // 2, 2)
  assert cells.dtype == np.int32
  predecessors, activations = cells.T
  assert (predecessors >= 0).all()
  assert (predecessors <= np.arange(len(cells))).all()
  assert np.isin(activations, range(len(rnn.ACTIVATIONS))).all()
  np.testing.assert_array_equal(rnn.to_tokens(cells), tokens)


def test_a_batch_of_cells_is_that_of_each_architecture():
  space = rnn.space(4)
  tokens = np.asarray(space.sample(jax.random.key(0), 6)).reshape(2, 3, 8)
  cells = rnn.to_cells(tokens)
  assert cells.shape == (2, 3, 4, 2)
  np.testing.assert_array_equal(cells[1, 2], rnn.to_cells(tokens[1, 2]))
  np.testing.assert_array_equal(rnn.to_tokens(cells), tokens)


def test_cells_of_jax_tokens_stay_integers():
  cells = rnn.to_cells(jnp.asarray(rnn.resolve("NAO-RNN")))
  assert cells.dtype == jnp.int32
  assert rnn.to_tokens(cells).dtype == jnp.int32


@given(architectures())
def test_text_and_tokens_are_resolved_for_any_number_of_nodes(drawn):
  _, tokens = drawn
  for text in (rnn.to_text(tokens), joined(tokens)):
    found = rnn.resolve(text)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, tokens)


@pytest.mark.parametrize("nodes", [rnn.MIN_NODES, 11, rnn.MAX_NODES])
def test_sampled_tokens_are_accepted_and_are_all_that_is_legal(nodes):
  space = rnn.space(nodes)
  tokens = np.asarray(space.sample(jax.random.key(nodes), 400))
  assert all(map(space.accepts, tokens.tolist()))
  for drawn, choices in zip(tokens.T.tolist(), space.choices, strict=True):
    assert set(drawn) == set(choices)


def test_the_tokens_of_nao_rnn_are_those_that_were_published():
  assert joined(rnn.resolve("NAO-RNN")) == NAO_RNN_TOKENS


@pytest.mark.parametrize("entry", published.RECURRENT, ids=lambda e: e.name)
def test_a_published_cell_differs_from_its_text_by_offsets_only(entry):
  tokens = rnn.resolve(entry.name.lower())
  assert rnn.space().accepts(tokens)
  assert rnn.to_text(tokens) == entry.text
  offsets = tokens - np.array(entry.text.split(), int)
  assert set(offsets[0::2]) == {1}
  assert set(offsets[1::2]) == {12}


@given(architectures(), st.data())
def test_a_predecessor_that_does_not_exist_yet_is_refused_by_position(
  drawn, data
):
  space, tokens = drawn
  node = data.draw(st.integers(0, space.length // 2 - 1))
  tokens[2 * node] = data.draw(st.integers(node + 2, 30))
  # With node 0 changed, it no longer begins as the published notation does.
  texts = [joined(tokens)] + [rnn.to_text(tokens)] * (node > 0)
  for text in texts:
    with pytest.raises(UserError) as caught:
      rnn.resolve(text, "start")
    message = str(caught.value)
    found = text.split()[2 * node]
    assert f": token {found} at position {2 * node} (counted " in message
    assert message.startswith(f"`start={text}`: ")
    first = int(text.split()[0] != "0")
    allowed = joined(range(first, first + node + 1))
    assert message.endswith(f"allowed there: {allowed}")


@given(architectures(), st.data())
def test_an_unknown_activation_is_refused_by_position(drawn, data):
  space, tokens = drawn
  position = 1 + 2 * data.draw(st.integers(0, space.length // 2 - 1))
  tokens[position] = data.draw(st.sampled_from([0, space.vocabulary]))
  found = rnn.to_text(tokens).split()[position]
  expected = rf"token {found} at position {position} .*there: 0 1 2 3$"
  with pytest.raises(UserError, match=expected):
    rnn.resolve(rnn.to_text(tokens))


@pytest.mark.parametrize(
  ("text", "count"),
  [("", 0), ("0", 1), ("0 1 0", 3), ("1 13 1", 3), ("0 1 " * 21, 42)],
)
def test_a_text_without_two_numbers_a_node_is_refused(text, count):
  with pytest.raises(UserError, match=f"^`arch={text}`: {count} numbers; "):
    rnn.resolve(text)


@pytest.mark.parametrize("name", ["NAO-RNN-2", "NAONet-B", "0 one"])
def test_an_unknown_name_lists_the_names(name):
  with pytest.raises(UserError, match=f"^`start={name}`: ") as caught:
    rnn.resolve(name, "start")
  assert all(known in str(caught.value) for known in PUBLISHED)


def test_a_text_of_another_number_of_nodes_is_not_parsed():
  with pytest.raises(UserError, match=r"^start: 4 tokens, .*has 6$"):
    rnn.from_numbers(rnn.space(3), [0, 1, 0, 1], "start")
  with pytest.raises(UserError, match=r"^start: 0 tokens, .*has 6$"):
    rnn.from_numbers(rnn.space(3), [], "start")


@given(architectures())
def test_a_file_that_a_search_wrote_is_read(tmp_path_factory, drawn):
  space, tokens = drawn
  path = tmp_path_factory.mktemp("search") / "best.json"
  content = {"space": space.name, "score": 99.5, "tokens": tokens.tolist()}
  path.write_text(json.dumps(content))
  np.testing.assert_array_equal(rnn.resolve(str(path)), tokens)


@pytest.mark.parametrize(
  ("content", "says"),
  [
    ({"space": "rnn-5", "tokens": [1, 2]}, "space 'rnn-5' does not fit its"),
    ({"space": "nao-5", "tokens": [1, 2]}, "space 'nao-5' is not one of"),
    ({"tokens": [1, 2, 3]}, "3 numbers; a recurrent cell has two"),
    ({"tokens": []}, "0 numbers; a recurrent cell has two"),
    ({"tokens": [1, 6]}, "token 6 at position 1 "),
  ],
)
def test_a_file_with_something_else_is_refused_by_name(tmp_path, content, says):
  path = tmp_path / "arch.json"
  path.write_text(json.dumps(content))
  with pytest.raises(UserError) as caught:
    rnn.resolve(str(path))
  assert str(caught.value).startswith(f"`arch={path}`: {says}")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
  with pytest.raises(UserError, match=r"none\.json`: No such file"):
    rnn.resolve(str(tmp_path / "none.json"))


@pytest.mark.parametrize("nodes", [-1, 0, 21])
def test_a_cell_has_one_to_twenty_nodes(nodes):
  with pytest.raises(UserError, match=f"`nodes={nodes}`: .*1 to 20 nodes"):
    rnn.space(nodes)


@given(architectures())
def test_without_swaps_the_canonical_form_is_the_architecture(drawn):
  space, tokens = drawn
  assert space.swaps == ()
  assert len(space.swap_permutations) == 0
  np.testing.assert_array_equal(space.canonical(tokens), tokens)


@pytest.mark.parametrize(
  "text", ["0 1 1 3", "0 1 | 1 3", "0,1, 1,3", "0 1\n1 3"]
)
def test_bars_commas_and_lines_only_separate_numbers(text):
  assert notation.numbers(text) == [0, 1, 1, 3]


@pytest.mark.parametrize("text", ["NAO-RNN", "0 1 x", "0 1.5"])
def test_a_text_with_anything_else_is_no_list_of_numbers(text):
  assert notation.numbers(text) is None


# As it stands in the official code of the search without weight sharing.
OFFICIAL = "0 1 0 1 1 1 3 0 4 1 4 1 5 1 1 1 7 1 1 1 1 2"


def test_the_other_official_numbering_is_read_behind_its_prefix():
  for text in (f"nao: {OFFICIAL}", f"NAO:{OFFICIAL}"):
    np.testing.assert_array_equal(rnn.resolve(text), rnn.resolve("NAO-RNN"))
  assert rnn.to_text(rnn.resolve("nao: 0 2 1 3 0 0")) == "0 3 1 2 0 0"


@pytest.mark.parametrize("text", ["nao:", "nao: 1 3", "nao: NAO-RNN"])
def test_nothing_else_stands_behind_the_prefix(text):
  with pytest.raises(UserError, match="which start with 0"):
    rnn.resolve(text)


def test_numbers_that_two_codes_read_in_two_ways_are_told_so():
  note = rnn.ambiguity_note(OFFICIAL)
  assert "2 is read as sigmoid and 3 as identity" in note
  assert f"'nao: {OFFICIAL}', which is NAO-RNN" in note
  assert "NAO-RNN" not in rnn.ambiguity_note("0 3")


@pytest.mark.parametrize(
  "text",
  ["NAO-RNN", "0 1 1 0", "nao: 0 2", "1 14", "runs/best.json", ""]
  + [entry.text for entry in published.RECURRENT],
)
def test_what_has_one_reading_needs_no_word(text):
  assert rnn.ambiguity_note(text) == ""
