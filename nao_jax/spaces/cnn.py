"""The convolutional cell space: tokens, cells and strings.

An architecture is a pair of cells, the normal one and the reduction one. A
cell is `int32 [nodes, 4]`, a row a node: `input_a op_a input_b op_b`; the node
is the sum of its two branches. Inputs count 0 = output of the cell before the
previous one, 1 = output of the previous cell, 2.. = the cell's own nodes; ops
index the op set. Tokens hold the same numbers in the same order, moved up so
that inputs and ops do not collide, in one of two codings:

- `pairs`: a branch is its input, moved up by 1, and its op, moved up by
  nodes + 2 (the official weight-sharing code's coding). Whatever takes tokens
  and is told no coding takes these.
- `triples`: a branch is its input, the type of its op and the kernel (paper
  section 3.1; see `spaces/triples.py`). Only the op set `large` has it.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from nao_jax.errors import UserError, named
from nao_jax.spaces import notation, published, triples
from nao_jax.spaces.arrays import Array
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

# The ids of `large` in the official PyTorch code of the first version.
_OFFICIAL_LARGE = 5, 15

# Tokens of a branch.
CODINGS = {"pairs": 2, "triples": 3}

MIN_NODES, MAX_NODES = 2, 7
PUBLISHED_NODES = 5


class Architecture(NamedTuple):
  """An architecture and the space that its tokens belong to.

  Attributes:
    ops: name of the op set.
    nodes: computed nodes in a cell.
    tokens: int32 [8 nodes], pairs.
  """

  ops: str
  nodes: int
  tokens: np.ndarray

  @property
  def space(self) -> Space:
    """The space."""
    return space(self.nodes, self.ops)


def space(nodes: int = 5, ops: str = "small", coding: str = "pairs") -> Space:
  """The space of cell pairs with `nodes` nodes over the op set `ops`.

  Its length is 8 nodes in the coding `pairs`, 12 nodes in `triples`.

  Raises:
    UserError: an op set or a coding that does not exist, or that do not go
      together, or a number of nodes outside 2 to 7.
  """
  if ops not in OP_SETS:
    raise UserError(f"`ops={ops}`: unknown; allowed: {', '.join(OP_SETS)}")
  if not MIN_NODES <= nodes <= MAX_NODES:
    raise UserError(
      f"`nodes={nodes}`: a cell has {MIN_NODES} to {MAX_NODES} nodes"
    )
  check_coding(coding, ops)
  op_choices, follows = _grammar(nodes, ops, coding)
  choices, swaps = [], []
  for _ in "normal", "reduction":
    swaps.append([])
    for node in range(nodes):
      branch = (tuple(range(1, node + 3)), *op_choices)
      first = range(len(choices), len(choices) + len(branch))
      second = range(first.stop, first.stop + len(branch))
      swaps[-1].append((tuple(first), tuple(second)))
      choices += branch * 2
  return Space(
    name=f"cnn-{ops}-{nodes}" + ("-triples" if coding == "triples" else ""),
    choices=tuple(choices),
    swaps=tuple(map(tuple, swaps)),
    tokens_per_step=CODINGS[coding],
    follows=follows,
  )


def coding_of(space_: Space) -> str:
  """The coding of a convolutional space; its encoder folds branches."""
  return next(
    name for name, width in CODINGS.items() if width == space_.tokens_per_step
  )


def check_coding(coding: str, ops: str) -> None:
  """Raises UserError for a coding that there is not, or not for these ops."""
  if coding not in CODINGS:
    raise UserError(
      f"`coding={coding}`: unknown; allowed: {', '.join(CODINGS)}"
    )
  if coding == "triples" and ops != "large":
    raise UserError(
      f"`coding={coding}`: for `ops=large` alone, not for "
      f"`ops={ops}`; change one of the two"
    )


def _grammar(nodes: int, ops: str, coding: str):
  """What a branch may say after its input: `choices` and `follows`."""
  names = OP_SETS[ops]
  if coding == "triples":
    return triples.grammar(names, nodes)
  first_op = nodes + 2
  return (tuple(range(first_op, first_op + len(names))),), ()


def _offsets(nodes: int) -> np.ndarray:
  return np.array([1, nodes + 2, 1, nodes + 2], np.int32)


def to_cells(tokens: Array, coding: str = "pairs") -> Array:
  """Legal tokens [..., L] (NumPy or JAX) to cells [..., 2, nodes, 4]."""
  if coding == "triples":
    tokens = triples.to_pairs(tokens, OP_SETS["large"])
  nodes = tokens.shape[-1] // 8
  return tokens.reshape(*tokens.shape[:-1], 2, nodes, 4) - _offsets(nodes)


def to_tokens(cells: Array, coding: str = "pairs") -> Array:
  """Cells [..., 2, nodes, 4] (NumPy or JAX) to tokens [..., L]."""
  nodes = cells.shape[-2]
  tokens = (cells + _offsets(nodes)).reshape(*cells.shape[:-3], 8 * nodes)
  if coding == "triples":
    tokens = triples.from_pairs(tokens, OP_SETS["large"])
  return tokens


def unused_states(cell: Array) -> Array:
  """The loose ends of cells [..., nodes, 4]: bool [..., nodes + 2].

  A loose end is a state, inputs included, that no node of the cell uses.
  """
  states = np.arange(cell.shape[-2] + 2)
  used = cell[..., :, 0::2, None] == states
  return ~used.any(axis=(-3, -2))


def to_text(tokens: np.ndarray, coding: str = "pairs") -> str:
  """Tokens [L] as the published notation: normal cell | reduction cell."""
  cells = to_cells(np.asarray(tokens), coding)
  return " | ".join(" ".join(map(str, cell.ravel())) for cell in cells)


def resolve(
  text: str, *, ops: str = "small", nodes: int = 5, source: str = "arch"
) -> Architecture:
  """Reads an architecture of whatever space it belongs to.

  Args:
    text: as for `parse`. A published name brings its own op set and number of
      nodes, as does a file that names its `space`; plain numbers, 8 a node,
      say how many nodes there are by how many they are, or, 12 a node, that
      they are triples, and the op set `large`.
    ops: the op set where the text does not say it.
    nodes: the number of nodes where the text does not say it.
    source: the setting or argument that gave it, for messages.

  Returns:
    The architecture in pairs, whatever coding the text is in.

  Raises:
    UserError: as `space` and `parse`, or the file's space is not one of these.
  """
  if text.endswith(".json"):
    ops, nodes = _space_of_file(text, source) or (ops, nodes)
  elif (numbers := notation.numbers(text)) is None:
    ops, nodes = _find(text, source).ops, PUBLISHED_NODES
  else:
    ops, nodes = _space_of_numbers(numbers, ops) or (ops, nodes)
  return Architecture(ops, nodes, parse(space(nodes, ops), text, source))


def parse(space_: Space, text: str, source: str = "arch") -> np.ndarray:
  """Reads an architecture from the command line.

  Args:
    space_: a convolutional space.
    text: the name of a published architecture, or the path of a JSON file
      with `tokens` (what a search writes), or numbers in the published
      notation (0-based, what `to_text` writes), or tokens. A `|` between the
      cells, or a 0 (no token is 0), says that numbers are in the published
      notation; the others are tokens if they are legal ones. Tokens may be in
      another coding than the space's: their number says in which.
    source: the setting or argument that gave it, for messages.

  Returns:
    Tokens in the space's coding, int32 [L].

  Raises:
    UserError: the text is none of these, or of another space; the message
      names the position, or the names.
  """
  if text.endswith(".json"):
    tokens = notation.tokens_of_file(text, source)
    _check_space_of_file(space_, text, source)
    return _from_tokens(space_, tokens, named(source, text))
  numbers = notation.numbers(text)
  if numbers is None:
    return _tokens_of_name(space_, text, source)
  written = _written_in(space_, numbers)
  if coding_of(written) == "pairs":
    zero_based = _zero_based(written)
    marked = "|" in text or 0 in numbers
    if marked or (zero_based.accepts(numbers) and not written.accepts(numbers)):
      cells = _validated(zero_based, numbers, named(source))
      return to_tokens(cells.reshape(2, -1, 4), coding_of(space_))
  return _from_tokens(space_, numbers, named(source))


def _validated(zero_based: Space, numbers: list[int], place: str) -> np.ndarray:
  """Numbers in the published notation, checked: int32 [8 nodes]."""
  try:
    return zero_based.validate(numbers, place)
  except UserError as error:
    ops = numbers[1::2]
    first, last = _OFFICIAL_LARGE
    if first <= min(ops) and max(ops) <= last:
      raise UserError(
        f"{error}; the official PyTorch code numbers the op set large from "
        f"{first} to {last}: take {first} from each op, and "
        "`network.ops=large`"
      ) from error
    raise


def _from_tokens(space_: Space, tokens: list[int], place: str) -> np.ndarray:
  """Tokens of any coding, checked, in the space's."""
  written = _written_in(space_, tokens)
  cells = to_cells(written.validate(tokens, place), coding_of(written))
  return to_tokens(cells, coding_of(space_))


