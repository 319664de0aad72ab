"""The weight-sharing supernet: every architecture of a space in one program.

The architecture is an int32 argument, so the program is traced and compiled
once for all. Weights are separate for each (cell, node, branch, op, input), as
in the official code; a pair of branch and input is called an edge here.
BatchNorm always uses the batch's statistics: running ones would mix
architectures.

Shapes: B images, N nodes, E = 2 N branches, S = N + 2 states.
"""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import normalisation, ops
from nao_jax.networks.macro import Calibration, NetworkConfig, Outputs, classify
from nao_jax.networks.parameters import declare
from nao_jax.networks.tape import combine, run_cell
from nao_jax.spaces import cnn


class Supernet(nn.Module):
  """A classifier whose cells are an argument of the call.

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
  ) -> Outputs:
    """Runs one architecture on one batch.

    Args:
      images: float32 [B, H, W, 3].
      cells: int32 [2, N, 4], normal and reduction cell.
      masks: float32 [cells of the network, E, B], drop-path factors, or None.
      deterministic: whether to omit dropout; otherwise the rng `dropout` is
        required.

    Returns:
      logits [B, classes], and those of the auxiliary head or None.
    """
    config = self.config

    def cell(k, previous, current, masks):
      reduction, width = config.cells[k]
      module = Cell(
        config.ops, width, reduction, self.axis_name, name=f"cell_{k}"
      )
      return module(previous, current, cells[int(reduction)], masks)

    return classify(self, cell, images, masks, deterministic)


class Cell(nn.Module):
  """One cell of the supernet.

  Attributes:
    ops: the name of the op set.
    width: C, the width of every state and of the output.
    reduction: whether the branches that read an input have stride 2.
    axis_name: see `Supernet`.
  """

  ops: str
  width: int
  reduction: bool
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    previous: jax.Array,
    current: jax.Array,
    rows: jax.Array,
    masks: jax.Array | None,
  ) -> jax.Array:
    """Takes inputs [C', H', W', B], rows int32 [N, 4]; returns [C, H, W, B]."""
    inputs = jnp.stack(
      [
        Calibration(
          self.width, current.shape[1], self.axis_name, name=f"calibration_{i}"
        )(x)
        for i, x in enumerate((previous, current))
      ]
    )
    names = cnn.OP_SETS[self.ops]
    weights = self._weights(rows[:, ::2].reshape(-1))
    states, _ = run_cell(
      self._operations,
      inputs,
      self._reduce(inputs) if self.reduction else None,
      lambda stride: ops.at_stride(weights, names, self.width, stride),
      (),
      masks,
      rows,
    )
    return self._combine(states, cnn.unused_states(rows))

  def _weights(self, source):
    """Gathers {leaf: [E, ...]} of each op from the banks of all edges."""
    branches = len(source)
    sources = _sources(branches)
    edges = (np.cumsum(sources) - sources) + source
    banks = {
      op: declare(self, op, ops.shapes(op, self.width, 1), (sum(sources),))
      for op in cnn.OP_SETS[self.ops]
    }
    weights = _rows(banks, edges)
    if self.reduction:
      # A strided identity has weights; only the two inputs are read at stride
      # 2.
      shapes = ops.shapes("identity", self.width, 2)
      bank = declare(self, "identity", shapes, (2 * branches,))
      edges = 2 * np.arange(branches) + jnp.minimum(source, 1)
      weights["identity"] = _rows(bank, edges)
    return weights

  def _operations(self, stride: int):
    return tuple(
      _Operation(op, stride, self.axis_name) for op in cnn.OP_SETS[self.ops]
    )

  def _reduce(self, inputs):
    """Reduces the inputs of a reduction cell, for use as loose ends."""
    shapes = ops.factorized_reduction_shapes(self.width, self.width)
    weights = declare(self, "loose_input", shapes, (2,))
    return jnp.stack(
      [
        ops.factorized_reduction(
          x, jax.tree.map(lambda w, i=i: w[i], weights), self.axis_name
        )
        for i, x in enumerate(inputs)
      ]
    )

  def _combine(self, states, loose):
    width = (self.width,)
    shapes = {"kernel": 2 * width}
    kernels = declare(self, "output", shapes, (len(states),))["kernel"]
    w = declare(self, "output", {"scale": width, "offset": width})
    x = combine(states, kernels, loose)
    return normalisation.batch_norm(x, w["scale"], w["offset"], self.axis_name)


@dataclasses.dataclass(frozen=True)
class _Operation:
  """`ops.apply` with the signature that the tape needs; equal by value."""

  op: str
  stride: int
  axis_name: str | None

  def __call__(self, x, weights, memory):
    y = ops.apply(
      self.op, x, weights, stride=self.stride, axis_name=self.axis_name
    )
    return y, memory


# Jitted, so that equal cells of a network share one trace.
@jax.jit
def _rows(banks, at):
  """Returns the rows `at` of every leaf."""
  return jax.tree.map(lambda bank: bank[at], banks)


def _sources(branches: int) -> np.ndarray:
  """Returns how many states each branch can read: 2, 2, 3, 3, 4, 4, .."""
  return 2 + np.arange(branches) // 2
