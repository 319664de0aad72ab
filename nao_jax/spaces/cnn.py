"""The convolutional cell space: tokens, cells and strings.

An architecture is a pair of cells, the normal one and the reduction one. A
cell is `int32 [nodes, 4]`, a row a node: `input_a op_a input_b op_b`; the node
is the sum of its two branches. Inputs count 0 = output of the cell before the
previous one, 1 = output of the previous cell, 2.. = the cell's own nodes; ops
index the op set. Tokens hold the same numbers in the same order, moved up so
that inputs and ops do not collide: inputs by 1, ops by nodes + 2 (paper
section 3.1; the official weight-sharing code's coding).
"""

import dataclasses
import itertools
import json
from typing import NamedTuple

import numpy as np

from nao_jax.errors import UserError
from nao_jax.spaces import published
from nao_jax.spaces.space import Space

# Op sets in the order of the official ids. `small` is the weight-sharing set,
# `large` the paper's, `middle` belongs to the follow-up (NAO-V2).
OP_SETS = {
  "small": (
    "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity",
  ),
  "middle": (
    "zero", "identity", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7",
    "dil_sep_conv_3x3", "dil_sep_conv_5x5", "dil_sep_conv_7x7",
    "avg_pool_3x3", "max_pool_3x3",
  ),
  "large": (
    "identity", "conv_1x1", "conv_3x3", "conv_1x3_3x1", "conv_1x7_7x1",
    "max_pool_2x2", "max_pool_3x3", "max_pool_5x5",
    "avg_pool_2x2", "avg_pool_3x3", "avg_pool_5x5",
  ),
}  # fmt: skip

MIN_NODES, MAX_NODES = 2, 7
PUBLISHED_NODES = 5


class Architecture(NamedTuple):
  """An architecture and the space that its tokens belong to.

  Attributes:
    ops: name of the op set.
    nodes: computed nodes in a cell.
    tokens: int32 [8 nodes].
  """

  ops: str
  nodes: int
  tokens: np.ndarray

  @property
  def space(self) -> Space:
    """The space."""
    return space(self.nodes, self.ops)


def space(nodes: int = 5, ops: str = "small") -> Space:
  """The space of cell pairs with `nodes` nodes over the op set `ops`.

  Raises:
    UserError: an op set that does not exist, or a number of nodes outside
      2 to 7.
  """
  if ops not in OP_SETS:
    raise UserError(f"--ops={ops}: unknown; allowed: {', '.join(OP_SETS)}")
  if not MIN_NODES <= nodes <= MAX_NODES:
    raise UserError(
      f"--nodes={nodes}: a cell has {MIN_NODES} to {MAX_NODES} nodes"
    )
  first_op = nodes + 2
  op_tokens = tuple(range(first_op, first_op + len(OP_SETS[ops])))
  choices, swaps = [], []
  for cell in range(2):
    swaps.append([])
    for node in range(nodes):
      at = 4 * (cell * nodes + node)
      input_tokens = tuple(range(1, node + 3))
      choices += [input_tokens, op_tokens] * 2
      swaps[cell].append(((at, at + 1), (at + 2, at + 3)))
  return Space(
    name=f"cnn-{ops}-{nodes}",
    choices=tuple(choices),
    swaps=tuple(map(tuple, swaps)),
    tokens_per_step=2,
  )


def _offsets(nodes: int) -> np.ndarray:
  return np.array([1, nodes + 2, 1, nodes + 2], np.int32)


def to_cells(tokens):
  """Tokens [..., 8 nodes] (NumPy or JAX) to cells [..., 2, nodes, 4]."""
  nodes = tokens.shape[-1] // 8
  return tokens.reshape(*tokens.shape[:-1], 2, nodes, 4) - _offsets(nodes)


def to_tokens(cells):
  """Cells [..., 2, nodes, 4] (NumPy or JAX) to tokens [..., 8 nodes]."""
  nodes = cells.shape[-2]
  return (cells + _offsets(nodes)).reshape(*cells.shape[:-3], 8 * nodes)


def unused_states(cell):
  """The loose ends of cells [..., nodes, 4]: bool [..., nodes + 2].

  A loose end is a state, inputs included, that no node of the cell uses.
  """
  states = np.arange(cell.shape[-2] + 2)
  used = cell[..., :, 0::2, None] == states
  return ~used.any(axis=(-3, -2))


def to_text(tokens: np.ndarray) -> str:
  """Tokens [L] as the published notation: normal cell | reduction cell."""
  cells = to_cells(np.asarray(tokens))
  return " | ".join(" ".join(map(str, cell.ravel())) for cell in cells)


