"""Files of tables of any space: architectures by slots, columns of numbers.

A header in JSON describes a table, here one of two slots and two columns:

  {"space": "machines",
   "slots": {"kernel": ["linear", "rbf"], "C": [0.1, 1.0]},
   "columns": {"accuracy": {"unit": "%", "better": "higher"},
               "seconds": {"unit": "s", "better": "lower"}}}

Choices are texts, numbers or booleans. A column without `better` has higher
numbers better. There are three formats, told apart by the ending:

.json  the header, with a further entry `rows`: for each architecture a list of
       its choices, then of its numbers; null for what was not measured.
.csv   a first line with # and the header, a second one with the names of all
       slots and columns, in any order, and a line for each architecture; an
       empty field for what was not measured.
.npz   the header as text in `header`; `slots`, integers [A, L], with the place
       of each choice from 0; and an array [A] for each column; NaN for what
       was not measured.

Shapes: A architectures of a table, L slots.
"""

from collections.abc import Callable
import csv
import io
import json
from typing import Any, NamedTuple

import numpy as np

from nao_jax.data.archives import Archive
from nao_jax.errors import UserError
from nao_jax.runs import json_file, paths
from nao_jax.spaces import slots
from nao_jax.spaces.known import Known, Rows

_ADVICE = "see nao_jax/data/table_files.py for its form"


class Contents(NamedTuple):
  """A table.

  Attributes:
    space: the space, with all architectures of the table.
    columns: float64 [A] by name; NaN for what was not measured.
    header: the header of the file.
  """

  space: Known
  columns: dict[str, np.ndarray]
  header: dict[str, Any]

  def lower(self, column: str) -> bool:
    """Returns whether lower numbers of a column are better."""
    return self.header["columns"][column].get("better") == "lower"

  def title(self, column: str) -> str:
    """Returns the name of a column with its unit and direction."""
    unit = self.header["columns"][column].get("unit")
    better = " (lower is better)" if self.lower(column) else ""
    return (f"{column}, {unit}" if unit else column) + better


def read(path: str) -> Contents:
  """Reads a .csv or .json file.

  Raises:
    UserError: the file is something else; an architecture is incomplete or
      occurs twice, or a value is unknown, and the message names its row, from
      1, or its line in a .csv file.
  """
  place = f"`table={path}`"
  held = {"place": place, "wanted": "a table", "advice": _ADVICE}
  if not path.endswith(".csv"):
    header = json_file.read(path, **held)
    rows = header.pop("rows", None)
    if not isinstance(rows, list):
      raise UserError(f"{place}: no list `rows`; {_ADVICE}")
    names, at = [*_checked(header, place)], _row
  else:
    header, names, rows, at = _read_csv(path, held)
  for number, row in enumerate(rows):
    if not isinstance(row, list) or len(row) != len(names):
      raise UserError(
        f"{place}: {at(number)} must have {len(names)} values, for "
        f"{', '.join(names)}; it is {row}"
      )
  if not rows:
    raise UserError(f"{place}: has no row; give an architecture at least")
  values = dict(zip(names, zip(*rows, strict=True), strict=True))
  return contents(
    header,
    [
      _places(name, choices, values[name], place, at)
      for name, choices in header["slots"].items()
    ],
    {
      name: _numbers(name, values[name], place, at)
      for name in header["columns"]
    },
    place,
    at,
  )


def read_archive(archive: Archive) -> Contents:
  """Reads an .npz file that has a header; see `read`."""
  place = f"`table={archive.path}`"
  header = json_file.parse(
    str(archive["header"]).encode(),
    place=place,
    wanted="a table",
    advice=_ADVICE,
  )
  _checked(header, place, archive.names)
  shape, places = (len(header["slots"]),), archive["slots"]
  if (
    places.ndim != 2
    or not len(places)
    or places.shape[1:] != shape
    or places.dtype.kind not in "iu"
  ):
    raise UserError(
      f"{place}: `slots` must be integers [A, {shape[0]}]; it is "
      f"{places.dtype} {list(places.shape)}"
    )
  for (name, choices), column in zip(
    header["slots"].items(), places.T, strict=True
  ):
    for row in np.flatnonzero((column < 0) | (column >= len(choices)))[:1]:
      found = int(column[row])
      raise _unknown(place, _row(row), name, found, range(len(choices)))
  columns = {}
  for name in header["columns"]:
    values = archive[name]
    if values.shape != (len(places),) or values.dtype.kind not in "fiu":
      raise UserError(f"{place}: {name!r} must be numbers [{len(places)}]")
    columns[name] = _numbers(name, np.float64(values).tolist(), place, _row)
  return contents(header, [*places.T], columns, place)


def arrays(contents: Contents) -> dict[str, np.ndarray]:
  """Returns the arrays of an .npz file."""
  first = [choices[0] for choices in contents.space.choices]
  return {
    "header": np.array(json.dumps(contents.header)),
    "slots": (contents.space.rows.tokens - np.int32(first)).astype(np.int16),
    **contents.columns,
  }


