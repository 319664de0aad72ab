"""The recurrent space: tokens, cells and strings.

A cell is `int32 [N, 2]`, with a row for each node: `predecessor activation`.
Predecessor 0 is the state computed from input and hidden state, 1.. are the
cell's own nodes, and activations index `ACTIVATIONS`. Tokens hold the same
numbers in the same order, predecessors shifted by 1 and activations by N + 1,
so that they do not collide (the encoding of the official implementation with
weight sharing).

Each node has one predecessor, so there are no branches to swap. Cells that
differ only in the order of their nodes can be equivalent; they count as
different.
"""

from collections.abc import Iterable

from absl import logging
import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError, named
from nao_jax.spaces import notation, published
from nao_jax.spaces.arrays import Array
from nao_jax.spaces.space import Space

# The official implementations number the last two differently. This is the
# order of the one with weight sharing; published cells are written in it here.
ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
# Prefix of numbers in the order of the one without weight sharing.
OTHER_ORDER = "nao:"
# From the number of an activation in one order to its number in the other.
_EXCHANGED = {2: 3, 3: 2}
_PUBLISHED = {entry.text: entry.name for entry in published.RECURRENT}

MIN_NODES, MAX_NODES = 1, 20
PUBLISHED_NODES = 11


class RecurrentSpace(Space):
  """Space of recurrent cells; made by `space`."""

  def text(self, tokens: npt.ArrayLike) -> str:
    """Writes an architecture [2 N] in the published notation."""
    return to_text(tokens)

  def parse(self, text: str, source: str = "arch") -> np.ndarray:
    """Reads an architecture with N nodes; see `resolve`.

    Raises:
      UserError: the text is no architecture, or has another number of nodes.
    """
    tokens = resolve(text, source)
    if note := ambiguity_note(text):
      logging.warning("%s", note)
    if len(tokens) != self.length:
      raise UserError(
        f"{named(source, text)}: {len(tokens) // 2} nodes; the search has "
        f"{self.length // 2} (`network.nodes`)"
      )
    return tokens


def space(nodes: int = PUBLISHED_NODES) -> RecurrentSpace:
  """Returns the space of cells with N = `nodes` nodes and 2 N tokens.

  Raises:
    UserError: the number of nodes is outside 1 to 20.
  """
  if not MIN_NODES <= nodes <= MAX_NODES:
    raise UserError(
      f"`nodes={nodes}`: a recurrent cell has {MIN_NODES} to {MAX_NODES} nodes"
    )
  activations = tuple(range(nodes + 1, nodes + 1 + len(ACTIVATIONS)))
  choices = []
  for node in range(nodes):
    choices += [tuple(range(1, node + 2)), activations]
  return RecurrentSpace(
    name=f"rnn-{nodes}", choices=tuple(choices), tokens_per_step=2
  )


def to_cells(tokens: Array) -> Array:
  """Converts legal tokens [..., 2 N] (NumPy or JAX) to cells [..., N, 2]."""
  nodes = tokens.shape[-1] // 2
  return tokens.reshape(*tokens.shape[:-1], nodes, 2) - _offsets(nodes)


def to_tokens(cells: Array) -> Array:
  """Converts cells [..., N, 2] (NumPy or JAX) to tokens [..., 2 N]."""
  nodes = cells.shape[-2]
  return (cells + _offsets(nodes)).reshape(*cells.shape[:-2], 2 * nodes)


def to_text(tokens: npt.ArrayLike) -> str:
  """Writes tokens [2 N] in the published notation."""
  return _joined(to_cells(np.asarray(tokens)).ravel())


