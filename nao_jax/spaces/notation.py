"""Architectures in text: numbers in a line, or a JSON file."""

from nao_jax.errors import UserError, named
from nao_jax.runs import json_file


def numbers(text: str) -> list[int] | None:
  """Returns the integers in a text; None if it contains anything else."""
  words = text.replace("|", " ").replace(",", " ").split()
  try:
    return [int(word) for word in words]
  except ValueError:
    return None


def tokens_of_file(path: str, source: str) -> list[int]:
  """Returns the `tokens` of a JSON file.

  Raises:
    UserError: the file cannot be read, or `tokens` is not a list of integers.
  """
  return tokens_of(read(path, source), path, source)


def tokens_of(content: dict, path: str, source: str) -> list[int]:
  """Returns the `tokens` of an object that `read` returned.

  Raises:
    UserError: `tokens` is not a list of integers.
  """
  tokens = content["tokens"]
  if not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
    raise UserError(
      f"{named(source, path)}: `tokens` is not a list of integers"
    )
  return tokens


def read(path: str, source: str) -> dict:
  """Returns the object in a JSON file with the entry `tokens`.

  Raises:
    UserError: the file cannot be read, or has no such object.
  """
  place, wanted = named(source, path), "a JSON object with a list `tokens`"
  content = json_file.read(
    path, place=place, wanted=wanted, advice="give what a search wrote"
  )
  if "tokens" not in content:
    raise UserError(f"{place}: not {wanted}; give what a search wrote")
  return content
