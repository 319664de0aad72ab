"""Layout of a drawn tree.

Node 0 is the root, in row 0; a child is a row below its parent. A lane leads
from each node but the root down past the last row, because every node is read
there, too. Edges are vertical inside rows and bend only in the gaps below, and
no two of them cross: the lane of a node runs between its children.

The subtree of a node is packed by its outline, row by row (Reingold and
Tilford, 1981), once to the left and once to the right; the mean of both is as
valid as they are, and symmetric.
"""

from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Widths, in points.

  Attributes:
    box: width of a node.
    lane: width that a lane keeps free.
    gap: space between neighbours in a row.
  """

  box: float
  lane: float = 2.0
  gap: float = 8.0


@dataclasses.dataclass(frozen=True)
class Layout:
  """Positions of the parts; x in points, 0 is the left edge.

  Attributes:
    row: the row of each node's box.
    box: the middle of each node's box.
    lane: x of each node's lane; the root's is the middle of its box.
    width: width of the whole drawing.
  """

  row: tuple[int, ...]
  box: tuple[float, ...]
  lane: tuple[float, ...]
  width: float


def arrange(parents: Sequence[int], sizes: Sizes) -> Layout:
  """Arranges a tree.

  Args:
    parents: the parents of the nodes 1, 2 ..; each is smaller than its child.
    sizes: sizes of the parts.
  """
  row, below = [0], [[] for _ in range(len(parents) + 1)]
  for node, parent in enumerate(parents, 1):
    row.append(row[parent] + 1)
    below[parent].append(node)
  part = _Builder(tuple(row), below, sizes).subtree(0)
  left = part.left.min()
  nodes = range(len(row))
  return Layout(
    row=tuple(row),
    box=tuple(float(part.x["box", node] - left) for node in nodes),
    lane=tuple(
      float(part.x["lane" if node else "box", node] - left) for node in nodes
    ),
    width=float(part.right.max() - left),
  )


@dataclasses.dataclass(frozen=True)
class _Part:
  """Items at fixed distances, and the outline that they cover in each row.

  Attributes:
    x: {(kind, node): middle}.
    left: the leftmost x in each row; infinite where the row is empty.
    right: the rightmost x in each row; minus infinity where the row is empty.
  """

  x: dict[tuple[str, int], float]
  left: np.ndarray
  right: np.ndarray

  def moved(self, by: float) -> "_Part":
    x = {item: middle + by for item, middle in self.x.items()}
    return _Part(x, self.left + by, self.right + by)

  def __or__(self, other: "_Part") -> "_Part":
    return _Part(
      self.x | other.x,
      np.minimum(self.left, other.left),
      np.maximum(self.right, other.right),
    )


@dataclasses.dataclass(frozen=True)
class _Builder:
  row: tuple[int, ...]
  below: list[list[int]]
  sizes: Sizes

  def subtree(self, node: int) -> _Part:
    """Arranges a node and all its descendants."""
    children = self._biggest_in_the_middle(self.below[node])
    parts = [self.subtree(child) for child in children]
    half, odd = divmod(len(children), 2)
    if node:
      # The lane leads straight down, or past a middle child if there is one.
      aside = bool(odd) and _leans_to_the_left(parts[half], children[half])
      parts.insert(half + aside, self._thing("lane", node))
    joined = self._join(parts)
    middle = joined.x.get(("lane", node), 0.0)
    if odd or not node:
      pair = children[(len(children) - 1) // 2 : half + 1]
      middle = sum(joined.x["box", child] for child in pair) / len(pair)
    return joined | self._thing("box", node).moved(middle)

  def _biggest_in_the_middle(self, children: list[int]) -> list[int]:
    """Orders children by size; equally large ones keep their order."""
    left, right = [], []
    by_size = sorted(children, key=self._size, reverse=True)
    for _, group in itertools.groupby(by_size, self._size):
      equals = list(group)
      half = (len(equals) + len(right) - len(left) + 1) // 2
      left = equals[:half] + left
      right += equals[half:]
    return left + right

  def _size(self, node: int) -> int:
    return 1 + sum(map(self._size, self.below[node]))

  def _thing(self, kind: str, node: int) -> _Part:
    rows, at = np.arange(max(self.row) + 1), self.row[node]
    covered = rows == at if kind == "box" else rows > at
    half = (self.sizes.box if kind == "box" else self.sizes.lane) / 2
    outline = np.where(covered, half, -np.inf)
    return _Part({(kind, node): 0.0}, -outline, outline)

  def _join(self, parts: list[_Part]) -> _Part:
    """Puts parts side by side, in this order, as near as possible."""
    to_the_left = self._packed(parts)
    mirrored = [_Part(p.x, -p.right, -p.left) for p in reversed(parts)]
    to_the_right = [-by for by in reversed(self._packed(mirrored))]
    shift = to_the_left[-1] - to_the_right[-1]
    joined = None
    for part, a, b in zip(parts, to_the_left, to_the_right, strict=True):
      moved = part.moved((a + b + shift) / 2)
      joined = moved if joined is None else joined | moved
    return joined

  def _packed(self, parts: list[_Part]) -> list[float]:
    """Returns the move of each part when all are pushed to the left."""
    moves, taken = [0.0], parts[0].right
    for part in parts[1:]:
      by = float(np.max(taken - part.left)) + self.sizes.gap
      moves.append(by)
      taken = np.maximum(taken, part.right + by)
    return moves


def _leans_to_the_left(part: _Part, node: int) -> bool:
  """Returns whether a subtree reaches no further right of its box than left."""
  middle = part.x["box", node]
  return bool(part.right.max() - middle <= middle - part.left.min() + 1e-6)
