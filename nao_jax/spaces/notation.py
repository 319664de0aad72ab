"""Architectures as people write them: numbers on a line, or a JSON file."""

from nao_jax.errors import UserError, named
from nao_jax.runs import json_file


def numbers(text: str) -> list[int] | None:
  """The whole numbers that the text consists of, if it does."""
  words = text.replace("|", " ").replace(",", " ").split()
  try:
    return [int(word) for word in words]
  except ValueError:
    return None


def tokens_of_file(path: str, source: str) -> list[int]:
  """The `tokens` of a JSON file; UserError if they are no integers."""
  tokens = read(path, source)["tokens"]
  if not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
    raise UserError(
      f"{named(source, path)}: `tokens` is not a list of integers"
    )
  return tokens


def read(path: str, source: str) -> dict:
  """The object in a JSON file; it has `tokens`."""
  place, wanted = named(source, path), "a JSON object with a list `tokens`"
  content = json_file.read(
    path, place=place, wanted=wanted, advice="give what a search wrote"
  )
  if "tokens" not in content:
    raise UserError(f"{place}: not {wanted}; give what a search wrote")
  return content
