"""Drawings of recurrent cells; lengths as in `canvas`.

From the top: the inputs of a step, the state s_0 that the first highway step
computes from them, the tree of the other states, and their mean, which is the
step's output.
"""

import dataclasses

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import canvas, tree_layout
from nao_jax.drawing.canvas import FONT, HEAD, INK, MARGIN, WIRE, Point
from nao_jax.spaces import rnn

# Fill and outline of each of `rnn.ACTIVATIONS`.
COLOURS = {
  "tanh": canvas.BLUE,
  "relu": canvas.VERMILION,
  "sigmoid": canvas.GREEN,
  "identity": canvas.GREY,
}
PLAIN = ("white", INK)
LIGHT = "#b4b4b4"  # Wires from nodes to the mean.
NODE_HEIGHT, END_HEIGHT, END_WIDTH, GAP = 27, 18, 40, 25
PORT = 9  # Distance from the middle of s_0 to the wires of its two inputs.
OVERHANG = 5  # Distance that the mean extends past the outermost parts.


@matplotlib.rc_context(canvas.STYLE)
def figure(tokens: np.ndarray, *, title: str = "") -> Figure:
  """Draws a recurrent cell.

  Args:
    tokens: int [2 N], of a recurrent space.
    title: printed above the cell.
  """
  cell = rnn.to_cells(np.asarray(tokens))
  parents = cell[:, 0].tolist()
  activations = ["tanh", *(rnn.ACTIVATIONS[index] for index in cell[:, 1])]
  sizes = tree_layout.Sizes(box=12 + max(map(canvas.text_width, activations)))
  plan = tree_layout.arrange(parents, sizes)
  left, width = _extent(plan, sizes)
  axes, page, top = canvas.page(width + 2 * MARGIN, _height(plan), title)
  start = (page - width) / 2
  panel = _Panel(axes, plan, sizes, start - left, top)
  panel.draw(parents, activations)
  panel.draw_mean(start + width / 2, width)
  return axes.figure


def _extent(
  plan: tree_layout.Layout, sizes: tree_layout.Sizes
) -> tuple[float, float]:
  """Returns the left edge and the width of the drawing, the mean included."""
  mean = 12 + canvas.text_width(_mean(plan), FONT + 1)
  reach = max(END_WIDTH + sizes.gap / 2, mean / 2)
  root = plan.box[0]
  left = min(-OVERHANG, root - reach)
  return left, max(plan.width + OVERHANG, root + reach) - left


def _height(plan: tree_layout.Layout) -> float:
  rows = max(plan.row) + 1
  return 2 * END_HEIGHT + rows * NODE_HEIGHT + (rows + 1) * GAP


def _mean(plan: tree_layout.Layout) -> str:
  nodes = len(plan.row) - 1
  what = f"mean of nodes 1\N{EN DASH}{nodes}" if nodes > 1 else "node 1"
  return rf"{what} $\rightarrow\ h_t$"


@dataclasses.dataclass(frozen=True)
class _Panel:
  """The cell in the figure."""

  axes: Axes
  plan: tree_layout.Layout
  sizes: tree_layout.Sizes
  left: float
  top: float

  def draw(self, parents: list[int], activations: list[str]) -> None:
    self._draw_ends()
    for node, activation in enumerate(activations):
      self._draw_node(node, activation)
    nodes = range(1, len(activations))
    for node in nodes:
      canvas.wires(self.axes, [self._way_out(node)], zorder=2, colour=LIGHT)
    for parent in sorted(set(parents)):
      children = [n for n in nodes if parents[n - 1] == parent]
      routes = [self._edge(parent, child) for child in children]
      canvas.wires(self.axes, routes, zorder=3)

  def draw_mean(self, x: float, width: float) -> None:
    y = self._y(max(self.plan.row) + 1)
    canvas.box(self.axes, x, y, width, END_HEIGHT, PLAIN, zorder=4)
    canvas.write(
      self.axes, x, y + END_HEIGHT / 2, _mean(self.plan), size=FONT + 1
    )

  def _draw_ends(self) -> None:
    x, y = self._exit(0)[0], self._y(0)
    sideways = (END_WIDTH + self.sizes.gap) / 2
    for side, text in ((-1, "$x_t$"), (1, "$h_{t-1}$")):
      middle, port = x + side * sideways, x + side * PORT
      canvas.box(
        self.axes, middle, self.top, END_WIDTH, END_HEIGHT, PLAIN, zorder=4
      )
      middle_y = self.top + END_HEIGHT / 2
      canvas.write(self.axes, middle, middle_y, text, size=FONT + 1)
      route = [(middle, self.top + END_HEIGHT), (port, y - HEAD), (port, y)]
      canvas.wires(self.axes, [route], zorder=3)

  def _draw_node(self, node: int, activation: str) -> None:
    (x, bottom), width = self._exit(node), self.sizes.box
    y = bottom - NODE_HEIGHT
    colours = COLOURS[activation] if node else PLAIN
    canvas.box(self.axes, x, y, width, NODE_HEIGHT, colours, zorder=4)
    canvas.write(self.axes, x, y + 7.5, str(node), size=7, colour=WIRE)
    canvas.write(self.axes, x, y + 18.5, activation)

  def _edge(self, parent: int, child: int) -> list[Point]:
    x, y = self.left + self.plan.box[child], self._y(self.plan.row[child])
    return [self._exit(parent), (x, y - HEAD), (x, y)]

  def _way_out(self, node: int) -> list[Point]:
    x, row = self.left + self.plan.lane[node], self.plan.row[node]
    last = max(self.plan.row) + 1
    return [self._exit(node), (x, self._y(row + 1)), (x, self._y(last))]

  def _exit(self, node: int) -> Point:
    """Returns the middle of a node's lower edge."""
    y = self._y(self.plan.row[node]) + NODE_HEIGHT
    return self.left + self.plan.box[node], y

  def _y(self, row: int) -> float:
    """Returns the upper edge of a row; the mean is the row below the last."""
    return self.top + END_HEIGHT + GAP + row * (NODE_HEIGHT + GAP)
