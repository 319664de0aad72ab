"""Drawings of chains of blocks; lengths as in `canvas`.

Each stage is a row, from left to right, with its width beside it; an empty
place has no box.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from nao_jax.drawing import canvas
from nao_jax.drawing.canvas import HEAD, INK, MARGIN, WIRE

BOX_HEIGHT, GAP, ROW_GAP = 18, 16, 24
COLOURS = (
  canvas.BLUE,
  canvas.VERMILION,
  canvas.GREEN,
  canvas.MAUVE,
  canvas.GREY,
  ("#fdf1cf", "#e69f00"),
)


class Row(NamedTuple):
  """A stage.

  Attributes:
    label: text beside it.
    blocks: names of its blocks, without empty places; at least one.
  """

  label: str
  blocks: Sequence[str]


@matplotlib.rc_context(canvas.STYLE)
def figure(
  rows: Sequence[Row], op_names: Sequence[str], *, title: str = ""
) -> Figure:
  """Returns the figure of a chain.

  Args:
    rows: the stages, from the images on.
    op_names: names of all blocks that a place can have; their order determines
      the colours. Other blocks are white.
    title: printed above the chain.
  """
  label = max(canvas.text_width(row.label) for row in rows)
  width = 12 + max(canvas.text_width(x) for row in rows for x in row.blocks)
  left = MARGIN + label + GAP
  longest = max(len(row.blocks) for row in rows)
  height = BOX_HEIGHT + ROW_GAP
  axes, _, top = canvas.page(
    left + longest * (width + GAP), len(rows) * height - ROW_GAP, title
  )
  previous = None
  for number, row in enumerate(rows):
    y = top + number * height
    own = canvas.text_width(row.label)
    canvas.write(axes, MARGIN + label - own / 2, y + BOX_HEIGHT / 2, row.label)
    for place, name in enumerate(row.blocks):
      x = left + width / 2 + place * (width + GAP)
      colours = ("white", INK)
      if name in op_names:
        colours = COLOURS[op_names.index(name) % len(COLOURS)]
      if place:
        _arrow(axes, x - width / 2 - GAP, x - width / 2, y + BOX_HEIGHT / 2)
      elif previous is not None:
        end = [(x, y - HEAD), (x, y)]
        canvas.wires(axes, [[previous, *end]], zorder=3)
      canvas.box(axes, x, y, width, BOX_HEIGHT, colours, zorder=5)
      canvas.write(axes, x, y + BOX_HEIGHT / 2, name)
      previous = x, y + BOX_HEIGHT
  return axes.figure


def _arrow(axes, start: float, end: float, y: float) -> None:
  """Draws an arrow to the right."""
  line = Path([(start, y), (end, y)])
  axes.add_patch(PathPatch(line, **canvas.stroke(WIRE, 3)))
  tip = Path([(end - HEAD, y - 2.2), (end, y), (end - HEAD, y + 2.2)])
  style = {"facecolor": WIRE, "edgecolor": "none", "zorder": 3}
  axes.add_patch(PathPatch(tip, **style))
