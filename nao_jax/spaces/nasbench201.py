"""The cells of NAS-Bench-201 (Dong and Yang 2020).

A cell has four nodes; each of the six edges between them has one of five
operations, and a node is the sum over its incoming edges. There is one token
for each edge, in the order of `EDGES`; edges do not share token numbers.
"""

import functools

import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError, named
from nao_jax.spaces import listed
from nao_jax.spaces.space import Space

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_NOTHING = "#"


class CellSpace(Space):
  """The space; made by `space`."""

  def text(self, tokens: npt.ArrayLike) -> str:
    """Writes an architecture [6] in the benchmark's notation."""
    return to_text(tokens)

  def parse(self, text: str, source: str = "arch") -> np.ndarray:
    """Reads the benchmark's notation, tokens, or a .json file with `tokens`."""
    if "~" in text:
      return parse(text, named(source, text))
    return super().parse(text, source)


@functools.cache
def space() -> CellSpace:
  """Returns the space of 15,625 sequences and 6,466 functions."""
  choices = tuple(
    tuple(range(1 + edge * len(OPS), 1 + (edge + 1) * len(OPS)))
    for edge in range(len(EDGES))
  )
  return CellSpace(
    name="nasbench201",
    choices=choices,
    functions=listed.functions(choices, _form),
  )


def to_tokens(ops: np.ndarray) -> np.ndarray:
  """Converts indices into `OPS` to tokens, [..., 6] in the order of `EDGES`."""
  return np.asarray(ops, np.int32) + 1 + len(OPS) * np.arange(len(EDGES))


def to_ops(tokens: npt.ArrayLike) -> np.ndarray:
  """Converts tokens [..., 6] to indices into `OPS`; reverses `to_tokens`."""
  return np.asarray(tokens) - to_tokens(np.zeros(len(EDGES)))


def to_text(tokens: npt.ArrayLike) -> str:
  """Writes tokens [6] in the benchmark's notation: `|op~0|+|op~0|op~1|+ ..`."""
  ops = to_ops(tokens)
  nodes = [
    "|"
    + "|".join(
      f"{OPS[op]}~{source}"
      for op, (source, target) in zip(ops, EDGES, strict=True)
      if target == node
    )
    + "|"
    for node in (1, 2, 3)
  ]
  return "+".join(nodes)


def parse(text: str, place: str | None = None) -> np.ndarray:
  """Reads the benchmark's notation; the reverse of `to_text`.

  Returns:
    Tokens, [6].

  Raises:
    UserError: the text has another form; the message names the edge.
  """
  place = place or named("arch", text)
  parts = [part for part in text.replace("+", "").split("|") if part]
  if len(parts) != len(EDGES):
    raise UserError(
      f"{place}: {len(parts)} operations; a cell of NAS-Bench-201 has "
      f"{len(EDGES)}, as in {to_text(to_tokens(np.ones(len(EDGES))))}"
    )
  ops = []
  for part, (begin, end) in zip(parts, EDGES, strict=True):
    op, _, number = part.partition("~")
    if op not in OPS or number != str(begin):
      raise UserError(
        f"{place}: {part!r} stands for the edge {begin} to {end}; "
        f"allowed there: one of {', '.join(OPS)}, then ~{begin}"
      )
    ops.append(OPS.index(op))
  return to_tokens(np.array(ops))


def _form(ops: list[int]) -> str:
  """Returns the last node's sum in the form that the benchmark compares.

  An operation on zeros gives zeros, and `skip_connect` returns its input. Sums
  are sorted by their text, so some cells of the same function count as
  different: those that add zeros, or sums to sums.
  """
  nodes = ["input"]
  for node in (1, 2, 3):
    addends = [
      _addend(OPS[op], nodes[source])
      for op, (source, target) in zip(ops, EDGES, strict=True)
      if target == node
    ]
    nodes.append("+".join(sorted(addends)))
  return nodes[-1]


def _addend(op: str, state: str) -> str:
  if op == "none" or state == _NOTHING:
    return _NOTHING
  return state if op == "skip_connect" else f"({state})@{op}"
