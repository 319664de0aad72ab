"""Operations and sizes of networks whose cells sum operations on edges.

The networks are in edge_network.py.

Shapes: E edges, S states, maps [C, H, W, B].
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.errors import UserError
from nao_jax.networks import macro, ops
from nao_jax.settings import field
from nao_jax.spaces import nasbench201, slots
from nao_jax.spaces.arrays import Array
from nao_jax.spaces.space import Space


class Operation(NamedTuple):
  """An operation that an edge can have, as two pure functions.

  Attributes:
    name: name of the operation.
    shapes: maps the number of channels C to {name: shape} of the parameters.
      A word in the name determines the kind:
      `scale`, `offset`: of BatchNorm, [C];
      `depthwise`: kernels [C, k, k];
      `structuring`: kernels [C, k, k] that start near 0;
      `dense`: kernels [out, in, k, k];
      any other: kernels [in, out].
    apply: a function of maps [C, H, W, B], the parameters and a BatchNorm
      function (see `ops.batch_norm`), which returns maps of the same shape.
  """

  name: str
  shapes: Callable[[int], ops.Shapes]
  apply: Callable[[jax.Array, ops.Parameters, ops.Norm], jax.Array]


# Cached, so that equal operations are the same object and share a trace.
@functools.cache
def operation(name: str) -> Operation:
  """Wraps an operation of `ops` for use on an edge."""
  return Operation(
    name,
    functools.partial(ops.shapes, name, stride=1),
    functools.partial(_apply, name),
  )


def _apply(name: str, x, weights, norm) -> jax.Array:
  # At the top level, so that workers of a cluster can be sent it.
  return ops.apply(name, x, weights, stride=1, norm=norm)


def is_zero(one: Operation) -> bool:
  """Returns whether an operation is the one of `ops` that returns zeros."""
  known = isinstance(one.apply, functools.partial) and one.apply.func is _apply
  return known and one.apply.args == ("zero",)


_OUR_NAMES = {
  "none": "zero",
  "skip_connect": "identity",
  "nor_conv_1x1": "conv_1x1",
  "nor_conv_3x3": "conv_3x3",
  "avg_pool_3x3": "avg_pool_3x3",
}
NASBENCH201 = tuple(
  operation(_OUR_NAMES[name])._replace(name=name) for name in nasbench201.OPS
)


@dataclasses.dataclass(frozen=True)
class EdgeNetworkConfig:
  """Sizes of a network; the defaults are NAS-Bench-201's.

  Attributes:
    cells_per_stage: cells in each of the three stages.
    channels: C, width of the first stage.
    classes: number of classes.
    affine: whether BatchNorm in operations has a learnt scale and offset.
    space: the search space; the choices of its E tokens are the operations.
    operations: the operations, in the order of each token's choices.
    edges: (source, target) of each edge, in the order of the tokens.
  """

  cells_per_stage: int = field(5, least=1, most=macro.MOST_CELLS)
  channels: int = field(16, least=2, most=macro.MOST_CHANNELS)
  classes: int = field(10, least=1)
  affine: bool = True
  space: Space = dataclasses.field(default_factory=nasbench201.space)
  operations: tuple[Operation, ...] = NASBENCH201
  edges: tuple[tuple[int, int], ...] = nasbench201.EDGES

  # Fixed here; a setting in `macro.NetworkConfig`.
  auxiliary = False
  # See `macro.NetworkConfig`.
  parts, narrower = "edges", "network.channels"

  @property
  def op_names(self) -> tuple[str, ...]:
    """Names of the operations."""
    return tuple(operation.name for operation in self.operations)

  def chosen_ops(self, tokens: Array) -> Array:
    """Returns the operations of the edges, [A, E]."""
    return self.to_cells(tokens)

  def largest_inside(self, image_size: int) -> int:
    """Returns 0: no map inside of an op is larger than those that are kept."""
    del image_size
    return 0

  def most_kept(self, image_size: int) -> float:
    """Returns a bound on the values that a step keeps for one image."""
    maps = macro.MOST_MAPS * self.branches * len(self.cells)
    return maps * self.channels * image_size**2

  @property
  def states(self) -> int:
    """Number of states of a cell, S."""
    return 1 + max(target for _, target in self.edges)

  @property
  def cells(self) -> tuple[tuple[bool, int], ...]:
    """For each cell: False, as none is a reduction cell, and its width."""
    return tuple(
      (False, self.channels * 2**stage)
      for stage in range(3)
      for _ in range(self.cells_per_stage)
    )

  @property
  def branches(self) -> int:
    """Number of edges of a cell, E."""
    return len(self.edges)

  @property
  def architecture_shape(self) -> tuple[int, ...]:
    """Shape of an architecture as data: (E,)."""
    return (self.branches,)

  def resized(self, sizes: macro.NetworkConfig) -> "EdgeNetworkConfig":
    """Returns the network with these cells per stage, channels, classes."""
    return dataclasses.replace(
      self,
      cells_per_stage=sizes.cells_per_stage,
      channels=sizes.channels,
      classes=sizes.classes,
    )

  def to_cells(self, tokens: Array) -> Array:
    """Converts tokens [..., E] to indices of operations, int32 [..., E]."""
    first = np.array([choices[0] for choices in self.space.choices], np.int32)
    return tokens - first

  def check(self, image_size: int) -> None:
    """Raises UserError if the network cannot be built.

    Args:
      image_size: height and width.
    """
    if image_size % 4:
      raise UserError(
        f"images are {image_size} pixels wide, which cannot be halved twice; "
        "give a size that is a multiple of 4"
      )
    check_edges(self.edges)
    names, choices = self.op_names, self.space.choices
    if len(choices) != self.branches or any(
      len(tokens) != len(names) for tokens in choices
    ):
      raise UserError(
        f"space {self.space.name!r} has {len(choices)} tokens, and "
        f"the cell {self.branches} edges with {len(names)} operations "
        f"({', '.join(names)}) each; give a space with a token for each edge "
        "and a choice for each operation"
      )
    for operation in self.operations:
      _check_operation(operation, self.channels)


def own_cells(
  operations: Sequence[Operation], edges: Sequence[tuple[int, int]]
) -> EdgeNetworkConfig:
  """Returns the description of user-defined cells.

  Args:
    operations: the operations that every edge can have.
    edges: (source, target) of each edge; those that lead to a state come
      before those that read it. State 0 is the cell's input, and the last state
      its output.

  Raises:
    UserError: the edges are no cell, or two operations have the same name.
  """
  edges = tuple(map(tuple, edges))
  check_edges(edges)
  names = tuple(operation.name for operation in operations)
  for name, count in collections.Counter(names).items():
    if count > 1:
      raise UserError(
        f"`operations`: {count} are called {name!r}; give each its own name"
      )
  space = slots.space(
    f"own cells of {', '.join(names)}",
    {
      f"edge {number}, {source} to {target}": names
      for number, (source, target) in enumerate(edges)
    },
  )
  return EdgeNetworkConfig(
    space=space, operations=tuple(operations), edges=edges
  )


def is_affine(leaf: str) -> bool:
  """Returns whether a parameter is a scale or an offset of BatchNorm."""
  return "scale" in leaf or "offset" in leaf


def _check_parameter(
  operation: str, name: str, shape: tuple[int, ...], channels: int
) -> None:
  """Raises UserError for a parameter whose first value is not defined."""
  place = f"operation {operation!r}: parameter {name!r} {list(shape)}"
  ranks = {"depthwise": 3, "structuring": 3, "dense": 4}
  rank = next((r for word, r in ranks.items() if word in name), 2)
  if is_affine(name):
    if shape != (channels,):
      raise UserError(f"{place}: a scale or an offset has shape [{channels}]")
  elif "mean" in name or "variance" in name or name.endswith("conv"):
    raise UserError(
      f"{place}: names with `mean` or `variance`, or that end in `conv`, have "
      "another meaning; give another name"
    )
  elif len(shape) != rank:
    raise UserError(
      f"{place}: a kernel of this name has {rank} axes; names with `dense` "
      "have 4, with `depthwise` or `structuring` 3, all others 2"
    )


def check_edges(edges: tuple[tuple[int, int], ...]) -> None:
  """Checks the table of edges of a cell.

  Raises:
    UserError: an edge does not lead to a later state, an edge reads a state
      that is not complete, or nothing leads to or reads a state.
  """
  if not edges:
    raise UserError("`edges`: the cell has none; give at least one")
  sources = {source for source, _ in edges}
  targets = {target for _, target in edges}
  last, read = max(targets), set()
  for number, (source, target) in enumerate(edges):
    place = (
      f"`edges`: edge {number} leads from state {source} to state {target}"
    )
    if not 0 <= source < target:
      raise UserError(
        f"{place}; an edge leads from a state, 0 or more, to a later one, so "
        "that a cell has no cycle"
      )
    if target in read:
      raise UserError(
        f"{place}, but an earlier edge has read that state already; order the "
        "edges by their targets"
      )
    read.add(source)
  for state in range(1, last + 1):
    if state not in targets:
      raise UserError(f"`edges`: no edge leads to state {state}")
  for state in range(last):
    if state not in sources:
      raise UserError(
        f"`edges`: no edge reads state {state}, so nothing that leads to it "
        f"has an effect; the output is state {last}"
      )


def _check_operation(operation: Operation, channels: int) -> None:
  """Raises UserError if an operation is not as `Operation` describes it."""
  place, shapes = f"operation {operation.name!r}", operation.shapes(channels)
  for name, shape in shapes.items():
    _check_parameter(operation.name, name, shape, channels)
  x = jax.ShapeDtypeStruct((channels, 8, 8, 2), jnp.float32)
  weights = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in shapes.items()
  }
  norms = []

  def norm(x, parameters, stage="", axis_name=None):
    norms.append(stage)
    return ops.batch_norm(x, parameters, stage, axis_name)

  try:
    y = jax.eval_shape(
      lambda x, weights: operation.apply(x, weights, norm), x, weights
    )
  except KeyError as error:
    raise UserError(
      f"{place} uses the parameter {error}, which its shapes do not name; they "
      f"name {', '.join(shapes) or 'none'}"
    ) from error
  scales = sum("scale" in name for name in shapes)
  if len(norms) != scales or len({*norms}) != scales:
    raise UserError(
      f"{place} has {scales} scales, and normalises {len(norms)} times; it "
      "must use each scale once"
    )
  if (y.shape, y.dtype) != (x.shape, x.dtype):
    raise UserError(
      f"{place} turns maps {x.dtype.name} {list(x.shape)} into {y.dtype.name} "
      f"{list(y.shape)}; it must keep shape and type"
    )