def _row(number: int) -> str:
  """Names a row of a file, whose number counts from 0."""
  return f"row {number + 1}"


def _read_csv(
  path: str, held: dict
) -> tuple[dict, list[str], list[list[str]], Callable[[int], str]]:
  """Returns header, names and rows, and a function that names a row."""
  place = held["place"]
  try:
    text = paths.expanded(path).read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    reader = csv.reader(io.StringIO(rest), strict=True)
    # Blank lines are no rows, but they count as lines.
    (_, names), *rows = [(1 + reader.line_num, row) for row in reader if row]
  except (OSError, ValueError, csv.Error) as error:
    raise UserError(f"{place}: not a table ({error}); {_ADVICE}") from error
  header = json_file.parse(first.lstrip("\ufeff# ").encode(), **held)
  wanted = _checked(header, place)
  if sorted(names) != sorted(wanted):
    raise UserError(
      f"{place}: the second line names {', '.join(names)}; the header has "
      f"{', '.join(wanted)}"
    )
  return header, names, [row for _, row in rows], lambda n: f"line {rows[n][0]}"


def _checked(header: dict, place: str, there: tuple = ()) -> dict[str, Any]:
  """Returns slots and columns of a header, which it checks."""
  found, columns = header.get("slots"), header.get("columns")
  for part, name in ((found, "slots"), (columns, "columns")):
    if not isinstance(part, dict) or not part:
      raise UserError(f"{place}: the header has no `{name}`; {_ADVICE}")
  for name, choices in found.items():
    if not isinstance(choices, list) or not all(
      isinstance(choice, (str, int, float)) for choice in choices
    ):
      raise UserError(
        f"{place}: slot {name!r}: give a list of texts, numbers or booleans"
      )
  slots.space(place, found)
  for name, choices in found.items():
    if len({json.dumps(choice).strip('"') for choice in choices}) < len(
      choices
    ):
      raise UserError(
        f"{place}: slot {name!r}: two of its choices are written alike"
      )
  for name, about in columns.items():
    better = about.get("better", "higher") if isinstance(about, dict) else ""
    if better not in ("higher", "lower"):
      raise UserError(
        f"{place}: column {name!r}: `better` is {better!r}; allowed: higher, "
        "lower"
      )
    # The last two are arguments of np.savez.
    if name in (*found, "format", "header", "slots", "file", "allow_pickle"):
      raise UserError(f"{place}: column {name!r}: the name is taken")
    if there and name not in there:
      raise UserError(f"{place}: column {name!r} is in the header only")
  return found | columns


def _places(name: str, choices: list, values, place: str, at) -> np.ndarray:
  """Returns the place of each value among the choices of a slot, [A]."""
  known = {str(choice): at for at, choice in enumerate(choices)}
  known |= {json.dumps(choice): at for at, choice in enumerate(choices)}
  found = np.array([known.get(str(value), -1) for value in values])
  for row in np.flatnonzero(found < 0):
    # A number may be written in several ways.
    try:
      found[row] = [*map(float, choices)].index(float(values[row]))
    except (ValueError, TypeError, OverflowError):
      raise _unknown(place, at(row), name, values[row], choices) from None
  return found


def _unknown(place, row, name, value, allowed) -> UserError:
  said = "missing" if value in ("", None) else f"{value!r}, which is unknown"
  return UserError(
    f"{place}: {row}: slot {name!r} is {said}; allowed: "
    f"{', '.join(map(str, allowed))}"
  )


def _numbers(name: str, values, place: str, at) -> np.ndarray:
  """Returns the numbers of a column, float64 [A]."""
  found = np.empty(len(values))
  for row, value in enumerate(values):
    try:
      found[row] = np.nan if value in ("", None) else float(value)
    except (ValueError, TypeError, OverflowError):
      found[row] = np.inf
    if np.isinf(found[row]):
      raise UserError(
        f"{place}: {at(row)}: column {name!r} is {value!r}; give a finite "
        "number, or nothing where none was measured"
      )
  return found


def contents(
  header: dict[str, Any],
  places: list[np.ndarray],
  columns: dict[str, np.ndarray],
  place: str,
  at: Callable[[int], str] = _row,
) -> Contents:
  """Makes a table of its parts.

  Args:
    header: header of the file.
    places: for each slot the places of the choices, from 0, [A].
    columns: see `Contents`.
    place: the file, for messages.
    at: names a row, whose number counts from 0.

  Raises:
    UserError: an architecture occurs twice.
  """
  base = slots.space(str(header.get("space", "table")), header["slots"])
  first = [choices[0] for choices in base.choices]
  tokens = np.stack(places, 1).astype(np.int32) + np.int32(first)
  space = Known(base.name, base.choices, slots=base.slots, rows=Rows(tokens))
  if len(space.rows.numbers) < len(tokens):
    for row, last in enumerate(space.number(tokens).tolist()):
      if row != last:
        raise UserError(
          f"{place}: {at(row)} and {at(last)} are the same architecture, "
          f"{space.text(tokens[row])}; keep one of them"
        )
  return Contents(space, columns, header)
