"""The graph networks of NAS-Bench-Graph (Qin et al. 2022).

A network has four nodes. Each node reads the input or an earlier node and
applies an operation; nodes that no other node reads form the output. Tokens are
a predecessor and an operation for each node, as for recurrent cells.
"""

import functools

from nao_jax.spaces import listed
from nao_jax.spaces.space import Space

NODES = 4
OPS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")

Tree = tuple[str, tuple]


@functools.cache
def space() -> Space:
  """Returns the space of 157,464 sequences and 26,207 functions.

  One function, with no operation but `skip`, is not in the benchmark.
  """
  ops = tuple(range(NODES + 1, NODES + 1 + len(OPS)))
  choices = []
  for node in range(NODES):
    choices += [tuple(range(1, node + 2)), ops]
  return Space(
    name="nasbench-graph",
    choices=tuple(choices),
    tokens_per_step=2,
    functions=listed.functions(tuple(choices), _form),
  )


def to_tokens(links: list[int], ops: list[str]) -> list[int]:
  """Converts the nodes' predecessors (0 is the input) and ops to tokens."""
  tokens = []
  for link, op in zip(links, ops, strict=True):
    tokens += [1 + link, NODES + 1 + OPS.index(op)]
  return tokens


def _form(choice: list[int]) -> tuple[Tree, ...]:
  """Returns the network as a tree without nodes that have no effect."""
  links, ops = choice[::2], [OPS[op] for op in choice[1::2]]

  def readers(state: int) -> list[Tree]:
    nodes = [node for node in range(NODES) if links[node] == state]
    trees = []
    for node in nodes:
      below = readers(node + 1)
      if ops[node] != "skip":
        trees.append((ops[node], tuple(below)))
      elif below:
        # Readers of a copy of a state might as well read the state.
        trees += below
      elif len(nodes) > 1 and not is_input(state):
        # The state itself is a part of the output, beside its other readers.
        trees.append(("skip", ()))
    return sorted(trees)

  def is_input(state: int) -> bool:
    """Returns whether a state is the input or a copy of it."""
    node = state - 1
    return state == 0 or (ops[node] == "skip" and is_input(links[node]))

  return tuple(readers(0))
