"""Drawings of cells that sum operations on edges; lengths as in `canvas`.

States stand in a column, the input at the top; each edge that does something is
an arrow with its operation in a box beside the column, nearer edges further in.
"""

from collections.abc import Sequence
import dataclasses

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nao_jax.drawing import canvas
from nao_jax.drawing.canvas import HEAD, INK, MARGIN

STATE_WIDTH = 44
STATE_HEIGHT = 18
GAP = 34
ROW = STATE_HEIGHT + GAP
COLUMN = MARGIN + STATE_WIDTH / 2  # The middle of the states.
LANE = 12  # Between two boxes side by side.
BOX_HEIGHT = 17
PORT = 4  # Between the ends of arrows of neighbouring lanes.
_LAST_PORT = STATE_WIDTH / 2 - 2
COLOURS = (
  canvas.BLUE,
  canvas.VERMILION,
  canvas.GREEN,
  canvas.GREY,
  canvas.MAUVE,
)
_NOTHING = ("none", "zero")


@matplotlib.rc_context(canvas.STYLE)
def figure(
  edges: Sequence[tuple[int, int]],
  operations: Sequence[str],
  op_names: Sequence[str],
  *,
  title: str = "",
) -> Figure:
  """Draws a cell.

  Args:
    edges: (source, target) of each edge.
    operations: name of each edge's operation; edges whose operation is `none`
      or `zero` are left out.
    op_names: names of all operations that an edge can have. Their order
      determines the colours, so all cells of a space have the same.
    title: printed above the cell.
  """
  states = 1 + max(target for _, target in edges)
  drawn = [
    (edge, name)
    for edge, name in zip(edges, operations, strict=True)
    if name not in _NOTHING
  ]
  lanes = _lanes([edge for edge, _ in drawn])
  box_width = 12 + max(map(canvas.text_width, operations))
  cell_width = STATE_WIDTH + (LANE + box_width) * (1 + max(lanes, default=0))
  axes, _, top = canvas.page(cell_width + 2 * MARGIN, states * ROW - GAP, title)
  panel = _Panel(axes, top, box_width)
  for state in range(states):
    name = {0: "input", states - 1: "output"}.get(state, str(state))
    panel.draw_state(state, name)
  names = [name for name in op_names if name not in _NOTHING]
  for (edge, name), lane in zip(drawn, lanes, strict=True):
    colours = COLOURS[names.index(name) % len(COLOURS)]
    panel.draw_edge(edge, name, lane, colours)
  return axes.figure


@dataclasses.dataclass(frozen=True)
class _Panel:
  """The cell in the figure.

  Attributes:
    axes: the page.
    top: upper edge of the first state.
    box_width: width of the boxes of operations.
  """

  axes: Axes
  top: float
  box_width: float

  def draw_state(self, state: int, name: str) -> None:
    y, size = self.top + state * ROW, (STATE_WIDTH, STATE_HEIGHT)
    canvas.box(self.axes, COLUMN, y, *size, ("white", INK), zorder=4)
    canvas.write(self.axes, COLUMN, y + STATE_HEIGHT / 2, name)

  def draw_edge(
    self, edge: tuple[int, int], name: str, lane: int, colours: tuple[str, str]
  ) -> None:
    begin = self.top + edge[0] * ROW + STATE_HEIGHT
    end = self.top + edge[1] * ROW
    width = self.box_width
    x = COLUMN + STATE_WIDTH / 2 + LANE + (LANE + width) * lane + width / 2
    y = (begin + end - BOX_HEIGHT) / 2
    port = COLUMN + min(PORT * lane, _LAST_PORT)
    to_box = [(port, begin), (x, y)]
    from_box = [(x, y + BOX_HEIGHT), (port, end - HEAD), (port, end)]
    canvas.wires(self.axes, [to_box, from_box], zorder=3)
    canvas.box(self.axes, x, y, width, BOX_HEIGHT, colours, zorder=5)
    canvas.write(self.axes, x, y + BOX_HEIGHT / 2, name)


def _lanes(edges: Sequence[tuple[int, int]]) -> list[int]:
  """Returns the lane of each edge, from the column outwards.

  Boxes stand in the middle of their edges. Middles differ by half rows; half a
  row is too little for two boxes with their arrows in the same lane.
  """
  lanes: list[int] = []
  middles = [sum(edge) / 2 for edge in edges]
  for middle in middles:
    taken = {
      lane
      for lane, other in zip(lanes, middles, strict=False)
      if abs(other - middle) < 0.75
    }
    lanes.append(min(set(range(len(taken) + 1)) - taken))
  return lanes
