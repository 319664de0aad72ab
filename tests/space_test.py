"""The token grammar, on spaces small enough to list every sequence."""

import dataclasses
import itertools
import math

from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces.space import SOS, Space

# Two cells with one swap each; the groups hold one token and two tokens.
SMALL = Space(
  name="small",
  choices=((1, 2), (1, 2), (3,), (1, 2), (3, 4), (1, 2), (3, 4)),
  swaps=((((0,), (1,)),), (((3, 4), (5, 6)),)),
)
PLAIN = Space(name="plain", choices=((1,), (2, 5), (1, 2, 3)))
# Kinds 3 and 4 allow different numbers of 5 to 7; a swap exchanges such pairs.
TYPED = Space(
  name="typed",
  choices=((1, 2), (3, 4), (5, 6, 7), (1, 2), (3, 4), (5, 6, 7)),
  swaps=((((0, 1, 2), (3, 4, 5)),),),
  tokens_per_step=3,
  follows=((3, (5,)), (4, (5, 6, 7))),
)
# The same with tokens that count pairs of kind and number.
UNTYPED = Space("untyped", ((1, 2), (3, 4, 5, 6)) * 2)


def is_legal(space, row):
  """Decides the same as `accepts`, from the definition."""
  following = dict(space.follows)
  return all(
    token in choices and token in following.get(before, choices)
    for before, token, choices in zip(
      [SOS, *row], row, space.choices, strict=False
    )
  )


def everything(space):
  rows = itertools.product(*space.choices)
  return np.array([row for row in rows if is_legal(space, row)], np.int32)


def count(space):
  return math.prod(len(tokens) for tokens in space.choices)


def groups(space):
  """Sets of sequences that swaps join, found by following the swaps."""
  moves = space.swap_permutations.reshape(-1, space.length)
  left, found = {tuple(row) for row in everything(space).tolist()}, []
  while left:
    group, front = set(), [left.pop()]
    while front:
      group.add(row := front.pop())
      front += [
        other
        for move in moves
        if (other := tuple(row[i] for i in move)) not in group
      ]
    left -= group
    found.append(group)
  return found


@st.composite
def spaces(draw):
  """Random grammars with swaps whose groups have equal choices."""
  tokens = st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True)
  size = draw(st.integers(1, 3))
  choices, swaps = [], []
  for _ in range(draw(st.integers(0, 2))):
    swaps.append([])
    for _ in range(2):
      group = tuple(range(len(choices), len(choices) + 2 * size))
      choices += 2 * [tuple(draw(tokens)) for _ in range(size)]
      swaps[-1].append((group[:size], group[size:]))
  choices += [tuple(draw(tokens)) for _ in range(draw(st.integers(1, 3)))]
  return Space("random", tuple(choices), tuple(map(tuple, swaps)))


@st.composite
def restricted_spaces(draw):
  """Random grammars in which some tokens restrict the next."""
  tokens = st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True)
  choices = draw(st.lists(tokens.map(tuple), min_size=1, max_size=4))
  vocabulary = 1 + max(map(max, choices))
  heads = st.integers(0, vocabulary - 1)
  follows = draw(st.dictionaries(heads, tokens.map(tuple), max_size=3))
  try:
    return Space("restricted", tuple(choices), follows=tuple(follows.items()))
  except ValueError:
    reject()


@st.composite
def architectures(draw):
  space = draw(spaces())
  return space, [draw(st.sampled_from(tokens)) for tokens in space.choices]


@pytest.mark.parametrize("space", [SMALL, PLAIN])
def test_samples_are_legal_and_cover_every_legal_token(space):
  tokens = np.asarray(space.sample(jax.random.key(0), 200))
  assert tokens.dtype == np.int32
  assert tokens.shape == (200, space.length)
  for position, choices in enumerate(space.choices):
    assert set(tokens[:, position].tolist()) == set(choices)


def test_samples_are_uniform_and_independent():
  tokens = np.asarray(SMALL.sample(jax.random.key(1), 6400))
  _, counts = np.unique(tokens, axis=0, return_counts=True)
  assert len(counts) == len(everything(SMALL))
  np.testing.assert_allclose(counts, 6400 / 64, atol=5 * 10)


@pytest.mark.parametrize("space", [SMALL, PLAIN])
def test_unrestricted_samples_are_those_of_independent_positions(space):
  key = jax.random.key(3)
  logits = jnp.where(space.legal, 0.0, -jnp.inf)
  shape = (100, space.length)
  expected = jax.random.categorical(key, logits, shape=shape)
  np.testing.assert_array_equal(space.sample(key, 100), expected)


