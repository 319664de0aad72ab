"""The spaces of benchmark tables: which sequences are one function."""

import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from nao_jax.controller import fit
from nao_jax.errors import UserError
from nao_jax.spaces import listed, nasbench201, nasbench_graph

SPACES = {
  "nasbench201": nasbench201.space(),
  "nasbench-graph": nasbench_graph.space(),
}


@pytest.fixture(params=SPACES)
def space(request):
  return SPACES[request.param]


def _sample(space, count, seed=0):
  return np.asarray(space.sample(jax.random.key(seed), count))


def test_the_spaces_have_the_published_sizes():
  sizes = {
    name: (
      len(space.functions.of_sequence),
      len(space.functions.representative),
    )
    for name, space in SPACES.items()
  }
  assert sizes == {
    "nasbench201": (15625, 6466),
    # The benchmark leaves out the network of four skips.
    "nasbench-graph": (157464, 26206 + 1),
  }


def test_the_classes_are_those_of_the_benchmark(data_folder):
  with np.load(pathlib.Path(data_folder) / "nasbench201.npz") as table:
    tokens = nasbench201.to_tokens(table["ops"])
    classes = table["isomorphism_class"]
  number = nasbench201.space().functions.number(tokens)
  pairs = set(zip(number.tolist(), classes.tolist(), strict=True))
  assert len(pairs) == len(set(number)) == len(set(classes)) == 6466


def test_a_number_stands_for_one_sequence(space):
  functions = space.functions
  index = np.arange(len(functions.of_sequence))
  tokens = functions.tokens(index)
  np.testing.assert_array_equal(functions.index(tokens), index)
  assert all(space.accepts(row) for row in tokens[:: len(tokens) // 50])


def test_canonical_is_a_sequence_of_the_same_function(space):
  tokens = _sample(space, 200)
  canonical = space.canonical(tokens)
  number = space.functions.number
  np.testing.assert_array_equal(number(canonical), number(tokens))
  np.testing.assert_array_equal(space.canonical(canonical), canonical)
  assert (
    space.functions.index(canonical) <= space.functions.index(tokens)
  ).all()


def test_a_disguise_is_any_sequence_of_the_same_function(space):
  functions = space.functions
  counts = np.bincount(functions.of_sequence)
  chosen = np.flatnonzero(counts == 3)[0]
  row = functions.tokens(functions.representative[chosen])
  drawn = np.asarray(
    fit.swap(jax.random.key(0), np.tile(row, (300, 1)), space=space)
  )
  assert set(functions.number(drawn)) == {chosen}
  shares = np.unique(functions.index(drawn), return_counts=True)[1] / 300
  assert len(shares) == 3
  assert shares.min() > 0.2


@pytest.mark.parametrize(
  ("one", "other"),
  [
    # What skips hand on is what they read.
    ([1, 0, 0, 0, 3, 0], [0, 0, 0, 3, 0, 0]),
    # Nothing comes of an operation on nothing.
    ([0, 0, 3, 2, 2, 0], [0, 0, 0, 2, 2, 0]),
  ],
)
def test_cells_that_differ_in_what_does_nothing_are_one_function(one, other):
  functions = nasbench201.space().functions
  one, other = (
    functions.number(nasbench201.to_tokens(x)) for x in (one, other)
  )
  assert one == other


# Two networks, and whether they are one function.
GRAPH = {
  "a chain is in one order only": (
    ([0, 1, 2, 3], ["gcn", "gat", "gin", "fc"]),
    ([0, 1, 2, 3], ["gat", "gcn", "gin", "fc"]),
    False,
  ),
  "leaves of one node may be exchanged": (
    ([0, 1, 1, 1], ["gcn", "gat", "gin", "fc"]),
    ([0, 1, 1, 1], ["gcn", "fc", "gat", "gin"]),
    True,
  ),
  "a skip in a chain does nothing": (
    ([0, 1, 2, 3], ["gcn", "skip", "gin", "fc"]),
    ([0, 1, 2, 3], ["skip", "gcn", "gin", "fc"]),
    True,
  ),
  "a skip beside others is an output": (
    ([0, 1, 1, 1], ["gcn", "skip", "gin", "fc"]),
    ([0, 1, 2, 2], ["skip", "gcn", "gin", "fc"]),
    False,
  ),
}


@pytest.mark.parametrize("name", GRAPH)
def test_graph_networks_are_compared_as_trees(name):
  *networks, same = GRAPH[name]
  functions = nasbench_graph.space().functions
  numbers = [
    functions.number(np.array(nasbench_graph.to_tokens(*network)))
    for network in networks
  ]
  assert (numbers[0] == numbers[1]) == same


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_the_notation_comes_back_as_it_was(ops):
  tokens = nasbench201.to_tokens(ops)
  text = nasbench201.to_text(tokens)
  np.testing.assert_array_equal(nasbench201.parse(text), tokens)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "0 operations"),
    ("|none~0|+|none~0|none~1|", "3 operations"),
    ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "edge 1 to 2"),
    ("|pool~0|+|none~0|none~1|+|none~0|none~1|none~2|", "edge 0 to 1"),
  ],
)
def test_what_is_not_in_the_notation_is_refused(text, message):
  with pytest.raises(UserError, match=message):
    nasbench201.parse(text)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 7))
def test_functions_are_numbered_by_their_first_sequence(sizes, classes):
  choices = tuple(tuple(range(5, 5 + size)) for size in sizes)
  found = listed.functions(choices, lambda row: sum(row) % classes)
  rows = list(np.ndindex(*sizes))
  forms = [sum(row) % classes for row in rows]
  order = list(dict.fromkeys(forms))
  assert found.of_sequence.tolist() == [order.index(form) for form in forms]
  assert found.representative.tolist() == [forms.index(form) for form in order]
  np.testing.assert_array_equal(
    found.tokens(np.arange(len(rows))), np.array(rows) + 5
  )
