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
from nao_jax.drawing.canvas import HEAD, INK

STATE_WIDTH, STATE_HEIGHT, GAP, MARGIN, TITLE = 44, 18, 34, 14, 12
LANE, BOX_HEIGHT, ROW = 12, 17, STATE_HEIGHT + GAP
COLUMN = MARGIN + STATE_WIDTH / 2  # The middle of the states.
COLOURS = (
  canvas.BLUE,
  canvas.VERMILION,
  canvas.GREEN,
  canvas.GREY,
)


def draw_cell(
  edges: Sequence[tuple[int, int]],
  operations: Sequence[str],
  paths: canvas.Paths,
  *,
  title: str = "",
) -> None:
  """Draws a cell; the same input gives the same bytes.

  Args:
    edges: (source, target) of each edge.
    operations: name of each edge's operation; edges whose operation is `none`
      or `zero` are left out.
    paths: the file or files to write, .png, .svg or .pdf.
    title: printed above the cell.
  """
  canvas.save(figure(edges, operations, title=title), paths)


@matplotlib.rc_context(canvas.STYLE)
def figure(
  edges: Sequence[tuple[int, int]],
  operations: Sequence[str],
  *,
  title: str = "",
) -> Figure:
  """Returns the figure that `draw_cell` writes."""
  states = 1 + max(target for _, target in edges)
  drawn = {
    edge: name
    for edge, name in zip(edges, operations, strict=True)
    if name not in ("none", "zero")
  }
  lanes = _lanes(list(drawn))
  width = 12 + max(map(canvas.text_width, operations))
  needed = STATE_WIDTH + (LANE + width) * (1 + max(lanes.values(), default=0))
  titled = canvas.text_width(title, TITLE, "bold") if title else 0
  page = max(needed, titled) + 2 * MARGIN
  top = MARGIN + (26 if title else 0)
  axes = canvas.canvas(page, top + states * ROW - GAP + MARGIN)
  canvas.write(axes, page / 2, MARGIN + 6, title, size=TITLE, weight="bold")
  panel = _Panel(axes, top, width)
  for state in range(states):
    name = {0: "input", states - 1: "output"}.get(state, str(state))
    panel.draw_state(state, name)
  names = sorted(set(operations))
  for edge, name in drawn.items():
    colours = COLOURS[names.index(name) % len(COLOURS)]
    panel.draw_edge(edge, name, lanes[edge], colours)
  return axes.figure


@dataclasses.dataclass(frozen=True)
class _Panel:
  """The cell in the figure.

  Attributes:
    axes: the page.
    top: upper edge of the first state.
    width: width of the boxes of operations.
  """

  axes: Axes
  top: float
  width: float

  def draw_state(self, state: int, name: str) -> None:
    y, size = self.top + state * ROW, (STATE_WIDTH, STATE_HEIGHT)
    canvas.box(self.axes, COLUMN, y, *size, ("white", INK), zorder=4)
    canvas.write(self.axes, COLUMN, y + STATE_HEIGHT / 2, name)

  def draw_edge(
    self,
    edge: tuple[int, int],
    name: str,
    lane: int,
    colours: tuple[str, str],
  ) -> None:
    begin = self.top + edge[0] * ROW + STATE_HEIGHT
    end = self.top + edge[1] * ROW
    x = COLUMN + STATE_WIDTH / 2 + LANE + (LANE + self.width) * lane
    x += self.width / 2
    y = (begin + end - BOX_HEIGHT) / 2
    port = COLUMN + 4 * lane
    there = [(port, begin), (x, y)]
    back = [(x, y + BOX_HEIGHT), (port, end - HEAD), (port, end)]
    canvas.wires(self.axes, [there, back], zorder=3)
    canvas.box(self.axes, x, y, self.width, BOX_HEIGHT, colours, zorder=5)
    canvas.write(self.axes, x, y + BOX_HEIGHT / 2, name)


def _lanes(edges: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
  """Assigns lanes, from the column outwards, so that no two boxes overlap."""
  taken: dict[tuple[int, int], tuple[int, float]] = {}
  for edge in edges:
    middle, lane = sum(edge) / 2, 0
    while any(
      at == lane and abs(other - middle) < 0.75 for at, other in taken.values()
    ):
      lane += 1
    taken[edge] = lane, middle
  return {edge: lane for edge, (lane, _) in taken.items()}
