"""Networks of cells that sum operations on edges, as in NAS-Bench-201.

A cell has states, the first of which is its input; each of its edges applies an
operation to one state and adds the result to a later one; the last state is the
output. The network is a 3x3 convolution, three stages of equal cells with C, 2
C and 4 C channels, a fixed residual block with stride 2 between stages, and a
classifier (Dong and Yang, ICLR 2020). The operations of a cell, int32 [E], are
an argument of the call, so that one program serves all architectures.

Shapes: B images, E edges, S states, maps [C, H, W, B].
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.errors import UserError
from nao_jax.networks import convolutions, macro, ops, pooling
from nao_jax.networks.parameters import (
  Statistics,
  declare,
  normaliser,
  running_norm,
  track,
)
from nao_jax.networks.tape import Plan, put, run_branches, take
from nao_jax.settings import field
from nao_jax.spaces import nasbench201
from nao_jax.spaces.arrays import Array
from nao_jax.spaces.space import Space


class Operation(NamedTuple):
  """An operation of an edge: two pure functions.

  Attributes:
    name: name of the operation.
    shapes: maps the number of channels C to the shapes of the parameters, a
      dict. Names that contain `depthwise` hold kernels [C, k, k], `dense` and
      `conv` kernels [out, in, k, k], all others kernels [in, out]; `scale` and
      `offset` belong to BatchNorm.
    apply: a function of maps [C, H, W, B], the parameters and a BatchNorm
      function (see `ops.batch_norm`), which returns maps of the same shape.
  """

  name: str
  shapes: Callable[[int], ops.Shapes]
  apply: Callable[[jax.Array, ops.Parameters, ops.Norm], jax.Array]


# Cached, so that equal operations are the same object and share a trace.
@functools.cache
def operation(name: str) -> Operation:
  """Returns an operation of `ops` as one of an edge."""
  return Operation(
    name,
    functools.partial(ops.shapes, name, stride=1),
    lambda x, weights, norm: ops.apply(name, x, weights, stride=1, norm=norm),
  )


_NASBENCH201 = {
  "none": "zero",
  "skip_connect": "identity",
  "nor_conv_1x1": "conv_1x1",
  "nor_conv_3x3": "conv_3x3",
  "avg_pool_3x3": "avg_pool_3x3",
}
NASBENCH201 = tuple(
  operation(_NASBENCH201[name])._replace(name=name) for name in nasbench201.OPS
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

  # As `macro.NetworkConfig` has them.
  auxiliary, stem = False, "cifar"

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
        f"images are {image_size} pixels wide, which two halvings do not "
        "divide; give images whose size is a multiple of 4"
      )
    check_edges(self.edges)
    names = [operation.name for operation in self.operations]
    wrong = [c for c in self.space.choices if len(c) != len(names)]
    if len(self.space.choices) != self.branches or wrong:
      raise UserError(
        f"space {self.space.name!r} has {len(self.space.choices)} tokens, and "
        f"the cell {self.branches} edges with {len(names)} operations "
        f"({', '.join(names)}) each; give a space with a token for each edge "
        "and a choice for each operation"
      )
    for one in self.operations:
      _check_operation(one, self.channels)


def check_edges(edges: tuple[tuple[int, int], ...]) -> None:
  """Checks the table of edges of a cell.

  Raises:
    UserError: an edge does not lead to a later state, an edge reads a state
      that is not complete, or nothing leads to or reads a state.
  """
  if not edges:
    raise UserError("`edges`: the cell has none; give one at least")
  last = max(target for _, target in edges)
  complete = 0
  for at, (source, target) in enumerate(edges):
    place = f"`edges`: edge {at} leads from state {source} to state {target}"
    if not 0 <= source < target:
      raise UserError(
        f"{place}; an edge leads from a state, 0 or more, to a later one, so "
        "that a cell has no cycle"
      )
    if target < complete:
      raise UserError(
        f"{place}, but an earlier edge has read that state already; order the "
        "edges by their targets"
      )
    complete = max(complete, source + 1)
  for state in range(1, last + 1):
    if state not in {target for _, target in edges}:
      raise UserError(f"`edges`: no edge leads to state {state}")
  for state in range(last):
    if state not in {source for source, _ in edges}:
      raise UserError(
        f"`edges`: no edge reads state {state}, so nothing that leads to it "
        f"has an effect; the output is state {last}"
      )


def _check_operation(one: Operation, channels: int) -> None:
  """Raises UserError if an operation changes the shape or type of maps."""
  x = jax.ShapeDtypeStruct((channels, 8, 8, 2), jnp.float32)
  weights = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in one.shapes(channels).items()
  }
  y = jax.eval_shape(
    lambda x, weights: one.apply(x, weights, ops.batch_norm), x, weights
  )
  if (y.shape, y.dtype) != (x.shape, x.dtype):
    raise UserError(
      f"operation {one.name!r} turns maps {x.dtype.name} {list(x.shape)} into "
      f"{y.dtype.name} {list(y.shape)}; it must keep shape and type"
    )


class EdgeNetwork(nn.Module):
  """A classifier whose cells are an argument of the call.

  Weights are separate for each (cell, edge, operation). It is the supernet with
  `tracks=False`, where BatchNorm uses the batch's statistics, and the candidate
  with `tracks=True`, where it keeps running ones.

  Attributes:
    config: the sizes.
    axis_name: the mapped axis over which BatchNorm takes its statistics.
    tracks: whether there are running statistics.
  """

  config: EdgeNetworkConfig
  axis_name: str | None = None
  tracks: bool = False

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    cells: jax.Array,
    masks: jax.Array | None = None,
    deterministic: bool = True,
  ) -> macro.Outputs:
    """Runs one architecture on one batch.

    Args:
      images: float32 [B, H, W, c].
      cells: int32 [E], the operation of each edge.
      masks: float32 [cells of the network, E, B], drop-path factors, or None.
      deterministic: whether running statistics, if there are any, are used; in
        training they are updated.

    Returns:
      logits [B, classes], and None.
    """
    statistics = "batch"
    if self.tracks:
      statistics = "running" if deterministic else "tracked"

    def cell(k, x):
      width, mask = self.config.cells[k][1], None if masks is None else masks[k]
      name, norm = f"cell_{k}", (self.axis_name, statistics)
      return Cell(self.config, width, *norm, name=name)(x, cells, mask)

    return _classify(self.config, cell, images, self.axis_name, statistics)


class Cell(nn.Module):
  """One cell of the supernet or the candidate.

  Attributes:
    config: the sizes of the network.
    width: C, the width of every state.
    axis_name: see `EdgeNetwork`.
    statistics: the statistics that BatchNorm normalises by.
  """

  config: EdgeNetworkConfig
  width: int
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(
    self, x: jax.Array, rows: jax.Array, masks: jax.Array | None
  ) -> jax.Array:
    """Takes maps [C, H, W, B], int32 [E] and masks [E, B]; returns maps."""
    config, edges = self.config, self.config.branches
    weights = tuple(
      self._weights(f"operation_{number}", one)
      for number, one in enumerate(config.operations)
    )
    branches = tuple(
      _Branch(one, self.axis_name, self.statistics) for one in config.operations
    )
    source, target = np.array(config.edges, np.int32).T
    plan = Plan(
      jnp.arange(edges), jnp.int32(edges), rows, jnp.asarray(source),
      jnp.asarray(target),
    )  # fmt: skip
    states = jnp.pad(x[None], ((0, config.states - 1), *((0, 0),) * 4))

    def run(memory):
      return run_branches(branches, None, states, weights, memory, masks, plan)

    if self.statistics == "batch":
      states, _ = run(())
    else:
      states = track(self, "edges", (edges, self._norms, self.width), run)
    return states[-1]

  def _weights(self, name: str, one: Operation) -> ops.Parameters:
    """Returns {leaf: [E, ...]} of an operation."""
    shapes, stack = one.shapes(self.width), (self.config.branches,)
    if self.config.affine:
      return declare(self, name, shapes, stack)
    learnt = {k: v for k, v in shapes.items() if not _is_affine(k)}
    return declare(self, name, learnt, stack) | {
      leaf: jnp.full((*stack, *shape), float("scale" in leaf))
      for leaf, shape in shapes.items()
      if _is_affine(leaf)
    }

  @property
  def _norms(self) -> int:
    """Returns the largest number of BatchNorms in one operation."""
    shapes = (one.shapes(self.width) for one in self.config.operations)
    return max(sum("scale" in leaf for leaf in leaves) for leaves in shapes)


def _is_affine(leaf: str) -> bool:
  return "scale" in leaf or "offset" in leaf


@dataclasses.dataclass(frozen=True)
class _Branch:
  """An operation with the signature that the tape needs; equal by value.

  A branch's running statistics are its memory: mean and variance, both [largest
  number of BatchNorms in an operation, C], whatever its operation.
  """

  operation: Operation
  axis_name: str | None
  statistics: Statistics

  def __call__(self, x, weights, running):
    def norm(x, parameters, stage="", axis_name=None):
      del axis_name
      nonlocal running
      if self.statistics == "batch":
        return ops.batch_norm(x, parameters, stage, self.axis_name)
      at = int(stage.removeprefix("_") or 1) - 1
      y, new = running_norm(
        x,
        parameters,
        stage,
        take(running, at),
        self.statistics,
        self.axis_name,
      )
      running = put(running, at, new)
      return y

    return self.operation.apply(x, weights, norm), running


class EdgeStandAlone(nn.Module):
  """The network of one architecture, with the operations that it uses alone.

  Attributes:
    config: the sizes.
    tokens: the architecture; a tuple of int, to be hashable.
    axis_name: see `EdgeNetwork`.
  """

  config: EdgeNetworkConfig
  tokens: tuple[int, ...]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    masks: jax.Array | None = None,
    deterministic: bool = True,
  ) -> macro.Outputs:
    """Classifies one batch; see `stand_alone.StandAlone`."""
    statistics = "running" if deterministic else "tracked"
    rows = self.config.to_cells(np.int32(self.tokens)).tolist()

    def cell(k, x):
      width, mask = self.config.cells[k][1], None if masks is None else masks[k]
      norm = self.axis_name, statistics
      module = StandAloneCell(
        self.config, tuple(rows), width, *norm, name=f"cell_{k}"
      )
      return module(x, mask)

    return _classify(self.config, cell, images, self.axis_name, statistics)


class StandAloneCell(nn.Module):
  """One cell of the stand-alone network.

  Attributes:
    config: the sizes of the network.
    rows: the operation of each edge.
    width: C, the width of every state.
    axis_name: see `EdgeNetwork`.
    statistics: the statistics that BatchNorm normalises by.
  """

  config: EdgeNetworkConfig
  rows: tuple[int, ...]
  width: int
  axis_name: str | None = None
  statistics: Statistics = "running"

  @nn.compact
  def __call__(self, x: jax.Array, masks: jax.Array | None) -> jax.Array:
    """Takes maps [C, H, W, B] and masks [E, B]; returns maps."""
    states = [x] + [jnp.zeros_like(x)] * (self.config.states - 1)
    for edge, (source, target) in enumerate(self.config.edges):
      one, name = self.config.operations[self.rows[edge]], f"edge_{edge}"
      weights = declare(self, name, one.shapes(self.width))
      norm = functools.partial(normaliser(self, name), axis_name=self.axis_name)
      y = one.apply(states[source], weights, norm)
      states[target] += y if masks is None else y * masks[edge]
    return states[-1]


def _classify(config, cell, images, axis_name, statistics) -> macro.Outputs:
  """Builds a network around its cells; called within a compact module."""
  norm = axis_name, statistics
  x = Stem(config.channels, *norm, name="stem")(images)
  for k in range(len(config.cells)):
    stage, first = divmod(k, config.cells_per_stage)
    if stage and not first:
      width = config.cells[k][1]
      x = Residual(width, *norm, name=f"residual_{stage}")(x)
    x = cell(k, x)
  x = LastNorm(*norm, name="last_norm")(x)
  features = jnp.mean(x, (1, 2), dtype=jnp.float32).T
  return macro.Classifier(config.classes, name="classifier")(features), None


class Stem(nn.Module):
  """A 3x3 convolution and BatchNorm."""

  width: int
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Maps images [B, H, W, c] to [width, H, W, B]."""
    x = _padded(jnp.transpose(images, (3, 1, 2, 0)))
    return macro.conv_norm(self, "", x, self.width, 3)


class LastNorm(nn.Module):
  """BatchNorm and ReLU before the classifier."""

  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Takes and returns maps [C, H, W, B]."""
    width = (x.shape[0],)
    weights = declare(self, "", {"scale": width, "offset": width})
    return jax.nn.relu(normaliser(self)(x, weights, axis_name=self.axis_name))


class Residual(nn.Module):
  """The fixed residual block with stride 2 between two stages.

  Attributes:
    width: channels of the output.
    axis_name: see `EdgeNetwork`.
    statistics: the statistics that BatchNorm normalises by.
  """

  width: int
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Takes maps [C', H, W, B]; returns [width, H / 2, W / 2, B]."""
    y = _padded(jax.nn.relu(x))
    y = macro.conv_norm(self, "first", y, self.width, 3, 2)
    y = macro.conv_norm(self, "second", _padded(jax.nn.relu(y)), self.width, 3)
    shapes = {"kernel": (x.shape[0], self.width)}
    kernel = declare(self, "shortcut", shapes)["kernel"]
    return y + convolutions.pointwise(pooling.valid_avg_pool(x, 2, 2), kernel)


def _padded(x: jax.Array) -> jax.Array:
  """Pads maps by a pixel on each side."""
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
