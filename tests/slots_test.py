"""Spaces of named slots."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.errors import UserError
from nao_jax.spaces import slots

MIXED = slots.space(
  "mixed",
  {
    "width": (8, 16),
    "rate": (0.1, 0.3, 1),
    "act": (jnp.tanh, jax.nn.relu),
    "norm": ("pre", "post", None),
    "bias": (True, False),
  },
)

choices = st.lists(st.integers() | st.text(), min_size=1, unique=True)
spaces = st.dictionaries(st.text(), choices, min_size=1, max_size=5)


@given(spaces, st.data())
def test_what_is_written_is_read(rows, data):
  space = slots.space("any", rows)
  chosen = {
    slot: data.draw(st.sampled_from(options)) for slot, options in rows.items()
  }
  tokens = space.write(chosen)
  assert space.accepts(tokens.tolist())
  assert space.read(tokens) == chosen


@given(spaces)
def test_every_choice_of_every_slot_has_a_token_of_its_own(rows):
  space = slots.space("any", rows)
  tokens = [token for tokens in space.choices for token in tokens]
  assert tokens == list(range(1, space.vocabulary))
  assert space.legal.sum() == sum(map(len, rows.values()))


@jax.jit
@jax.vmap
def _as_data(tokens):
  return MIXED.values(tokens), MIXED.indices(tokens)


def test_an_architecture_as_data_is_what_is_read():
  tokens = np.asarray(MIXED.sample(jax.random.key(0), 40))
  values, indices = _as_data(tokens)
  assert set(values) == {"width", "rate", "bias"}
  for at, row in enumerate(tokens):
    for slot, chosen in MIXED.read(row).items():
      assert dict(MIXED.slots)[slot][indices[slot][at]] == chosen
      if slot in values:
        assert values[slot][at] == np.float32(chosen)


def test_indices_look_a_table_up():
  table = np.arange(2 * 3 * 2 * 3 * 2).reshape(2, 3, 2, 3, 2)
  tokens = np.asarray(MIXED.sample(jax.random.key(0), 200))
  found = table[tuple(MIXED.indices(tokens).values())]
  assert len(set(found)) == len(set(MIXED.keys(tokens)))


def test_a_space_is_a_static_argument():
  assert hash(MIXED) == hash(slots.space("mixed", dict(MIXED.slots)))


def test_an_architecture_has_a_text():
  text = "width=16, rate=1, act=relu, norm=None, bias=True"
  assert MIXED.text([2, 5, 7, 10, 11]) == text


@pytest.mark.parametrize(
  ("rows", "said"),
  [
    ({}, "space 'bad': no slots"),
    ({"width": ()}, "slot 'width' has no choices"),
    ({"width": (8, 16, 8)}, "slot 'width' has the choice 8 twice"),
    ({"width": ([8, 16],)}, "slot 'width': .*write lists as tuples"),
  ],
)
def test_a_malformed_space_names_the_slot(rows, said):
  with pytest.raises(UserError, match=said):
    slots.space("bad", rows)


@pytest.mark.parametrize(
  ("tokens", "said"),
  [
    ([1, 1, 6, 8, 11], "token 1 at slot 'rate' .* there: 3 .0.1. 4 .0.3. 5 "),
    ([1, 3, 6, 8], "4 tokens, but .* has 5"),
  ],
)
def test_a_malformed_architecture_names_the_slot(tokens, said):
  with pytest.raises(UserError, match=said):
    MIXED.read(tokens)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"width": 12}, "slot 'width' is 12; allowed: 8, 16"),
    ({"act": jax.nn.silu}, "slot 'act' is silu; allowed: tanh, relu"),
    ({"depth": 1}, "slot 'depth' is unknown; the slots are width, rate"),
  ],
)
def test_malformed_choices_name_the_slot(change, said):
  chosen = MIXED.read([1, 3, 6, 8, 11])
  with pytest.raises(UserError, match=said):
    MIXED.write(chosen | change)


def test_a_missing_slot_is_named():
  with pytest.raises(UserError, match="slot 'rate' is missing"):
    MIXED.write({"width": 8, "act": jnp.tanh, "norm": None, "bias": True})
