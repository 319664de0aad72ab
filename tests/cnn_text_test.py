"""Convolutional cells in text, names and files."""

import json

from hypothesis import given
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import cnn, published, rnn
from tests.cnn_cells import PUBLISHED, architectures, numbers

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


@pytest.mark.parametrize("name", PUBLISHED)
def test_loose_ends_of_the_published_cells_are_the_known_ones(name):
  space = cnn.space(ops=PUBLISHED[name].ops)
  unused = cnn.unused_states(cnn.to_cells(cnn.parse(space, name)))
  found = [np.flatnonzero(cell).tolist() for cell in unused]
  assert found == list(LOOSE_ENDS[name])


@given(architectures(), st.sampled_from([" ", ",", ", "]))
def test_the_published_notation_and_tokens_are_read(drawn, separator):
  space, tokens = drawn
  for text in (cnn.to_text(tokens), separator.join(map(str, tokens))):
    parsed = cnn.parse(space, text)
    assert parsed.dtype == np.int32
    np.testing.assert_array_equal(parsed, tokens)


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


@pytest.mark.parametrize(
  ("space", "name", "says"),
  [
    (cnn.space(ops="small"), "naonet-a", r"^`arch=naonet-a`: .*ops=large"),
    (cnn.space(7), "NAONet-B", r"ops=small` and `network.nodes=5"),
    (cnn.space(), "NAONet-Z", "^`arch=NAONet-Z`: .*" + ".*".join(PUBLISHED)),
  ],
)
def test_a_name_that_does_not_fit_says_what_would(space, name, says):
  with pytest.raises(UserError, match=says):
    cnn.parse(space, name)


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


@pytest.mark.parametrize("text", ["", "0", "0 1 2", "1 7 " * 21, "0 0 " * 21])
def test_a_string_of_the_wrong_length_says_the_right_one(text):
  with pytest.raises(UserError, match=r"has 40$"):
    cnn.parse(cnn.space(), text)


def test_a_file_that_a_search_wrote_is_read(tmp_path):
  space = cnn.space()
  tokens = cnn.parse(space, "NAONet-B")
  path = tmp_path / "best.json"
  path.write_text(json.dumps({"score": 0.9, "tokens": tokens.tolist()}))
  np.testing.assert_array_equal(cnn.parse(space, str(path)), tokens)


def _of_pairs(path):
  return cnn.parse(cnn.space(), path)


@pytest.mark.parametrize(
  ("content", "says"),
  [
    *(
      (content, "not a JSON object with a list `tokens`")
      for content in ("not json", "[1, 2]", '{"arch": [1]}')
    ),
    *(
      (f'{{"tokens": {tokens}}}', "`tokens` is not a list of integers")
      for tokens in ('"1 7"', "[1, 7.0]", "[true]")
    ),
  ],
)
@pytest.mark.parametrize("read", [_of_pairs, rnn.resolve])
def test_a_file_of_no_tokens_is_refused_by_name(tmp_path, content, says, read):
  path = tmp_path / "arch.json"
  path.write_text(content)
  with pytest.raises(UserError) as caught:
    read(str(path))
  message = str(caught.value)
  assert message.startswith(f"`arch={path}`: {says}")
  assert "\n" not in message


@pytest.mark.parametrize(
  ("tokens", "says"),
  [
    ([1, 7], "2 tokens, but an architecture"),
    ([1, 6] * 20, "token 6 at position 1 "),
  ],
)
def test_a_file_of_other_tokens_is_refused_by_name(tmp_path, tokens, says):
  path = tmp_path / "arch.json"
  path.write_text(json.dumps({"tokens": tokens}))
  with pytest.raises(UserError, match=f"`arch={path}`: .*{says}"):
    _of_pairs(str(path))


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


@given(architectures())
def test_numbers_tell_the_number_of_nodes_and_are_of_the_given_op_set(drawn):
  space, tokens = drawn
  ops = space.name.split("-")[1]
  for text in (cnn.to_text(tokens), " ".join(map(str, tokens))):
    found = cnn.resolve(text, ops=ops, nodes=4)
    assert found.space == space
    np.testing.assert_array_equal(found.tokens, tokens)


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
