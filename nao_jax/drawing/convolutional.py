"""Drawings of convolutional cells; lengths as in `canvas`."""

from collections.abc import Sequence
import dataclasses
import re
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, PathPatch
from matplotlib.path import Path
import numpy as np

from nao_jax.drawing import canvas, layout
from nao_jax.drawing.canvas import FONT, HEAD, INK, MARGIN, TITLE, WIRE, Point
from nao_jax.networks import morphology
from nao_jax.spaces import cnn

# Fill and outline by the start of an op's name.
FAMILIES = {
  "sep_conv": canvas.BLUE,
  "dil_sep_conv": canvas.BLUE,
  "conv": canvas.VERMILION,
  "max_pool": canvas.GREEN,
  "avg_pool": canvas.GREEN,
  "identity": canvas.GREY,
  "zero": ("#ffffff", "#aaaaaa"),
} | dict.fromkeys([*morphology.FLAT, *morphology.LEARNT], canvas.MAUVE)
FRAME, CARD = "#cccccc", "#f8f8f6"
LINE_HEIGHT = 10.2
OP_HEIGHT, NODE_HEIGHT, END_HEIGHT, GAP = 26, 54, 18, 34
PLUS = 6  # Radius of the plus.
PARTS = ("Normal", "Reduction")
CONCATENATION = r"concatenation $\rightarrow\ c_k$"


class Edge(NamedTuple):
  """One edge of a cell's graph.

  Attributes:
    source: the state where the edge starts; 0 and 1 are the inputs.
    target: the node where the edge ends; nodes + 2 is the cell's output.
    branch: the branch of the node, 0 or 1; 0 at the output.
    op: the op of the edge; None from a loose end to the output.
  """

  source: int
  target: int
  branch: int
  op: str | None


def edges(cell: np.ndarray, op_names: Sequence[str]) -> list[Edge]:
  """Returns the graph of one cell [nodes, 4]: its branches, then loose ends."""
  cell = np.asarray(cell)
  branches = [
    Edge(source, node, branch, op_names[op])
    for node, row in enumerate(cell.reshape(-1, 2, 2).tolist(), 2)
    for branch, (source, op) in enumerate(row)
  ]
  loose_ends = np.flatnonzero(cnn.unused_states(cell)).tolist()
  return branches + [Edge(end, len(cell) + 2, 0, None) for end in loose_ends]


def label(op: str) -> str:
  """Returns an op's name and the size of its kernel, in one or two lines."""
  name, kernels = re.fullmatch(r"(.*?)((?:_\d+x\d+)*)", op).groups()
  kernels = (
    kernels[1:].replace("_", "·").replace("x", "\N{MULTIPLICATION SIGN}")
  )
  return "\n".join(filter(None, (name.replace("_", " "), kernels)))


@matplotlib.rc_context(canvas.STYLE)
def figure(
  tokens: np.ndarray,
  op_names: Sequence[str],
  *,
  title: str = "",
  parts: Sequence[str] = PARTS,
) -> Figure:
  """Draws an architecture: the normal and the reduction cell side by side.

  Args:
    tokens: int [L], of a convolutional space.
    op_names: the op set, one of `cnn.OP_SETS`.
    title: printed above both cells.
    parts: the cells to draw, out of `PARTS`.
  """
  cells = cnn.to_cells(np.asarray(tokens))
  cells = cells[[PARTS.index(part) for part in parts]]
  graphs = [edges(cell, op_names) for cell in cells]
  used = {edge.op for graph in graphs for edge in graph if edge.op}
  sizes = layout.Sizes(op=10 + max(canvas.text_width(label(op)) for op in used))
  plans = [layout.arrange(cell[:, ::2], sizes) for cell in cells]
  width = sum(plan.width for plan in plans) + (3 * len(plans) - 1) * MARGIN
  top = MARGIN + 22 + (24 if title else 0)
  bottom = top + max(map(_height, plans))
  axes = canvas.canvas(width, bottom + MARGIN)
  canvas.write(axes, width / 2, MARGIN + 6, title, size=TITLE, weight="bold")
  left = MARGIN
  for name, graph, plan in zip(parts, graphs, plans, strict=True):
    canvas.write(
      axes, left + plan.width / 2, top - 16, f"{name} cell", size=9.5
    )
    _Panel(axes, plan, sizes, left, top, bottom).draw(graph)
    left += plan.width + 3 * MARGIN
  return axes.figure


def _height(plan: layout.Layout) -> float:
  rows = len(plan.rows) - 1
  return 2 * END_HEIGHT + rows * NODE_HEIGHT + (rows + 1) * GAP


