"""The convolutional cell space: tokens, cells and strings.

An architecture is a pair of cells, the normal and the reduction cell. A cell is
`int32 [nodes, 4]`, with a row for each node: `input_a op_a input_b op_b`; the
node is the sum of its two branches. Input 0 is the output of the cell before
the previous one, 1 the output of the previous cell, and 2.. are the cell's own
nodes; ops index the op set. Tokens hold the same numbers in the same order,
shifted so that inputs and ops do not collide, in one of two encodings:

- `pairs`: a branch is its input, shifted by 1, and its op, shifted by nodes + 2
  (the encoding of the official weight-sharing code). It is the default of all
  functions that take tokens.
- `triples`: a branch is its input, the type of its op and the kernel (paper
  section 3.1; see `spaces/triples.py`). Only the op set `large` has it.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError, named
from nao_jax.spaces import notation, published, triples
from nao_jax.spaces.arrays import Array
from nao_jax.spaces.space import Space

# Op sets in the order of the official ids. `small` is the weight-sharing set,
# `large` the paper's, `middle` belongs to the follow-up (NAO-V2),
# `morphological` is ours, after Hu et al. 2021.
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
  "morphological": (
    "identity", "sep_conv_3x3", "dilation_3x3", "erosion_3x3", "gradient_3x3",
    "opening_3x3", "closing_3x3", "top_hat_3x3", "learnt_dilation_3x3",
    "learnt_erosion_3x3",
  ),
}  # fmt: skip

# The ids of `large` in the official PyTorch code of the first version.
_OFFICIAL_LARGE = 5, 15

# Number of tokens of a branch.
ENCODINGS = {"pairs": 2, "triples": 3}

MIN_NODES, MAX_NODES = 2, 7
PUBLISHED_NODES = 5


class CellSpace(Space):
  """Space of pairs of convolutional cells; made by `space`."""

  @property
  def nodes(self) -> int:
    """Number of computed nodes in a cell."""
    return self.length // (4 * self.tokens_per_step)

  @property
  def encoding(self) -> str:
    """Name of the encoding, from the number of tokens per branch."""
    widths = {width: name for name, width in ENCODINGS.items()}
    return widths[self.tokens_per_step]

  @property
  def plain(self) -> "CellSpace":
    """The same space in the encoding `pairs`; see `Space.plain`."""
    return self if self.encoding == "pairs" else space(self.nodes, "large")

  def to_plain(self, tokens: Array) -> Array:
    """Converts tokens [..., L] to pairs; NumPy or JAX."""
    return to_tokens(to_cells(tokens, self.encoding))

  def text(self, tokens: npt.ArrayLike) -> str:
    """Writes an architecture [L] in the published notation."""
    return to_text(np.asarray(tokens), self.encoding)

  def parse(self, text: str, source: str = "arch") -> np.ndarray:
    """Reads an architecture; see the function `parse`."""
    return parse(self, text, source)


class Architecture(NamedTuple):
  """Architecture and the space that its tokens belong to.

  Attributes:
    ops: name of the op set.
    nodes: number of computed nodes in a cell.
    tokens: int32 [8 nodes], in the encoding `pairs`.
  """

  ops: str
  nodes: int
  tokens: np.ndarray

  @property
  def space(self) -> CellSpace:
    """Space of the tokens."""
    return space(self.nodes, self.ops)


def space(
  nodes: int = 5, ops: str = "small", encoding: str = "pairs"
) -> CellSpace:
  """Returns the space of cell pairs with `nodes` nodes over the op set `ops`.

  Its length is 8 nodes in the encoding `pairs`, 12 nodes in `triples`.

  Raises:
    UserError: the op set or the encoding does not exist, they do not go
      together, or the number of nodes is outside 2 to 7.
  """
  if ops not in OP_SETS:
    raise UserError(f"`ops={ops}`: unknown; allowed: {', '.join(OP_SETS)}")
  if not MIN_NODES <= nodes <= MAX_NODES:
    raise UserError(
      f"`nodes={nodes}`: a cell has {MIN_NODES} to {MAX_NODES} nodes"
    )
  check_encoding(encoding, ops)
  op_choices, follows = _grammar(nodes, ops, encoding)
  choices, swaps = [], []
  for _ in "normal", "reduction":
    swaps.append([])
    for node in range(nodes):
      branch = (tuple(range(1, node + 3)), *op_choices)
      first = range(len(choices), len(choices) + len(branch))
      second = range(first.stop, first.stop + len(branch))
      swaps[-1].append((tuple(first), tuple(second)))
      choices += branch * 2
  return CellSpace(
    name=f"cnn-{ops}-{nodes}" + ("-triples" if encoding == "triples" else ""),
    choices=tuple(choices),
    swaps=tuple(map(tuple, swaps)),
    tokens_per_step=ENCODINGS[encoding],
    follows=follows,
  )


def check_encoding(encoding: str, ops: str) -> None:
  """Raises UserError if the op set does not have this encoding."""
  if encoding not in ENCODINGS:
    raise UserError(
      f"`encoding={encoding}`: unknown; allowed: {', '.join(ENCODINGS)}"
    )
  if encoding == "triples" and ops != "large":
    raise UserError(
      f"`encoding={encoding}`: for `ops=large` alone, not for "
      f"`ops={ops}`; change one of the two"
    )


def _grammar(nodes: int, ops: str, encoding: str):
  """Returns `choices` and `follows` of a branch's tokens after its input."""
  names = OP_SETS[ops]
  if encoding == "triples":
    return triples.grammar(names, nodes)
  first_op = nodes + 2
  return (tuple(range(first_op, first_op + len(names))),), ()