def _written_in(space_: Space, numbers: list[int]) -> Space:
  """The space of the same architectures, in the coding of these numbers.

  It is the given one if there are not as many of them as in any coding.
  """
  fitting = (s for s in _codings(space_) if s.length == len(numbers))
  return next(fitting, space_)


def _codings(space_: Space) -> list[Space]:
  """The spaces of the same architectures, one for each coding."""
  nodes = space_.length // (4 * space_.tokens_per_step)
  large = [space(nodes, "large", coding) for coding in CODINGS]
  return large if space_ in large else [space_]


def _space_of_numbers(numbers: list[int], ops: str) -> tuple[str, int] | None:
  """(op set, nodes) that so many numbers can be of.

  Pairs and triples have some lengths in common; then the third number tells
  them apart, an input of the first node in pairs, a kernel in triples.
  """
  kernel_third = len(numbers) > 2 and numbers[2] > MAX_NODES + 1
  for coding in reversed(CODINGS) if kernel_third else CODINGS:
    nodes, rest = divmod(len(numbers), 4 * CODINGS[coding])
    if not rest and MIN_NODES <= nodes <= MAX_NODES:
      return ("large" if coding == "triples" else ops), nodes
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


def _tokens_of_name(space_: Space, name: str, source: str) -> np.ndarray:
  found = _find(name, source)
  if space(PUBLISHED_NODES, found.ops) not in _codings(space_):
    raise UserError(
      f"{named(source, name)}: {found.name} needs `network.ops={found.ops}` "
      f"and `network.nodes={PUBLISHED_NODES}`, but this is space "
      f"{space_.name!r}"
    )
  return parse(space_, found.text, source)