@dataclasses.dataclass(frozen=True)
class _Panel:
  """One cell in the figure; the output is the row below the last."""

  axes: Axes
  plan: layout.Layout
  sizes: layout.Sizes
  left: float
  top: float
  bottom: float

  def draw(self, graph: list[Edge]):
    for node in range(2, len(self.plan.row)):
      self._draw_node(node)
    for edge in graph:
      if edge.op is not None:
        self._draw_op(edge)
    for state in range(len(self.plan.row)):
      routes = [self.route(edge) for edge in graph if edge.source == state]
      canvas.bed(self.axes, routes, zorder=3 + state / 100)
      canvas.wires(self.axes, routes, zorder=3.001 + state / 100)
    self._draw_ends()

  def route(self, edge: Edge) -> list[Point]:
    """Returns the corners of an edge: straight in rows, bent in gaps."""
    ends = [*self.plan.row, len(self.plan.rows)]
    x, y = self._exit(edge.source)
    corners = [(x, y)]
    for row in range(ends[edge.source] + 1, ends[edge.target]):
      x, y = self._x(row, edge.source), self._y(row)
      corners += [(x, y), (x, y + NODE_HEIGHT)]
    if edge.op is None:
      return [*corners, (x, self._y(len(self.plan.rows)))]
    x = self._port(edge.target, edge.branch)
    y = self._y(ends[edge.target])
    return [*corners, (x, y - HEAD), (x, y + self.sizes.pad)]

  def _x(self, row: int, state: int) -> float:
    return self.left + self.plan.x[row, state]

  def _y(self, row: int) -> float:
    """Returns the upper edge of a row; the gaps share the spare height."""
    rows = len(self.plan.rows) - 1
    spare = self.bottom - self.top - 2 * END_HEIGHT - rows * NODE_HEIGHT
    below_inputs = row * spare / (rows + 1) + (row - 1) * NODE_HEIGHT
    return self.top + (END_HEIGHT + below_inputs if row else 0)

  def _exit(self, state: int) -> Point:
    row = self.plan.row[state]
    height = NODE_HEIGHT if row else END_HEIGHT
    return self._x(row, state), self._y(row) + height

  def _port(self, node: int, branch: int) -> float:
    """Returns x of a branch; mirrored nodes have the second on the left."""
    on_the_left = (branch == 0) != (node in self.plan.mirrored)
    sideways = -self.sizes.port if on_the_left else self.sizes.port
    return self._x(self.plan.row[node], node) + sideways

  def _draw_node(self, node: int):
    (x, bottom), width = self._exit(node), self.sizes.node
    y = bottom - NODE_HEIGHT
    canvas.box(self.axes, x, y, width, NODE_HEIGHT, (CARD, FRAME), zorder=1)
    corner = x - width / 2 + 9
    canvas.write(self.axes, corner, bottom - 9, str(node), size=7, colour=WIRE)
    plus = bottom - PLUS - 2
    for branch in (0, 1):
      port = self._port(node, branch)
      bend = [(port, y + OP_HEIGHT), (port, plus), (x, plus)]
      self.axes.add_patch(PathPatch(Path(bend), **canvas.stroke(WIRE, 2)))
    _plus(self.axes, x, plus)

  def _draw_op(self, edge: Edge):
    x = self._port(edge.target, edge.branch)
    y = self._y(self.plan.row[edge.target]) + self.sizes.pad
    colours = FAMILIES[re.match("|".join(FAMILIES), edge.op)[0]]
    canvas.box(self.axes, x, y, self.sizes.op, OP_HEIGHT, colours, zorder=4)
    lines = label(edge.op).split("\n")
    first = y + OP_HEIGHT / 2 - LINE_HEIGHT * (len(lines) - 1) / 2
    for i, line in enumerate(lines):
      canvas.write(self.axes, x, first + i * LINE_HEIGHT, line)

  def _draw_ends(self):
    end, whole = self.sizes.end, self.plan.width
    output = self._y(len(self.plan.rows))
    for x, y, width, text in (
      (self._x(0, 0), self.top, end, "$c_{k-2}$"),
      (self._x(0, 1), self.top, end, "$c_{k-1}$"),
      (self.left + whole / 2, output, whole, CONCATENATION),
    ):
      canvas.box(self.axes, x, y, width, END_HEIGHT, ("white", INK), zorder=4)
      canvas.write(self.axes, x, y + END_HEIGHT / 2, text, size=FONT + 1)


def _plus(axes, x, y):
  style = {"facecolor": "white", "edgecolor": INK, "lw": 0.9, "zorder": 4}
  axes.add_patch(Circle((x, y), PLUS, **style))
  for dx, dy in ((3, 0), (0, 3)):
    line = Path([(x - dx, y - dy), (x + dx, y + dy)])
    axes.add_patch(PathPatch(line, **canvas.stroke(INK, 5)))