@pytest.mark.parametrize("space", [TYPED, UNTYPED])
def test_a_kind_is_drawn_as_often_as_it_has_numbers(space):
  # Not each kind in half of the samples: each of 8 * 8 sequences equally often.
  tokens = np.asarray(space.sample(jax.random.key(2), 6400))
  rows, counts = np.unique(tokens, axis=0, return_counts=True)
  np.testing.assert_array_equal(rows, everything(space))
  np.testing.assert_allclose(counts, 6400 / 64, atol=5 * 10)


def test_weights_count_the_continuations_to_the_end():
  # Three tokens deep: 1 goes on in one way, 2 in four.
  follows = ((1, (3,)), (3, (5,)), (2, (3, 4)), (4, (5, 6, 7)))
  space = Space("deep", ((1, 2), (3, 4), (5, 6, 7)), follows=follows)
  tokens = np.asarray(space.sample(jax.random.key(0), 5000))
  rows, counts = np.unique(tokens, axis=0, return_counts=True)
  assert rows.tolist() == everything(space).tolist()
  np.testing.assert_allclose(counts, 1000, atol=5 * 32)


@settings(max_examples=15)
@given(restricted_spaces(), st.integers(0, 9))
def test_no_illegal_sequence_is_drawn(space, seed):
  rows = np.asarray(space.sample(jax.random.key(seed), 50)).tolist()
  assert all(is_legal(space, row) for row in rows)


@settings(max_examples=15)
@given(restricted_spaces())
def test_the_number_of_sequences_is_that_of_all_of_them(space):
  assert space.sequences == len(everything(space))


@settings(max_examples=30)
@given(restricted_spaces())
def test_masks_say_what_accepts_says(space):
  for row in itertools.product(range(space.vocabulary), repeat=space.length):
    legal = space.legal[range(space.length), row]
    legal &= space.may_follow[[SOS, *row[:-1]], row]
    assert space.accepts(row) == is_legal(space, row) == legal.all()


def test_without_restrictions_everything_may_follow():
  assert SMALL.may_follow.all()


@pytest.mark.parametrize(
  "follows", [((1, (2,)), (2, (1,))), ((SOS, (2,)),), ((1, ()),)]
)
def test_a_space_with_a_dead_end_is_refused(follows):
  with pytest.raises(ValueError, match="nothing is legal at position"):
    Space("dead", ((1,), (2, 3), (2,)), follows=follows)


def test_validate_says_what_the_token_before_forbids():
  TYPED.validate([1, 4, 6, 2, 3, 5])
  with pytest.raises(UserError) as caught:
    TYPED.validate([1, 4, 6, 2, 3, 6], "--arch")
  assert str(caught.value) == (
    "--arch: token 6 at position 5 (counted from 0) is illegal after token 3 "
    "in space 'typed'; allowed there: 5"
  )
  with pytest.raises(UserError, match=r"is illegal in .*there: 3 4$"):
    TYPED.validate([1, 5, 5, 2, 3, 5])


def test_the_start_token_is_never_legal():
  assert not SMALL.legal[:, SOS].any()
  assert SMALL.vocabulary == 5
  assert PLAIN.vocabulary == 6


@given(architectures())
def test_validate_returns_a_legal_sequence_as_it_is(drawn):
  space, tokens = drawn
  valid = space.validate(tokens)
  assert valid.dtype == np.int32
  assert valid.tolist() == tokens


@given(architectures(), st.data())
def test_validate_names_any_corrupted_position_and_what_is_allowed(drawn, data):
  space, tokens = drawn
  position = data.draw(st.integers(0, space.length - 1))
  illegal = st.integers(-3, 12).filter(
    lambda token: token not in space.choices[position]
  )
  tokens[position] = data.draw(illegal)
  assert not space.accepts(tokens)
  with pytest.raises(UserError) as caught:
    space.validate(tokens, "--arch")
  message = str(caught.value)
  assert message.startswith(
    f"--arch: token {tokens[position]} at position {position} "
  )
  allowed = message.split("allowed there: ")[1].split()
  assert [int(word) for word in allowed] == list(space.choices[position])
  assert "\n" not in message


