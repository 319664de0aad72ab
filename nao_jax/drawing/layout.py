"""Layout of a drawn convolutional cell.

States are numbered as in a cell: 0 and 1 are the inputs, 2.. the nodes. Row 0
holds the inputs, each row below at most `WIDEST` nodes, and a bar below the
last row is the output. A state that is read below the next row keeps a lane in
the rows between, so that no edge runs through a box: edges are vertical inside
rows and bend only in the gaps (the layered drawing of Sugiyama, Tagawa and
Toda, 1981). Two branches of a node may change sides, since they are summed.
"""

import dataclasses
import itertools

import numpy as np
from scipy import optimize

WIDEST = 2
STARTS = 12
LANE_WEIGHT, WIDTH_WEIGHT = 4.0, 2.0


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Widths, in points.

  Attributes:
    op: width of a box with an op; a node has two, side by side.
    pad: space around the boxes within a node.
    gap: space between neighbours in a row.
    lane: width of the lane of a state that passes a row.
  """

  op: float
  pad: float = 5.0
  gap: float = 7.0
  lane: float = 8.0

  @property
  def node(self) -> float:
    """Width of a node with its two ops."""
    return 2 * self.op + 3 * self.pad

  @property
  def port(self) -> float:
    """Distance from the middle of a node to the middle of one of its ops."""
    return (self.op + self.pad) / 2

  @property
  def end(self) -> float:
    """Width of an input; two neighbours stand straight above two ops."""
    return self.op + self.pad - self.gap


@dataclasses.dataclass(frozen=True)
class Layout:
  """Positions of the parts; x in points, 0 is the left edge.

  Attributes:
    rows: for each row its states, nodes and lanes, from left to right.
    row: for each state, inputs first, the row of its box.
    x: for (row, state) the middle of the box or lane.
    mirrored: the nodes whose second branch is drawn on the left.
    width: width of the whole drawing.
  """

  rows: tuple[tuple[int, ...], ...]
  row: tuple[int, ...]
  x: dict[tuple[int, int], float]
  mirrored: frozenset[int]
  width: float


def arrange(inputs: np.ndarray, sizes: Sizes) -> Layout:
  """Arranges one cell with few crossings, and then with short edges.

  Args:
    inputs: int [nodes, 2], the states that the branches of each node read.
    sizes: sizes of the parts.
  """
  inputs = np.asarray(inputs).tolist()
  row = _row_of_each_state(inputs)
  rows = _states_of_each_row(inputs, row)
  arrangements = {_untangle(rows, row, inputs, seed) for seed in range(STARTS)}
  fewest = min(_crossings(rows, row, inputs) for rows in arrangements)
  return min(
    (
      _place(rows, row, inputs, sizes)
      for rows in sorted(arrangements)
      if _crossings(rows, row, inputs) == fewest
    ),
    key=lambda placed: placed[0],
  )[1]


def _row_of_each_state(inputs) -> tuple[int, ...]:
  """Fills the rows from above, nodes with long chains below them first."""
  nodes = range(2, len(inputs) + 2)
  depth = dict.fromkeys(nodes, 0)
  for node in reversed(nodes):
    for source in inputs[node - 2]:
      if source >= 2:
        depth[source] = max(depth[source], depth[node] + 1)
  row = {0: 0, 1: 0}
  for at in itertools.count(1):
    ready = [
      node
      for node in nodes
      if node not in row and all(source in row for source in inputs[node - 2])
    ]
    if not ready:
      return tuple(row[state] for state in sorted(row))
    ready.sort(key=lambda node: -depth[node])
    row |= dict.fromkeys(ready[:WIDEST], at)


def _states_of_each_row(inputs, row) -> tuple[tuple[int, ...], ...]:
  end = max(row) + 1
  last = [end] * len(row)  # A loose end runs down to the output.
  for state in {source for pair in inputs for source in pair}:
    readers = (n for n, pair in enumerate(inputs, 2) if state in pair)
    last[state] = max(row[reader] for reader in readers)
  return tuple(
    tuple(
      state
      for state in range(len(row))
      if row[state] == at or row[state] < at < last[state]
    )
    for at in range(end)
  )


def _links(above, below, at, row, inputs) -> list[tuple[float, float]]:
  """Returns the edges from row `at - 1` to row `at` as pairs of ranks."""
  rank = {state: i for i, state in enumerate(above)}
  links = []
  for i, state in enumerate(below):
    if row[state] < at:
      links.append((rank[state], i))
    else:
      a, b = sorted(rank[source] for source in inputs[state - 2])
      links += [(a, i - 0.25), (b, i + 0.25)]
  return links


def _crossings(rows, row, inputs) -> int:
  return sum(
    _crossings_between(rows, at, row, inputs) for at in range(1, len(rows))
  )


def _crossings_between(rows, at, row, inputs) -> int:
  links = _links(rows[at - 1], rows[at], at, row, inputs)
  return sum(
    (a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(links, 2)
  )


def _untangle(rows, row, inputs, seed):
  """Shuffles the rows, then moves single states while crossings decrease."""
  rng = np.random.default_rng(seed)
  rows = [rows[0], *(tuple(rng.permutation(r).tolist()) for r in rows[1:])]

  def cost(at, order):
    trial = [*rows[:at], order, *rows[at + 1 :]]
    gaps = range(at, min(at + 2, len(rows)))
    return sum(_crossings_between(trial, gap, row, inputs) for gap in gaps)

  changed = True
  while changed:
    changed = False
    for at in range(1, len(rows)):
      best = min(_moves(rows[at]), key=lambda order: cost(at, order))
      if cost(at, best) < cost(at, rows[at]):
        rows[at], changed = best, True
  return tuple(rows)


def _moves(order):
  """Yields all orders that differ in the place of one element."""
  for i, j in itertools.permutations(range(len(order)), 2):
    rest = list(order)
    rest.insert(j, rest.pop(i))
    yield tuple(rest)
  yield order


def _place(rows, row, inputs, sizes) -> tuple[float, Layout]:
  """Computes all x by a linear programme for short, straight edges.

  The variables are the middles of the items, the sideways length of each
  edge, and the total width; the left edge is 0.
  """
  items = [(at, state) for at, states in enumerate(rows) for state in states]
  edges, mirrored = _edges(rows, row, inputs, sizes)
  unit = np.eye(len(items) + len(edges) + 1)
  x = dict(zip(items, unit, strict=False))
  half = {item: _half_width(item, row, sizes) for item in items}
  lines = [(-x[item], -half[item]) for item in items]
  lines += [(x[item] - unit[-1], -half[item]) for item in items]
  for left, right in itertools.pairwise(items):
    if left[0] == right[0]:
      distance = half[left] + sizes.gap + half[right]
      lines.append((x[left] - x[right], -distance))
  for length, (source, target, offset, _) in zip(
    unit[len(items) :], edges, strict=False
  ):
    sideways = x[source] - x[target]
    lines += [(sideways - length, offset), (-sideways - length, -offset)]
  weights = [*np.zeros(len(items)), *(edge[-1] for edge in edges), WIDTH_WEIGHT]
  solved = optimize.linprog(weights, *map(np.array, zip(*lines, strict=True)))
  middles = dict(zip(items, solved.x.tolist(), strict=False))
  return solved.fun, Layout(rows, row, middles, mirrored, float(solved.x[-1]))


def _half_width(item, row, sizes) -> float:
  at, state = item
  if row[state] < at:
    return sizes.lane / 2
  return (sizes.end if at == 0 else sizes.node) / 2


def _edges(rows, row, inputs, sizes):
  """Returns (source, target, offset of the port, weight) of each edge.

  The second result is the set of mirrored nodes.
  """
  edges, mirrored = [], set()
  for at in range(1, len(rows)):
    rank = {state: i for i, state in enumerate(rows[at - 1])}
    for state in rows[at]:
      if row[state] < at:
        edges.append(((at - 1, state), (at, state), 0.0, LANE_WEIGHT))
        continue
      first, second = inputs[state - 2]
      if rank[first] > rank[second]:
        first, second = second, first
        mirrored.add(state)
      for source, offset in ((first, -sizes.port), (second, sizes.port)):
        edges.append(((at - 1, source), (at, state), offset, 1.0))
  return edges, frozenset(mirrored)
