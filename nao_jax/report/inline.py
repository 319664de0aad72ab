"""Figures inside a page: SVG that takes its colours from the page.

The page defines `--ink`, `--paper` and the others of `COLOURS`, for a light and
for a dark background.
"""

import io
import re

from markupsafe import Markup, escape
import matplotlib
from matplotlib.figure import Figure

from nao_jax.drawing import canvas

# What each colour of a figure is called in the page.
COLOURS = {
  canvas.INK: "ink",
  canvas.WIRE: "wire",
  "#ffffff": "paper",
  "#cccccc": "frame",
  "#b4b4b4": "faint",
  "#aaaaaa": "faint",
  "#f8f8f6": "card",
  canvas.BLUE[0]: "blue-fill",
  canvas.BLUE[1]: "blue",
  canvas.VERMILION[0]: "vermilion-fill",
  canvas.VERMILION[1]: "vermilion",
  canvas.GREEN[0]: "green-fill",
  canvas.GREEN[1]: "green",
  canvas.GREY[0]: "grey-fill",
  canvas.GREY[1]: "grey",
}
# Who made it, and when, is said on the page.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_REFERENCE = r'(?:xlink:href="|url\()#([\w-]+)'


@matplotlib.rc_context(canvas.STYLE)
def svg(figure: Figure, name: str, label: str) -> Markup:
  """A figure as an element of a page.

  Args:
    figure: on a transparent background from now on.
    name: of the figure, another one for each on the page.
    label: what it shows, for those who do not see it.
  """
  file = io.StringIO()
  figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
  text = file.getvalue()
  text = text[text.index("<svg") :]
  # A style in an SVG is one of the whole page, which has this one already.
  text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
  text = _own_names(text, name)
  text = re.sub(r"#[0-9a-f]{6}\b", _colour, text)
  text = re.sub(r"\n\s*", " ", text)
  size = re.search(r' width="([\d.]+)pt" height="([\d.]+)pt"', text)
  # Pixels of a page are smaller than points.
  width, height = (f"{float(length) * 4 / 3:.0f}" for length in size.groups())
  head = f' width="{width}" height="{height}" role="img"'
  head += f' aria-label="{escape(label)}"'
  return Markup(text.replace(size[0], head, 1))


def _own_names(text: str, name: str) -> str:
  """Names that no other figure of the page has, where they are needed."""
  used = set(re.findall(_REFERENCE, text))
  text = re.sub(
    r' id="([^"]*)"',
    lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "",
    text,
  )
  text = re.sub(r"url\(#", f"url(#{name}-", text)
  return re.sub(r'xlink:href="#', f'href="#{name}-', text)


def _colour(found: re.Match) -> str:
  name = COLOURS.get(found[0])
  return f"var(--{name})" if name else found[0]