def resolve(
  text: str, *, ops: str = "small", nodes: int = 5, source: str = "--arch"
) -> Architecture:
  """Reads an architecture of whatever space it belongs to.

  Args:
    text: as for `parse`. A published name brings its own op set and number of
      nodes, as does a file that names its `space`; plain numbers, 8 a node,
      say how many nodes there are by how many they are.
    ops: the op set where the text does not say it.
    nodes: the number of nodes where the text does not say it.
    source: the flag, for messages.

  Raises:
    UserError: as `space` and `parse`, or the file's space is not one of these.
  """
  if text.endswith(".json"):
    ops, nodes = _space_of_file(text, source) or (ops, nodes)
  elif (numbers := _numbers(text)) is None:
    ops, nodes = _find(text, source).ops, PUBLISHED_NODES
  elif len(numbers) in range(8 * MIN_NODES, 8 * MAX_NODES + 1, 8):
    nodes = len(numbers) // 8
  return Architecture(ops, nodes, parse(space(nodes, ops), text, source))


def parse(space_: Space, text: str, source: str = "--arch") -> np.ndarray:
  """Reads an architecture from the command line.

  Args:
    space_: a convolutional space.
    text: the name of a published architecture, or the path of a JSON file
      with `tokens` (what a search writes), or numbers in the published
      notation (0-based, what `to_text` writes), or tokens. A `|` between the
      cells, or a 0 (no token is 0), says that numbers are in the published
      notation; the others are tokens if they are legal ones.
    source: the flag, for messages.

  Returns:
    Tokens, int32 [L].

  Raises:
    UserError: the text is none of these, or of another space; the message
      names the position, or the names.
  """
  if text.endswith(".json"):
    return space_.validate(_tokens_of_file(text, source), f"{source}={text}")
  numbers = _numbers(text)
  if numbers is None:
    return _tokens_of_name(space_, text, source)
  zero_based = _zero_based(space_)
  marked = "|" in text or 0 in numbers
  if marked or (zero_based.accepts(numbers) and not space_.accepts(numbers)):
    zero_based.validate(numbers, source)
    cells = np.reshape(np.array(numbers, np.int32), (2, -1, 4))
    return to_tokens(cells)
  return space_.validate(numbers, source)


def _numbers(text: str) -> list[int] | None:
  """The whole numbers that the text consists of, if it does."""
  words = text.replace("|", " ").replace(",", " ").split()
  try:
    return [int(word) for word in words]
  except ValueError:
    return None


def _find(name: str, source: str) -> published.Published:
  recurrent = {entry.name.lower() for entry in published.RECURRENT}
  if name.strip().lower() in recurrent:
    raise UserError(
      f"{source}={name}: a recurrent cell, which no network here is made of; "
      "give a convolutional one: "
      + ", ".join(entry.name for entry in published.CONVOLUTIONAL)
    )
  return published.find(name, published.CONVOLUTIONAL, source)


def _tokens_of_name(space_: Space, name: str, source: str) -> np.ndarray:
  found = _find(name, source)
  if space_ != space(PUBLISHED_NODES, found.ops):
    raise UserError(
      f"{source}={name}: {found.name} needs --ops={found.ops} "
      f"--nodes={PUBLISHED_NODES}, but this is space {space_.name!r}"
    )
  return parse(space_, found.text, source)


def _zero_based(space_: Space) -> Space:
  """The same space with every choice counted from 0."""
  offsets = _offsets(space_.length // 8)
  choices = (
    tuple(int(token - offsets[position % 4]) for token in tokens)
    for position, tokens in enumerate(space_.choices)
  )
  return dataclasses.replace(space_, choices=tuple(choices))


def _tokens_of_file(path: str, source: str) -> list[int]:
  tokens = _read(path, source)["tokens"]
  if not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
    raise UserError(f"{source}={path}: `tokens` is not a list of integers")
  return tokens


def _space_of_file(path: str, source: str) -> tuple[str, int] | None:
  """(op set, nodes) of the space that the file names, if it names one."""
  name = _read(path, source).get("space")
  if name is None:
    return None
  for ops, nodes in itertools.product(OP_SETS, range(MIN_NODES, MAX_NODES + 1)):
    if space(nodes, ops).name == name:
      return ops, nodes
  raise UserError(
    f"{source}={path}: space {name!r} is not one of convolutional cells; those "
    f"are called like {space().name!r}"
  )


def _read(path: str, source: str) -> dict:
  """The object in a JSON file; it has `tokens`."""
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
    content["tokens"]
  except OSError as error:
    raise UserError(f"{source}={path}: {error.strerror}") from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{source}={path}: not a JSON object with a list `tokens`"
    ) from error
  return content
