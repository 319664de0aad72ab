"""A page for people: sections of text, plots and tables, as one HTML file.

Nothing in it is fetched from anywhere, and all text is escaped.
"""

import dataclasses
import itertools
import pathlib

import jinja2
from matplotlib.figure import Figure

from nao_jax.errors import UserError
from nao_jax.report.inline import svg
from nao_jax.runs import workdir

_TEMPLATE = pathlib.Path(__file__).with_name("report.html.j2")


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure.

  Attributes:
    figure: to be drawn.
    caption: what it shows, and what its spread is.
    own_size: whether it is as large as it was made, not as a column.
  """

  figure: Figure
  caption: str
  own_size: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of strings.

  Attributes:
    head: of the columns.
    rows: as many strings in each.
    caption: what it shows.
    words: so many columns from the left are words; numbers stand right.
  """

  head: list[str]
  rows: list[list[str]]
  caption: str = ""
  words: int = 1


@dataclasses.dataclass(frozen=True)
class Facts:
  """Names and values, of which there are many.

  Attributes:
    caption: what they are.
    values: {name: value}; each is shown as it prints.
  """

  caption: str
  values: dict


@dataclasses.dataclass(frozen=True)
class Tile:
  """A number that is seen first.

  Attributes:
    name: of the number.
    value: itself.
    note: what it is worth.
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
    plots: side by side where there is room.
    tables: beside or below them.
    code: lines to copy.
    facts: the last.
  """

  title: str
  texts: list[str] = dataclasses.field(default_factory=list)
  plots: list[Plot] = dataclasses.field(default_factory=list)
  tables: list[Table] = dataclasses.field(default_factory=list)
  code: list[str] = dataclasses.field(default_factory=list)
  facts: list[Facts] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Page:
  """All of it.

  Attributes:
    title: of the page.
    about: a line below.
    tiles: the first numbers.
    sections: in order.
  """

  title: str
  about: str
  tiles: list[Tile]
  sections: list[Section]


def render(page: Page) -> str:
  """The page as HTML."""
  numbers = itertools.count(1)

  def drawn(plot: Plot):
    return svg(plot.figure, f"figure{next(numbers)}", plot.caption)

  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
  return template.render(page=page, drawn=drawn)


def write(page: Page, file: pathlib.Path, flag: str) -> pathlib.Path:
  """Renders a page into a file: all of it or nothing.

  Args:
    page: what to write.
    file: where.
    flag: what the user gave, for the message.

  Raises:
    UserError: the file cannot be written.
  """
  text = render(page)
  try:
    workdir.write(file, text)
  except OSError as error:
    raise UserError(
      f"{flag}: {file} cannot be written ({error.strerror}); give another"
    ) from error
  return file
