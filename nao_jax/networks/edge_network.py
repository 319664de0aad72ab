"""Networks of cells that sum operations on edges, as in NAS-Bench-201.

A cell has states, the first of which is its input; each of its edges applies an
operation to one state and adds the result to a later one; the last state is the
output. The network is a 3x3 convolution, three stages of equal cells with C, 2
C and 4 C channels, a fixed residual block with stride 2 between stages, and a
classifier (Dong and Yang, ICLR 2020). The operations of a cell, int32 [E], are
an argument of the call, so that one program serves all architectures.

Shapes: B images, E edges, S states, maps [C, H, W, B].
"""

import dataclasses
import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import convolutions, macro, ops, pooling
from nao_jax.networks.edge_config import (
  EdgeNetworkConfig,
  Operation,
  is_affine,
  is_zero,
)
from nao_jax.networks.parameters import (
  CarriedNorm,
  Statistics,
  declare,
  normaliser,
  track,
)
from nao_jax.networks.tape import Plan, run_branches


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
      _declared(self, f"operation_{number}", one, (edges,))
      for number, one in enumerate(config.operations)
    )
    branches = tuple(
      _Branch(one, self.axis_name, self.statistics) for one in config.operations
    )
    plan = _plan(config, rows)
    states = jnp.pad(x[None], ((0, config.states - 1), *((0, 0),) * 4))

    def run(memory):
      return run_branches(branches, None, states, weights, memory, masks, plan)

    if self.statistics == "batch":
      states, _ = run(())
    else:
      states = track(self, "edges", (edges, self._norms, self.width), run)
    return states[-1]

  @property
  def _norms(self) -> int:
    """Returns the largest number of BatchNorms in one operation."""
    shapes = (one.shapes(self.width) for one in self.config.operations)
    return max(sum("scale" in leaf for leaf in leaves) for leaves in shapes)


def _plan(config: EdgeNetworkConfig, rows: jax.Array) -> Plan:
  """Returns the plan of a cell; edges that add zeros come last.

  On a CPU they do not run. Elsewhere the host waits at each step of a loop
  whose length is data, so all edges run there.
  """
  zeros = jnp.asarray([is_zero(one) for one in config.operations])[rows]
  count = lax.platform_dependent(
    zeros,
    cpu=lambda zeros: jnp.sum(~zeros, dtype=jnp.int32),
    default=lambda zeros: jnp.int32(len(zeros)),
  )
  source, target = jnp.asarray(config.edges, jnp.int32).T
  return Plan(jnp.argsort(zeros, stable=True), count, rows, source, target)


def _declared(
  module: nn.Module, name: str, one: Operation, stack: tuple[int, ...] = ()
) -> ops.Parameters:
  """Declares the parameters of an operation; returns {leaf: [*stack, ..]}.

  Without `affine`, scales are 1 and offsets 0, and are no parameters.

  Args:
    module: a cell, whose attributes `config` and `width` give the shapes.
    name: name of the group of parameters.
    one: the operation.
    stack: leading axes of every leaf.
  """
  shapes = one.shapes(module.width)
  if module.config.affine:
    return declare(module, name, shapes, stack)
  learnt = {k: v for k, v in shapes.items() if not is_affine(k)}
  return declare(module, name, learnt, stack) | {
    leaf: jnp.full((*stack, *shape), float("scale" in leaf))
    for leaf, shape in shapes.items()
    if is_affine(leaf)
  }


@dataclasses.dataclass(frozen=True)
class _Branch:
  """An operation with the signature that the tape needs; equal by value.

  A branch's running statistics are its memory: mean and variance, both [largest
  number of BatchNorms in an operation, C], whatever its operation.
  """

  operation: Operation
  axis_name: str | None
  statistics: Statistics

  def _norm(self, x, parameters, stage="", axis_name=None):
    del axis_name  # Operations do not know that of the network.
    return ops.batch_norm(x, parameters, stage, self.axis_name)

  def __call__(self, x, weights, running):
    if self.statistics == "batch":
      return self.operation.apply(x, weights, self._norm), running
    norm = CarriedNorm(running, self.statistics, self.axis_name)
    return self.operation.apply(x, weights, norm), norm.running


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
      weights = _declared(self, name, one)
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
  features = macro.pooled(x)
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
