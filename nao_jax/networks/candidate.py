"""Candidate network, whose architecture is data.

It computes the same function as the stand-alone network, but is traced and
compiled only once for all architectures. It is for searches that train
thousands of candidates from scratch, each for less time than a compilation
takes. Architectures may differ from device to device, or along a `lax.map`.

Every branch has weights for each op, of which the architecture uses one. A cell
returns all its states and marks its loose ends; the modules that read it have
weights for each state. Weights that the architecture does not use have gradient
0, and their running statistics stay as they are.

Shapes: B images, N nodes, E = 2 N branches, S = N + 2 states.
"""

import dataclasses
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import macro, ops
from nao_jax.networks.macro import NetworkConfig, classify, shrink_input
from nao_jax.networks.parameters import (
  CarriedNorm,
  Statistics,
  declare,
  normaliser,
  track,
)
from nao_jax.networks.tape import combine, loose_ends, run_cell
from nao_jax.spaces import cnn
from nao_jax.spaces.arrays import Array


class Ends(NamedTuple):
  """The output of a cell.

  Attributes:
    states: [S, C, H, W, B].
    loose: bool [S]; a loose end is a state that no node uses.
  """

  states: jax.Array
  loose: jax.Array

  @property
  def maps(self) -> jax.Array:
    """Returns the concatenation [S C, H, W, B], with zeros for other states."""
    loose = self.loose[:, None, None, None, None]
    kept = jnp.where(loose, self.states, 0)
    return kept.reshape(-1, *self.states.shape[2:])


