"""Architectures and results of searches, as notebooks show them."""

import base64
import dataclasses
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from nao_jax.search.journal import origin_text
from nao_jax.tasks.task import Cells

if TYPE_CHECKING:
  from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
  """An architecture that a notebook shows as drawings.

  Attributes:
    cells: the kind of cells, such as `Images().cells(flatten(config))`.
    tokens: int32 [L], tokens of `cells.space.plain`.
  """

  cells: Cells
  tokens: np.ndarray

  def _repr_html_(self) -> str:
    """Returns its drawings with captions."""
    figures = self.cells.figures(np.asarray(self.tokens))
    return "".join(
      f'<figure style="display: inline-block">{_image(figure, caption)}'
      f"<figcaption>{html.escape(caption)}</figcaption></figure>"
      for caption, figure in figures.items()
    )


class Best(dict):
  """Contents of best.json, which a notebook shows as a table and drawings.

  Attributes:
    architecture: the winner.
  """

  def __init__(self, best: dict[str, Any], cells: Cells):
    super().__init__(best)
    self.architecture = Architecture(cells, best["tokens"])

  def _repr_html_(self) -> str:
    """Returns a table of names, words and numbers, and drawings."""
    shown = self | {"origin": origin_text(self["origin"])}
    rows = "".join(
      f"<tr><th>{html.escape(name)}</th><td>{html.escape(_text(value))}</td>"
      for name, value in shown.items()
      if isinstance(value, (str, int, float))
    )
    return f"<table>{rows}</table>{self.architecture._repr_html_()}"


def _image(figure: "Figure", caption: str) -> str:
  # Names in an SVG are those of the whole page, unless it is an image.
  file = io.BytesIO()
  figure.savefig(file, format="svg")
  content = base64.b64encode(file.getvalue()).decode()
  address = f"data:image/svg+xml;base64,{content}"
  return f'<img alt="{html.escape(caption)}" src="{address}">'


def _text(value: str | float) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)
