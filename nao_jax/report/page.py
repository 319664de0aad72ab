"""A page of sections with text, plots and tables, as one HTML file.

page.html.j2 lays the page out, texts.j2 holds its longer texts. The page loads
nothing from elsewhere, and all text is escaped.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import pathlib
from typing import Any
import weakref

import jinja2
from matplotlib.figure import Figure

from nao_jax.errors import UserError
from nao_jax.report.inline import svg
from nao_jax.runs import files

_TEMPLATES = jinja2.Environment(
  loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
  # Plain texts are escaped by the page that they become a part of.
  autoescape=lambda name: name == "page.html.j2",
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure.

  Attributes:
    figure: the figure.
    caption: what the figure shows, and the meaning of its bands.
    own_size: whether it keeps its own size instead of the column's width.
  """

  figure: Figure
  caption: str
  own_size: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of strings.

  Attributes:
    head: headings of the columns.
    rows: one string for each column in each row.
    caption: what the table shows.
    words: number of columns from the left that hold words and stand left;
      numbers stand right.
  """

  head: list[str]
  rows: list[list[str]]
  caption: str = ""
  words: int = 1

  @classmethod
  def of(
    cls, rows: Sequence[dict[str, Any]], caption: str = "", words: int = 1
  ) -> "Table":
    """Makes a table of rows with the same headings, at least one."""
    cells = [[str(cell) for cell in row.values()] for row in rows]
    return cls(list(rows[0]), cells, caption, words)


@dataclasses.dataclass(frozen=True)
class Tile:
  """A number at the top of the page.

  Attributes:
    name: name of the number.
    value: the number.
    note: how the number was obtained.
  """

  name: str
  value: str
  note: str


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page.

  Attributes:
    title: its heading.
    texts: paragraphs before everything else.
    plots: plots, side by side where there is room.
    tables: tables beside or below the plots.
    code: lines to copy.
    facts: long lists at the end, {caption: {name: value}}.
    links: links to other pages, {text: address}; reports have none.
  """

  title: str
  texts: list[str] = dataclasses.field(default_factory=list)
  plots: list[Plot] = dataclasses.field(default_factory=list)
  tables: list[Table] = dataclasses.field(default_factory=list)
  code: list[str] = dataclasses.field(default_factory=list)
  facts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  links: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Page:
  """A whole page.

  Attributes:
    title: title of the page.
    about: the line below the title.
    tiles: the numbers at the top.
    sections: the sections in order.
  """

  title: str
  about: str
  tiles: list[Tile]
  sections: list[Section]


def texts(block: str, **values: Any) -> list[str]:
  """Returns the paragraphs of a block of texts.j2, with these values."""
  template = _TEMPLATES.get_template("texts.j2")
  text = "".join(template.blocks[block](template.new_context(values)))
  paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
  return [paragraph for paragraph in paragraphs if paragraph]


# Name and text of the figures that were drawn, as long as they are kept: the
# served page keeps those of runs that have not changed.
_DRAWN = weakref.WeakKeyDictionary()


def render(page: Page) -> str:
  """Renders the page as HTML."""
  numbers = itertools.count(1)

  def drawn(plot: Plot):
    name = f"figure{next(numbers)}"
    if _DRAWN.get(plot.figure, ("",))[0] != name:
      _DRAWN[plot.figure] = name, svg(plot.figure, name, plot.caption)
    return _DRAWN[plot.figure][1]

  template = _TEMPLATES.get_template("page.html.j2")
  return template.render(page=page, drawn=drawn)


def write(page: Page, file: pathlib.Path, place: str) -> pathlib.Path:
  """Renders a page into a file, atomically; creates its folder.

  Raises:
    UserError: the file cannot be written.
  """
  text = render(page)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, text)
  except OSError as error:
    raise UserError(
      f"{place}: {file} cannot be written ({error.strerror}); give another"
    ) from error
  return file