def _offsets(nodes: int) -> np.ndarray:
  return np.array([1, nodes + 2, 1, nodes + 2], np.int32)


def to_cells(tokens: Array, encoding: str = "pairs") -> Array:
  """Converts legal tokens [..., L] to cells [..., 2, nodes, 4].

  Both are NumPy or both JAX arrays.
  """
  if encoding == "triples":
    tokens = triples.to_pairs(tokens, OP_SETS["large"])
  nodes = tokens.shape[-1] // 8
  return tokens.reshape(*tokens.shape[:-1], 2, nodes, 4) - _offsets(nodes)


def to_tokens(cells: Array, encoding: str = "pairs") -> Array:
  """Converts cells [..., 2, nodes, 4] to tokens [..., L].

  Both are NumPy or both JAX arrays.
  """
  nodes = cells.shape[-2]
  tokens = (cells + _offsets(nodes)).reshape(*cells.shape[:-3], 8 * nodes)
  if encoding == "triples":
    tokens = triples.from_pairs(tokens, OP_SETS["large"])
  return tokens


def unused_states(cell: Array) -> Array:
  """Returns the loose ends of cells [..., nodes, 4], bool [..., nodes + 2].

  A loose end is a state, inputs included, that no node of the cell uses.
  """
  states = np.arange(cell.shape[-2] + 2)
  used = cell[..., :, 0::2, None] == states
  return ~used.any(axis=(-3, -2))


def to_text(tokens: np.ndarray, encoding: str = "pairs") -> str:
  """Writes tokens [L] in the published notation: normal | reduction cell."""
  cells = to_cells(np.asarray(tokens), encoding)
  return " | ".join(" ".join(map(str, cell.ravel())) for cell in cells)


def resolve(
  text: str, *, ops: str = "small", nodes: int = 5, source: str = "arch"
) -> Architecture:
  """Reads an architecture and finds the space that it belongs to.

  Args:
    text: a text that `parse` accepts. A published name determines the op set
      and the number of nodes, and so does a file that names its `space`. For
      plain numbers their count determines the number of nodes, at 8 numbers a
      node; 12 numbers a node are triples of the op set `large`.
    ops: the op set if the text does not determine it.
    nodes: the number of nodes if the text does not determine it.
    source: the setting or argument that holds the text, for messages.

  Returns:
    The architecture in pairs, for a text in any encoding.

  Raises:
    UserError: `space` or `parse` raises it, or the file names the space of
      another kind of cells.
  """
  if text.endswith(".json"):
    ops, nodes = _space_of_file(text, source) or (ops, nodes)
  elif (numbers := notation.numbers(text)) is None:
    ops, nodes = _find(text, source).ops, PUBLISHED_NODES
  else:
    ops, nodes = _space_of_numbers(numbers, ops) or (ops, nodes)
  return Architecture(ops, nodes, parse(space(nodes, ops), text, source))


def parse(space_: CellSpace, text: str, source: str = "arch") -> np.ndarray:
  """Reads an architecture of a given space.

  Args:
    space_: a convolutional space.
    text: the name of a published architecture, or the path of a JSON file
      with `tokens` (as a search writes it), or numbers in the published
      notation (0-based, as `to_text` writes it), or tokens. Numbers with a `|`
      between the cells, or with a 0 (no token is 0), are in the published
      notation; other numbers are tokens if they are legal tokens. Tokens may be
      in another encoding than the space's, which follows from their number.
    source: the setting or argument that holds the text, for messages.

  Returns:
    Tokens in the space's encoding, int32 [L].

  Raises:
    UserError: the text is none of these, or of another space; the message
      names the position, or the known names.
  """
  if text.endswith(".json"):
    tokens = notation.tokens_of_file(text, source)
    _check_space_of_file(space_, text, source)
    return _from_tokens(space_, tokens, named(source, text))
  numbers = notation.numbers(text)
  if numbers is None:
    return _tokens_of_name(space_, text, source)
  written = _written_in(space_, numbers)
  if written.encoding == "pairs":
    zero_based = _zero_based(written)
    marked = "|" in text or 0 in numbers
    if marked or (zero_based.accepts(numbers) and not written.accepts(numbers)):
      cells = _validated(zero_based, numbers, named(source))
      return to_tokens(cells.reshape(2, -1, 4), space_.encoding)
  return _from_tokens(space_, numbers, named(source))


