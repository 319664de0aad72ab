"""JSON objects from files that may hold anything."""

import json
import os

from nao_jax.errors import UserError
from nao_jax.runs import paths


def read(
  file: str | os.PathLike, *, place: str, wanted: str, advice: str
) -> dict:
  """The object in a file.

  Args:
    file: its path.
    place: what messages call it.
    wanted: what it should be, for messages.
    advice: what to do if it is not, for messages.

  Raises:
    UserError: it cannot be read, or holds something else; says where.
  """
  content = _content(file, place, advice)
  return parse(content, place=place, wanted=wanted, advice=advice)


def parse(content: bytes, *, place: str, wanted: str, advice: str) -> dict:
  """The object in the contents of a file; see `read`."""
  try:
    found = json.loads(content.decode())
    if not isinstance(found, dict):
      raise ValueError("no JSON object")
  # A thousand brackets are too many for the parser.
  except (ValueError, RecursionError) as error:
    raise UserError(f"{place}: not {wanted} ({error}); {advice}") from error
  return found


def read_lines(
  file: str | os.PathLike, *, wanted: str, advice: str
) -> list[dict]:
  """The objects in a file that has one on each line; see `read`.

  What comes after the last end of a line is still being written, or was when
  the writer was killed, and is left out.
  """
  lines = _content(file, str(file), advice).split(b"\n")[:-1]
  return [
    parse(line, place=f"{file}: line {number}", wanted=wanted, advice=advice)
    for number, line in enumerate(lines, 1)
  ]


def _content(file: str | os.PathLike, place: str, advice: str) -> bytes:
  try:
    return paths.expanded(file).read_bytes()
  except (OSError, ValueError) as error:  # The latter for a path with a NUL.
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{place}: {reason}; {advice}") from error
