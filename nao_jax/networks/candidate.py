"""The candidate: the network of any one architecture, which is data.

For each architecture this is the same function as the stand-alone network, but
one trace and one compile serve all: for searches that train thousands of
candidates from scratch, each for less time than a compile takes. Architectures
may differ from device to device, or along a `lax.map`.

Every branch has weights for each op, of which the architecture uses one. A
cell hands on all its states and which of them are loose ends; whatever reads
it has weights for each state. What the architecture does not use has gradient
0, and its running statistics stay as they are.

Shapes: B images, N nodes, E = 2 N branches, S = N + 2 states.
"""

import dataclasses
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import macro, ops, parameters
from nao_jax.networks.macro import NetworkConfig, classify, shrink_input
from nao_jax.networks.parameters import (
  Statistics,
  declare,
  normaliser,
  running_norm,
  track,
)
from nao_jax.networks.tape import combine, loose_ends, put, run_cell, take
from nao_jax.spaces import cnn


class Ends(NamedTuple):
  """What a cell hands on.

  Attributes:
    states: [S, C, H, W, B].
    loose: bool [S]; a loose end is a state that no node uses.
  """

  states: jax.Array
  loose: jax.Array

  @property
  def maps(self) -> jax.Array:
    """[S C, H, W, B], the concatenation, with zeros for what is not loose."""
    loose = self.loose[:, None, None, None, None]
    kept = jnp.where(loose, self.states, 0)
    return kept.reshape(-1, *self.states.shape[2:])


class Candidate(nn.Module):
  """A classifier whose cells are given with its input.

  `initialise_candidate` makes its variables: the initial distribution depends
  on the architecture, which `init` does not look at.

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
      deterministic: see `StandAlone`. Dropout loses other features than there.

    Returns:
      logits [B, classes], and the auxiliary head's or None.
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
      config,
      cell,
      images,
      masks,
      deterministic,
      axis_name=self.axis_name,
      statistics=statistics,
      maps=lambda ends: ends.maps,
    )


class Cell(nn.Module):
  """One cell of the candidate.

  Attributes:
    ops: name of the op set.
    width: C, in every state.
    reduction: branches that read an input have stride 2.
    axis_name: see Candidate.
    statistics: what BatchNorm normalises by.
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
    """Inputs are Ends or the stem's [C', H', W', B]; rows int32 [N, 4]."""
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
    """The two inputs at the cell's width and the size of the second."""
    size = _size(current)

    def one(i, x):
      kind = macro.Calibration
      if isinstance(x, Ends):
        # A factorized reduction happens once a stage: zeros do not cost much.
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
    """{leaf: [E, ...]} of each op; an identity has some in reduction cells."""
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
    """The most BatchNorms that one operation has."""
    shapes = (ops.shapes(op, self.width, 2) for op in cnn.OP_SETS[self.ops])
    return max(sum("scale" in leaf for leaf in leaves) for leaves in shapes)


@dataclasses.dataclass(frozen=True)
class _Operation:
  """`ops.apply` as the tape wants it; equal by value.

  The branch remembers running statistics: mean and variance, both [BatchNorms
  of an operation at most, C], whatever its op.
  """

  op: str
  stride: int
  axis_name: str | None
  statistics: Statistics

  def __call__(self, x, weights, running):
    def norm(x, parameters, stage="", axis_name=None):
      nonlocal running
      at = int(stage.removeprefix("_") or 1) - 1
      y, new = running_norm(
        x, parameters, stage, take(running, at), self.statistics, axis_name
      )
      running = put(running, at, new)
      return y

    y = ops.apply(
      self.op,
      x,
      weights,
      stride=self.stride,
      axis_name=self.axis_name,
      norm=norm,
    )
    return y, running


class Calibration(macro.Calibration):
  """`macro.Calibration` of the loose ends of another cell, of equal map size.

  They pass untouched if together they have the cell's width, which depends on
  how many they are.
  """

  @nn.compact
  def __call__(self, ends: Ends) -> jax.Array:
    """To [width, size, size, B]."""
    states, loose = ends
    total, width = states.shape[:2]
    order, count = loose_ends(loose)
    fitting = self.width // width  # 2 where a reduction cell doubles it.
    weights = declare(self, "", ops.conv_bn_shapes(total * width, self.width))
    kernels = weights["kernel"].reshape(total, width, self.width)
    norm = normaliser(self, used=count != fitting)
    y = norm(combine(states, kernels, loose), weights, axis_name=self.axis_name)
    untouched = jnp.concatenate([states[order[i]] for i in range(fitting)])
    # Both were computed: of one or two loose ends, the other costs little.
    return jnp.where(count != fitting, y, untouched)


def _size(x: Ends | jax.Array) -> int:
  """Height and width of maps."""
  return jax.tree.leaves(x)[0].shape[-2]


def initialise_candidate(
  candidate: Candidate, key: jax.Array, images: jax.Array, cells: jax.Array
) -> dict:
  """Variables distributed as those of the stand-alone network.

  A kernel that reads the loose ends of a cell has their channels as its fan
  in: C times their number, where `parameters.initialise` sees C S channels; so
  has the bias of a classifier that reads them. As there, this is done on the
  host.

  Args:
    candidate: the network.
    key: consumed.
    images: [B, H, W, c]; only the shape matters.
    cells: int32 [2, N, 4].

  Returns:
    The variables, NumPy arrays.
  """
  variables = parameters.initialise(candidate, key, images, cells)
  loose = cnn.unused_states(np.asarray(cells))
  factors = np.sqrt(loose.shape[1] / loose.sum(1)).astype(np.float32)
  readers = _readers(candidate.config, factors)

  def rescale(path, leaf):
    module, name = tuple(part.key for part in path[:-1]), path[-1].key
    reads = name in ("kernel", "bias", "even", "odd", "narrow_conv")
    return leaf * readers[module] if reads and module in readers else leaf

  params = jax.tree.map_with_path(rescale, variables["params"])
  return variables | {"params": params}


def _readers(config: NetworkConfig, factors) -> dict[tuple[str, ...], float]:
  """{path of a module that reads a cell: the factor of that kind of cell}.

  The stem is what calibrations before the first cell's output read.
  """
  of_cell = [factors[int(reduction)] for reduction, _ in config.cells]
  calibrations = {
    (f"cell_{k + 2 - i}", f"calibration_{i}"): factor
    for k, factor in enumerate(of_cell)
    for i in range(2)
  }
  heads = {("auxiliary",): factors[1], ("classifier",): of_cell[-1]}
  return calibrations | heads