def _validated(zero_based: Space, numbers: list[int], place: str) -> np.ndarray:
  """Checks numbers in the published notation; returns int32 [8 nodes]."""
  try:
    return zero_based.validate(numbers, place)
  except UserError as error:
    ops = numbers[1::2]
    first, last = _OFFICIAL_LARGE
    if ops and first <= min(ops) and max(ops) <= last:
      raise UserError(
        f"{error}; the official PyTorch code numbers the op set large from "
        f"{first} to {last}: take {first} from each op, and "
        "`network.ops=large`"
      ) from error
    raise


def _from_tokens(
  space_: CellSpace, tokens: list[int], place: str
) -> np.ndarray:
  """Checks tokens of any encoding and converts them to the space's."""
  written = _written_in(space_, tokens)
  cells = to_cells(written.validate(tokens, place), written.encoding)
  return to_tokens(cells, space_.encoding)


def _written_in(space_: CellSpace, numbers: list[int]) -> CellSpace:
  """Returns the space of the same architectures in the numbers' encoding.

  If the count of numbers fits no encoding, it returns the given space.
  """
  fitting = (s for s in _encodings(space_) if s.length == len(numbers))
  return next(fitting, space_)


def _encodings(space_: CellSpace) -> list[CellSpace]:
  """Returns the spaces of the same architectures, one for each encoding."""
  large = [space(space_.nodes, "large", encoding) for encoding in ENCODINGS]
  return large if space_ in large else [space_]


def _space_of_numbers(numbers: list[int], ops: str) -> tuple[str, int] | None:
  """Returns (op set, nodes) for which the count of numbers is right.

  Pairs and triples have some lengths in common; then the third number decides,
  which is an input of the first node in pairs and a kernel in triples.
  """
  kernel_third = len(numbers) > 2 and numbers[2] > MAX_NODES + 1
  for encoding in reversed(ENCODINGS) if kernel_third else ENCODINGS:
    nodes, rest = divmod(len(numbers), 4 * ENCODINGS[encoding])
    if not rest and MIN_NODES <= nodes <= MAX_NODES:
      return ("large" if encoding == "triples" else ops), nodes
  return None


def _find(name: str, source: str) -> published.Published:
  recurrent = {entry.name.lower() for entry in published.RECURRENT}
  if name.strip().lower() in recurrent:
    raise UserError(
      f"{named(source, name)}: a recurrent cell, which no network here is made "
      "of; give a convolutional one: "
      + ", ".join(entry.name for entry in published.CONVOLUTIONAL)
    )
  return published.find(name, published.CONVOLUTIONAL, source)


def _tokens_of_name(space_: CellSpace, name: str, source: str) -> np.ndarray:
  found = _find(name, source)
  if space(PUBLISHED_NODES, found.ops) not in _encodings(space_):
    raise UserError(
      f"{named(source, name)}: {found.name} needs `network.ops={found.ops}` "
      f"and `network.nodes={PUBLISHED_NODES}`, but this is space "
      f"{space_.name!r}"
    )
  return parse(space_, found.text, source)


def _zero_based(space_: CellSpace) -> CellSpace:
  """Returns the same space of pairs with every choice counted from 0."""
  offsets = _offsets(space_.length // 8)
  choices = (
    tuple(int(token - offsets[position % 4]) for token in tokens)
    for position, tokens in enumerate(space_.choices)
  )
  return dataclasses.replace(space_, choices=tuple(choices))


def _check_space_of_file(space_: CellSpace, path: str, source: str) -> None:
  """Raises UserError if a file names another space."""
  written = notation.read(path, source).get("space")
  known = [coded.name for coded in _encodings(space_)]
  if written is not None and written not in known:
    raise UserError(
      f"{named(source, path)}: is of space {written!r}, but this is space "
      f"{space_.name!r}; give one of this space, or the settings of that one"
    )


def _space_of_file(path: str, source: str) -> tuple[str, int] | None:
  """Returns (op set, nodes) of the space that a file names, if it names one."""
  name = notation.read(path, source).get("space")
  if name is None:
    return None
  for ops, nodes in itertools.product(OP_SETS, range(MIN_NODES, MAX_NODES + 1)):
    if any(coded.name == name for coded in _encodings(space(nodes, ops))):
      return ops, nodes
  raise UserError(
    f"{named(source, path)}: space {name!r} is not one of convolutional cells; "
    f"those are called like {space().name!r}"
  )