@given(architectures(), st.sampled_from(["shorter", "longer"]))
def test_validate_says_how_long_an_architecture_is(drawn, change):
  space, tokens = drawn
  tokens = tokens[:-1] if change == "shorter" else [*tokens, tokens[-1]]
  assert not space.accepts(tokens)
  expected = f"file.json: {len(tokens)} tokens, .* has {space.length}$"
  with pytest.raises(UserError, match=expected):
    space.validate(tokens, "file.json")


@given(architectures())
def test_the_canonical_form_is_idempotent_and_legal(drawn):
  space, tokens = drawn
  once = space.canonical(np.array(tokens))
  assert space.accepts(once.tolist())
  np.testing.assert_array_equal(space.canonical(once), once)


@given(architectures())
def test_a_swap_leaves_the_canonical_form_unchanged(drawn):
  space, tokens = drawn
  tokens = np.array(tokens)
  for permutation in space.swap_permutations.reshape(-1, space.length):
    swapped = tokens[permutation]
    assert space.accepts(swapped.tolist())
    assert space.keys(swapped[None]) == space.keys(tokens[None])


@settings(max_examples=20)
@example(TYPED)
@given(spaces().filter(lambda space: count(space) <= 256))
def test_canonical_forms_are_equal_exactly_when_swaps_join(space):
  names = [
    {space.canonical(np.array(row)).tobytes() for row in group}
    for group in groups(space)
  ]
  assert all(len(name) == 1 for name in names)
  assert len(set.union(*names)) == len(names)


def test_the_small_space_has_the_counted_number_of_functions():
  # Pairs without order: 3 of 2 values, 10 of 4.
  assert len(groups(SMALL)) == 3 * 10
  assert len(set(SMALL.keys(everything(SMALL)))) == 3 * 10


def test_swaps_and_the_canonical_form_keep_groups_whole_and_legal():
  rows = everything(TYPED)
  for changed in (
    TYPED.canonical(rows),
    rows[:, TYPED.swap_permutations[0, 0]],
  ):
    assert all(map(TYPED.accepts, changed.tolist()))
  # Pairs without order of 8 groups.
  assert len(set(TYPED.keys(rows))) == 8 * 9 / 2


def test_the_canonical_form_of_a_batch_is_that_of_each_row():
  rows = everything(SMALL)
  before = rows.copy()
  batch = SMALL.canonical(rows.reshape(4, -1, SMALL.length))
  one_by_one = np.array([SMALL.canonical(row) for row in rows])
  np.testing.assert_array_equal(batch.reshape(rows.shape), one_by_one)
  np.testing.assert_array_equal(rows, before)


def test_keys_do_not_depend_on_the_integer_type():
  rows = everything(SMALL)
  assert SMALL.keys(rows) == SMALL.keys(rows.astype(np.int64))


@given(spaces())
def test_swap_permutations_are_involutions_that_exchange_the_groups(space):
  permutations = space.swap_permutations
  assert permutations.shape[0] == len(space.swaps)
  assert permutations.shape[-1] == space.length
  for cell, swaps in zip(permutations, space.swaps, strict=True):
    for permutation, (first, second) in zip(cell, swaps, strict=True):
      still = np.arange(space.length)
      np.testing.assert_array_equal(permutation[permutation], still)
      assert tuple(permutation[list(first)]) == second
      moved = set(np.flatnonzero(permutation != still).tolist())
      assert moved == {*first, *second}


def test_a_space_without_swaps_has_no_permutations():
  assert PLAIN.swap_permutations.shape[0] == 0
  rows = everything(PLAIN)
  np.testing.assert_array_equal(PLAIN.canonical(rows), rows)


def test_spaces_are_hashable_and_equal_by_value():
  again = Space(SMALL.name, SMALL.choices, SMALL.swaps)
  assert SMALL.legal.any()  # A cached array takes no part in equality.
  assert again == SMALL
  assert hash(again) == hash(SMALL)
  assert again != Space(SMALL.name, SMALL.choices)
  assert dataclasses.replace(TYPED, follows=()) != TYPED
  assert {SMALL: 1}[again] == 1


def test_an_equal_space_does_not_compile_again():
  traces = []

  def draw(key, space):
    traces.append(space)
    return space.sample(key, 1)

  compiled = jax.jit(draw, static_argnums=1)
  again = Space(SMALL.name, SMALL.choices, SMALL.swaps)
  compiled(jax.random.key(0), SMALL)
  compiled(jax.random.key(1), again)
  assert len(traces) == 1