def _zero_based(space_: Space) -> Space:
  """The same space of pairs with every choice counted from 0."""
  offsets = _offsets(space_.length // 8)
  choices = (
    tuple(int(token - offsets[position % 4]) for token in tokens)
    for position, tokens in enumerate(space_.choices)
  )
  return dataclasses.replace(space_, choices=tuple(choices))


def _check_space_of_file(space_: Space, path: str, source: str) -> None:
  """Raises UserError if a file names another space."""
  written = notation.read(path, source).get("space")
  known = [coded.name for coded in _codings(space_)]
  if written is not None and written not in known:
    raise UserError(
      f"{named(source, path)}: is of space {written!r}, but this is space "
      f"{space_.name!r}; give one of this space, or the settings of that one"
    )


def _space_of_file(path: str, source: str) -> tuple[str, int] | None:
  """(op set, nodes) of the space that the file names, if it names one."""
  name = notation.read(path, source).get("space")
  if name is None:
    return None
  for ops, nodes in itertools.product(OP_SETS, range(MIN_NODES, MAX_NODES + 1)):
    if any(coded.name == name for coded in _codings(space(nodes, ops))):
      return ops, nodes
  raise UserError(
    f"{named(source, path)}: space {name!r} is not one of convolutional cells; "
    f"those are called like {space().name!r}"
  )
