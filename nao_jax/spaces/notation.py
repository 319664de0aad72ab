"""Architectures as people write them: numbers on a line, or a JSON file."""

import json

from nao_jax.errors import UserError


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
    raise UserError(f"{source}={path}: `tokens` is not a list of integers")
  return tokens


def read(path: str, source: str) -> dict:
  """The object in a JSON file; it has `tokens`."""
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
    content["tokens"]
  except OSError as error:
    raise UserError(f"{source}={path}: {error.strerror}") from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{source}={path}: not a JSON object with a list `tokens`"
    ) from error
  return content
