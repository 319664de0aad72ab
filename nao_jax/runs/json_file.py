"""Validated reading of JSON objects from files."""

import json
import os

from nao_jax.errors import UserError
from nao_jax.runs import paths


def read(
  file: str | os.PathLike, *, place: str, wanted: str, advice: str
) -> dict:
  """Returns the object in a file.

  Args:
    file: its path.
    place: name of the file in messages.
    wanted: the expected contents, for messages.
    advice: what to do if the contents are different, for messages.

  Raises:
    UserError: the file cannot be read or holds something else.
  """
  content = _content(file, place, advice)
  return parse(content, place=place, wanted=wanted, advice=advice)


def parse(content: bytes, *, place: str, wanted: str, advice: str) -> dict:
  """Returns the object in the contents of a file; see `read`."""
  try:
    found = json.loads(content.decode())
    if not isinstance(found, dict):
      raise ValueError("no JSON object")
  # A thousand nested brackets exceed the recursion limit of the parser.
  except (ValueError, RecursionError) as error:
    raise UserError(f"{place}: not {wanted} ({error}); {advice}") from error
  return found


def read_lines(
  file: str | os.PathLike, *, wanted: str, advice: str
) -> list[dict]:
  """Returns the objects in a file that has one on each line; see `read`.

  Text after the last newline is left out: it is still being written, or was
  when the writer was killed.
  """
  lines = _content(file, str(file), advice).split(b"\n")[:-1]
  return [
    parse(line, place=f"{file}: line {number}", wanted=wanted, advice=advice)
    for number, line in enumerate(lines, 1)
  ]


def _content(file: str | os.PathLike, place: str, advice: str) -> bytes:
  try:
    return paths.expanded(file).read_bytes()
  except (OSError, ValueError) as error:  # ValueError: a path with a NUL.
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{place}: {reason}; {advice}") from error