class Candidate(nn.Module):
  """A classifier whose cells are an argument of the call.

  Use `build.initialise_candidate` to create its variables: the initial
  distribution depends on the architecture, which `init` ignores.

  Attributes:
    config: the sizes.
    axis_name: the mapped axis over which BatchNorm takes its statistics; all
      devices must then run the same architecture.
  """

  config: NetworkConfig
  axis_name: str | None = None

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
      cells: int32 [2, N, 4], normal and reduction cell.
      masks: see `StandAlone`.
      deterministic: see `StandAlone`. Dropout drops other features than it does
        there.

    Returns:
      logits [B, classes], and those of the auxiliary head or None.
    """
    config = self.config
    statistics = "running" if deterministic else "tracked"

    def cell(k, previous, current, masks):
      reduction, width = config.cells[k]
      module = Cell(
        config.ops,
        width,
        reduction,
        self.axis_name,
        statistics,
        name=f"cell_{k}",
      )
      return module(previous, current, cells[int(reduction)], masks)

    return classify(
      self,
      cell,
      images,
      masks,
      deterministic,
      statistics=statistics,
      maps=lambda ends: ends.maps,
    )


class Cell(nn.Module):
  """One cell of the candidate.

  Attributes:
    ops: the name of the op set.
    width: C, the width of every state.
    reduction: whether the branches that read an input have stride 2.
    axis_name: see `Candidate`.
    statistics: the statistics that BatchNorm normalises by.
  """

  ops: str
  width: int
  reduction: bool
  axis_name: str | None = None
  statistics: Statistics = "running"

  @nn.compact
  def __call__(
    self,
    previous: Ends | jax.Array,
    current: Ends | jax.Array,
    rows: jax.Array,
    masks: jax.Array | None,
  ) -> Ends:
    """Takes `Ends` or the stem's [C', H', W', B], and rows int32 [N, 4]."""
    inputs = self._calibrate(previous, current)
    loose = cnn.unused_states(rows)
    shrunk = self._shrink(inputs, loose) if self.reduction else None
    names = cnn.OP_SETS[self.ops]
    weights = self._weights(2 * len(rows))
    states = track(
      self,
      "branches",
      (2 * len(rows), self._norms, self.width),
      lambda running: run_cell(
        self._operations,
        inputs,
        shrunk,
        lambda stride: ops.at_stride(weights, names, self.width, stride),
        running,
        masks,
        rows,
      ),
    )
    return Ends(states, loose)

  def _calibrate(self, previous, current):
    """Brings both inputs to the cell's width and the second one's map size."""
    size = _size(current)

    def one(i, x):
      kind = macro.Calibration
      if isinstance(x, Ends):
        # A factorized reduction occurs once per stage: computing it on zeros
        # elsewhere costs little.
        x, kind = (x, Calibration) if _size(x) == size else (x.maps, kind)
      return kind(
        self.width,
        size,
        self.axis_name,
        self.statistics,
        name=f"calibration_{i}",
      )(x)

    return jnp.stack([one(i, x) for i, x in enumerate((previous, current))])

  def _shrink(self, inputs, loose):
    return jnp.stack(
      [shrink_input(self, i, x, loose[i]) for i, x in enumerate(inputs)]
    )

  def _weights(self, branches: int):
    """Returns {leaf: [E, ...]} of each op; reduction identities have some."""
    stride = 1 + self.reduction
    return {
      op: declare(self, op, ops.shapes(op, self.width, stride), (branches,))
      for op in cnn.OP_SETS[self.ops]
    }

  def _operations(self, stride: int):
    return tuple(
      _Operation(op, stride, self.axis_name, self.statistics)
      for op in cnn.OP_SETS[self.ops]
    )

  @property
  def _norms(self) -> int:
    """Returns the largest number of BatchNorms in one operation."""
    shapes = (ops.shapes(op, self.width, 2) for op in cnn.OP_SETS[self.ops])
    return max(sum("scale" in leaf for leaf in leaves) for leaves in shapes)


@dataclasses.dataclass(frozen=True)
class _Operation:
  """`ops.apply` with the signature that the tape needs; equal by value.

  A branch's running statistics are its memory: mean and variance, both [largest
  number of BatchNorms in an operation, C], whatever its op.
  """

  op: str
  stride: int
  axis_name: str | None
  statistics: Statistics

  def __call__(self, x, weights, running):
    norm = CarriedNorm(running, self.statistics, self.axis_name)
    y = ops.apply(
      self.op,
      x,
      weights,
      stride=self.stride,
      axis_name=self.axis_name,
      norm=norm,
    )
    return y, norm.running


class Calibration(macro.Calibration):
  """`macro.Calibration` for the loose ends of a cell of equal map size.

  Loose ends pass unchanged if together they have the cell's width, which
  depends on their number.
  """

  @nn.compact
  def __call__(self, ends: Ends) -> jax.Array:
    """Converts to [width, size, size, B]."""
    states, loose = ends
    total, width = states.shape[:2]
    order, count = loose_ends(loose)
    fitting = self.width // width  # 2 where a reduction cell doubles it.
    weights = declare(self, "", ops.conv_bn_shapes(total * width, self.width))
    kernels = weights["kernel"].reshape(total, width, self.width)
    norm = normaliser(self, used=count != fitting)
    y = norm(combine(states, kernels, loose), weights, axis_name=self.axis_name)
    untouched = jnp.concatenate([states[order[i]] for i in range(fitting)])
    # Both results are computed: with one or two loose ends, the other costs
    # little.
    return jnp.where(count != fitting, y, untouched)


def _size(x: Ends | jax.Array) -> int:
  """Returns the height and width of maps."""
  return jax.tree.leaves(x)[0].shape[-2]


def with_fan_ins(config: NetworkConfig, params: dict, cells: Array) -> dict:
  """Returns first weights with the fan-ins that an architecture has.

  Args:
    config: the sizes.
    params: weights of `parameters.initialise`.
    cells: int32 [2, N, 4], a NumPy or a JAX array; so are the results.
  """
  loose = cnn.unused_states(cells)
  states = loose.shape[1]
  factors = np.sqrt(states / np.arange(1, states + 1)).astype(np.float32)
  if isinstance(cells, jax.Array):
    factors = jnp.asarray(factors)
  readers = _readers(config, factors[loose.sum(1) - 1])

  def rescale(path, leaf):
    module, name = tuple(part.key for part in path[:-1]), path[-1].key
    reads = name in ("kernel", "bias", "even", "odd", "narrow_conv")
    return leaf * readers[module] if reads and module in readers else leaf

  return jax.tree.map_with_path(rescale, params)


def _readers(config: NetworkConfig, factors) -> dict[tuple[str, ...], float]:
  """Returns {path of a module that reads a cell: the factor of its kind}.

  Calibrations before the first cell's output read the stem.
  """
  of_cell = [factors[int(reduction)] for reduction, _ in config.cells]
  calibrations = {
    (f"cell_{k + 2 - i}", f"calibration_{i}"): factor
    for k, factor in enumerate(of_cell)
    for i in range(2)
  }
  heads = {("auxiliary",): factors[1], ("classifier",): of_cell[-1]}
  return calibrations | heads
