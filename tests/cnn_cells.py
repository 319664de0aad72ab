"""Spaces and architectures of convolutional cells."""

from hypothesis import strategies as st
import numpy as np

from nao_jax.spaces import cnn, published

SPACES = [
  (nodes, ops)
  for nodes in range(cnn.MIN_NODES, cnn.MAX_NODES + 1)
  for ops in cnn.OP_SETS
]

PUBLISHED = {entry.name: entry for entry in published.CONVOLUTIONAL}

# The coding of the search without weight sharing has three tokens a branch:
# input, kind, kernel.
NAONET_60_TOKENS = (
  "1 9 16 2 11 17 3 9 19 2 9 16 1 9 14 2 9 16 1 9 19 5 9 16 2 7 14 1 9 16 "
  "1 9 16 2 11 15 1 9 14 1 11 16 2 9 20 1 12 15 1 11 16 3 9 14 2 12 16 1 9 16"
)


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


def triples_space(nodes):
  return cnn.space(nodes, "large", "triples")


def numbers(text):
  return [int(word) for word in text.replace("|", " ").split()]
