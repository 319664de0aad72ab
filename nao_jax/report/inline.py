"""Figures as inline SVG that takes its colours from the page.

The page defines `--ink`, `--paper` and the others of `COLOURS`, for a light and
for a dark background.
"""

import io
import re

from markupsafe import Markup, escape
import matplotlib
from matplotlib.figure import Figure

from nao_jax.drawing import canvas

# Name of each colour of a figure in the page.
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
# The page itself names its author and its date.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_REFERENCE = r'(?:xlink:href="|url\()#([\w-]+)'


@matplotlib.rc_context(canvas.STYLE)
def svg(figure: Figure, name: str, label: str) -> Markup:
  """Returns a figure as an element of a page.

  Args:
    figure: the figure; its background is transparent from now on.
    name: a name that no other figure of the page has.
    label: description of the figure for readers who cannot see it.
  """
  file = io.StringIO()
  figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
  text = file.getvalue()
  text = text[text.index("<svg") :]
  # A style in an SVG applies to the whole page, which has this one already.
  text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
  text = _own_names(text, name)
  text = re.sub(r"#[0-9a-f]{6}\b", _colour, text)
  text = re.sub(r"\n\s*", " ", text)
  size = re.search(r' width="([\d.]+)pt" height="([\d.]+)pt"', text)
  # A point is 4/3 pixels of a page.
  width, height = (f"{float(length) * 4 / 3:.0f}" for length in size.groups())
  head = f' width="{width}" height="{height}" role="img"'
  head += f' aria-label="{escape(label)}"'
  return Markup(text.replace(size[0], head, 1))


def _own_names(text: str, name: str) -> str:
  """Prefixes the referenced names, so that they are unique in the page."""
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
