"""The paper's encoding of convolutional cells: three tokens for each branch.

They are the input, the type of the op and its kernel (paper section 3.1; the
official code without weight sharing). Inputs have the numbers of the encoding
`pairs`, then come types, then kernels: with 5 nodes 1 to 6, 7 to 13, 14 to 20.
The kernels that a type may have depend on the op set. "7 14" is the identity.
"""

from collections.abc import Sequence

import numpy as np

from nao_jax.spaces.arrays import Array

# The official vocabulary; an op set may use a part of it.
TYPES = (
  "identity", "sep_conv", "conv", "dil_sep_conv",
  "avg_pool", "max_pool", "min_pool",
)  # fmt: skip
KERNELS = ("1x1", "2x2", "3x3", "5x5", "7x7", "1x3_3x1", "1x7_7x1")

Choices = tuple[tuple[int, ...], ...]
Follows = tuple[tuple[int, tuple[int, ...]], ...]


def grammar(ops: Sequence[str], nodes: int) -> tuple[Choices, Follows]:
  """Returns the grammar of a branch's type and kernel.

  Args:
    ops: names of an op set that types and kernels can express.
    nodes: number of computed nodes in a cell.

  Returns:
    The tokens of types and of kernels, and the kernels that may follow a type.
  """
  kernels: dict[int, list[int]] = {}
  for kind, kernel in sorted(_codes(ops, nodes).tolist()):
    kernels.setdefault(kind, []).append(kernel)
  every_kernel = sorted(set().union(*kernels.values()))
  follows = ((kind, tuple(tokens)) for kind, tokens in kernels.items())
  return (tuple(kernels), tuple(every_kernel)), tuple(follows)


def to_pairs(tokens: Array, ops: Sequence[str]) -> Array:
  """Converts legal triples [..., 12 nodes] to pairs [..., 8 nodes].

  Both are NumPy or both JAX arrays.
  """
  nodes = tokens.shape[-1] // 12
  branches = tokens.reshape(*tokens.shape[:-1], 4 * nodes, 3)
  same = branches[..., None, 1:] == _codes(ops, nodes)
  indices = same.all(axis=-1).argmax(axis=-1).astype(branches.dtype)
  return _interleave(branches[..., 0], nodes + 2 + indices)


def from_pairs(tokens: Array, ops: Sequence[str]) -> Array:
  """Converts pairs to triples; the inverse of `to_pairs`."""
  nodes = tokens.shape[-1] // 8
  branches = tokens.reshape(*tokens.shape[:-1], 4 * nodes, 2)
  codes = branches.__array_namespace__().asarray(_codes(ops, nodes))
  written = codes[branches[..., 1] - (nodes + 2)]
  return _interleave(branches[..., 0], written[..., 0], written[..., 1])


def _codes(ops: Sequence[str], nodes: int) -> np.ndarray:
  """Returns the tokens of type and kernel of each op, int32 [ops, 2]."""
  first_type = nodes + 2
  first_kernel = first_type + len(TYPES)
  codes = {
    f"{kind}_{kernel}": (first_type + i, first_kernel + j)
    for i, kind in enumerate(TYPES)
    for j, kernel in enumerate(KERNELS)
  }
  codes["identity"] = codes["identity_1x1"]
  return np.array([codes[op] for op in ops], np.int32)


def _interleave(*columns):
  """Interleaves columns [..., n], all NumPy or all JAX, to [..., columns n]."""
  *batch, count = columns[0].shape
  stacked = columns[0].__array_namespace__().stack(columns, axis=-1)
  return stacked.reshape(*batch, len(columns) * count)
