"""Elements of drawings: a canvas, text, boxes and wires.

Lengths are in points (1/72 inch) and y counts from the top. Each figure is a
`matplotlib.figure.Figure`, independent of pyplot and its global state.
"""

from collections.abc import Sequence
import os

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from nao_jax.runs.paths import expanded

# Fill and outline. The hues are those of Okabe and Ito, distinct for readers
# with any colour vision.
BLUE = ("#d3e6f5", "#0072b2")
VERMILION = ("#fbdfcd", "#d55e00")
GREEN = ("#cdebe0", "#009e73")
MAUVE = ("#f6e1ec", "#cc79a7")
GREY = ("#e8e8e8", "#777777")
INK, WIRE = "#222222", "#555555"
FONT, TITLE, DPI = 8.5, 12, 200  # Sizes of letters, and dots per inch.
MARGIN = 14
HEAD = 4  # The length of an arrowhead.
STYLE = {
  "font.family": "sans-serif",
  "font.sans-serif": ["DejaVu Sans"],  # Viewers without it use their own.
  "mathtext.fontset": "dejavusans",
  "pdf.fonttype": 42,  # TrueType; publishers refuse the default, Type 3.
  "svg.fonttype": "none",
  "svg.hashsalt": "nao_jax",
}
# Files have no date, so that the same figure gives the same bytes.
_DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}

Point = tuple[float, float]


def canvas(width: float, height: float) -> Axes:
  """Creates an empty white page."""
  figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
  axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
  axes.set_axis_off()
  return axes


def page(
  width: float, height: float, title: str = ""
) -> tuple[Axes, float, float]:
  """Creates a white page for a drawing, below a title if there is one.

  Args:
    width: least width, with margins; a title may need more.
    height: height of the drawing, without margins.
    title: printed above the drawing.

  Returns:
    The page, its width, and the upper edge of the drawing.
  """
  if title:
    width = max(width, text_width(title, TITLE, "bold") + 2 * MARGIN)
  top = MARGIN + (26 if title else 0)
  axes = canvas(width, top + height + MARGIN)
  write(axes, width / 2, MARGIN + 6, title, size=TITLE, weight="bold")
  return axes, width, top


@matplotlib.rc_context(STYLE)
def save(
  figure: Figure, paths: str | os.PathLike | Sequence[str | os.PathLike]
) -> None:
  """Writes a figure to a file or files, .png, .svg or .pdf.

  The same figure gives the same bytes.
  """
  if isinstance(paths, str | os.PathLike):
    paths = [paths]
  for path in map(os.fspath, map(expanded, paths)):
    metadata = _DATES.get(os.path.splitext(path)[1])
    figure.savefig(path, dpi=DPI, metadata=metadata)


def text_width(text: str, size: float = FONT, weight: str = "normal") -> float:
  """Returns the width of the longest line."""
  font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
  return max(
    TextPath((0, 0), line, prop=font).get_extents().width
    for line in text.split("\n")
  )


def write(
  axes: Axes,
  x: float,
  y: float,
  text: str,
  *,
  size: float = FONT,
  colour: str = INK,
  weight: str = "normal",
) -> None:
  """Writes one line of text, centred at x and y by its small letters."""
  axes.text(
    x, y + 0.36 * size, text, size=size, color=colour, weight=weight,
    ha="center", va="baseline", zorder=6,
  )  # fmt: skip


def stroke(colour: str, zorder: float, width: float = 1.0) -> dict:
  """Returns the style of a line."""
  return {
    "fill": False, "edgecolor": colour, "lw": width, "zorder": zorder,
    "capstyle": "butt", "joinstyle": "round",
  }  # fmt: skip


def box(
  axes: Axes,
  x: float,
  y: float,
  width: float,
  height: float,
  colours: tuple[str, str],
  *,
  zorder: float,
) -> None:
  """Draws a box with round corners; x is its middle, y its upper edge."""
  fill, outline = colours
  axes.add_patch(
    FancyBboxPatch(
      (x - width / 2, y), width, height, boxstyle="round,pad=0,rounding_size=4",
      facecolor=fill, edgecolor=outline, lw=0.9, zorder=zorder,
    )
  )  # fmt: skip


def bed(axes: Axes, routes: list[list[Point]], *, zorder: float) -> None:
  """Draws white lines under wires, to set them off from wires they cross."""
  for corners in routes:
    axes.add_patch(PathPatch(_curve(corners), **stroke("white", zorder, 3.6)))


def wires(
  axes: Axes, routes: list[list[Point]], *, zorder: float, colour: str = WIRE
) -> None:
  """Draws arrows; `_curve` explains the corners of a route."""
  for corners in routes:
    axes.add_patch(PathPatch(_curve(corners), **stroke(colour, zorder)))
    _arrowhead(axes, *corners[-1], colour, zorder=zorder)


def _curve(corners: list[Point]) -> Path:
  """Joins pairs of corners: a bend to the first, then a straight line."""
  points, codes = [corners[0]], [Path.MOVETO]
  for i, (x, y) in enumerate(corners[1:]):
    x0, y0 = points[-1]
    if i % 2:
      points.append((x, y))
      codes.append(Path.LINETO)
    else:
      middle = (y0 + y) / 2
      points += [(x0, middle), (x, middle), (x, y)]
      codes += 3 * [Path.CURVE4]
  return Path(points, codes)


def _arrowhead(axes, x, y, colour, *, zorder):
  tip = Path([(x - 2.2, y - HEAD), (x, y), (x + 2.2, y - HEAD)], closed=False)
  style = {"facecolor": colour, "edgecolor": "none", "zorder": zorder}
  axes.add_patch(PathPatch(tip, **style))