def resolve(text: str, source: str = "arch") -> np.ndarray:
  """Reads an architecture with any number of nodes.

  Args:
    text: the name of a published cell, or the path of a JSON file with
      `tokens` (as a search writes it), or numbers in the published notation, or
      tokens. The first number distinguishes the last two: in the published
      notation it is 0, which no token is. The prefix `nao:` marks numbers in
      the published notation of the official implementation without weight
      sharing, where 2 is the identity and 3 the sigmoid, the reverse of the
      order here.
    source: the setting or argument that holds the text, for messages.

  Returns:
    Tokens, int32 [2 N].

  Raises:
    UserError: the text is none of these; the message names the position, or
      the known names.
  """
  if text.endswith(".json"):
    numbers = _numbers_of_file(text, source)
  elif text.lower().startswith(OTHER_ORDER):
    numbers = _from_other_order(text, source)
  elif (numbers := notation.numbers(text)) is None:
    entry = published.find(text, published.RECURRENT, source)
    numbers = notation.numbers(entry.text)
  nodes, odd = divmod(len(numbers), 2)
  if odd or not MIN_NODES <= nodes <= MAX_NODES:
    raise UserError(
      f"{named(source, text)}: {len(numbers)} numbers; a recurrent cell has "
      "two for each node, predecessor and activation, and "
      f"{MIN_NODES} to {MAX_NODES} nodes"
    )
  return from_numbers(space(len(numbers) // 2), numbers, named(source, text))


def from_numbers(space_: Space, numbers: list[int], place: str) -> np.ndarray:
  """Converts numbers in the published notation, or tokens, to tokens.

  Args:
    space_: a recurrent space.
    numbers: the numbers or tokens.
    place: where they come from, for messages.

  Returns:
    Tokens, int32 [2 N].

  Raises:
    UserError: they are not of this space; the message names the position.
  """
  if not numbers or numbers[0] != 0:
    return space_.validate(numbers, place)
  zero_based = _zero_based(space_)
  return to_tokens(zero_based.validate(numbers, place).reshape(-1, 2))


def ambiguity_note(text: str) -> str:
  """Returns a note on the order in which activations 2 and 3 are read.

  It is empty if the numbers do not depend on it, or are a published cell.
  """
  numbers = notation.numbers(text) or [1]
  if numbers[0] != 0 or not {*numbers[1::2]} & {*_EXCHANGED}:
    return ""
  if _joined(numbers) in _PUBLISHED:
    return ""
  note = (
    "activation 2 is read as sigmoid and 3 as identity, as in the official "
    "implementation with weight sharing; in the one without it (NAO/rnn) 2 is "
    "identity and 3 sigmoid: if the numbers are from there, write "
    f"'{OTHER_ORDER} {text}'"
  )
  name = _PUBLISHED.get(_joined(_exchange(numbers)))
  return f"{note}, which is {name}" if name else note


def _joined(numbers: Iterable[int]) -> str:
  return " ".join(map(str, numbers))


def _from_other_order(text: str, source: str) -> list[int]:
  numbers = notation.numbers(text[len(OTHER_ORDER) :])
  if not numbers or numbers[0] != 0:
    raise UserError(
      f"{named(source, text)}: '{OTHER_ORDER}' must be followed by numbers in "
      "the published notation, which start with 0"
    )
  return _exchange(numbers)


def _exchange(numbers: list[int]) -> list[int]:
  """Swaps the last two activations in numbers of the published notation."""
  return [
    _EXCHANGED.get(number, number) if position % 2 else number
    for position, number in enumerate(numbers)
  ]


def _numbers_of_file(path: str, source: str) -> list[int]:
  content = notation.read(path, source)
  numbers = notation.tokens_of(content, path, source)
  name = content.get("space")
  if name in (None, f"rnn-{len(numbers) // 2}"):
    return numbers
  place = f"{named(source, path)}: space {name!r}"
  if not str(name).startswith("rnn-"):
    raise UserError(f"{place} is not one of recurrent cells")
  raise UserError(
    f"{place} does not fit its {len(numbers)} tokens; cells of N nodes have "
    "the space rnn-N and 2 N tokens"
  )


def _offsets(nodes: int) -> np.ndarray:
  return np.array([1, nodes + 1], np.int32)


def _zero_based(space_: Space) -> Space:
  """Returns the same space with every choice counted from 0."""
  nodes = space_.length // 2
  choices = (
    tuple(int(token - _offsets(nodes)[position % 2]) for token in tokens)
    for position, tokens in enumerate(space_.choices)
  )
  return Space(
    name=f"{space_.name}, counted from 0",
    choices=tuple(choices),
    tokens_per_step=2,
  )
