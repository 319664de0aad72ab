"""The network of one architecture, specialised to it.

The architecture is part of the program: only the operations that it uses exist,
and each architecture is compiled separately. That pays off for a long training;
to score many architectures, use the supernet.

Unlike in the supernet, the output of a cell is the plain concatenation of its
loose ends, so its width is C times their number; strided identities and pools
are the same as in the supernet. BatchNorm keeps running statistics for
evaluation.

Shapes: B images, N nodes, E = 2 N branches.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import ops
from nao_jax.networks.macro import (
  Calibration,
  NetworkConfig,
  Outputs,
  classify,
  shrink_input,
)
from nao_jax.networks.parameters import Statistics, declare, normaliser
from nao_jax.spaces import cnn


class StandAlone(nn.Module):
  """A classifier built from one normal and one reduction cell.

  Attributes:
    config: the sizes.
    tokens: the architecture, 8 N tokens; a tuple of int, to be hashable.
    axis_name: the mapped axis over which BatchNorm takes its statistics, also
      the running ones, which are therefore equal on all devices.
  """

  config: NetworkConfig
  tokens: tuple[int, ...]
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    masks: jax.Array | None = None,
    deterministic: bool = True,
  ) -> Outputs:
    """Classifies one batch.

    Args:
      images: float32 [B, H, W, c].
      masks: float32 [cells of the network, E, B], drop-path factors, or None.
      deterministic: True for evaluation: BatchNorm uses the running statistics,
        and there is no dropout. False for training: BatchNorm uses the batch's
        statistics, the collection `batch_stats` must be mutable, and the rng
        `dropout` is required if there is dropout.

    Returns:
      logits [B, classes], and those of the auxiliary head or None.
    """
    config = self.config
    statistics = "running" if deterministic else "tracked"
    cells = cnn.to_cells(np.asarray(self.tokens)).tolist()

    def cell(k, previous, current, masks):
      reduction, width = config.cells[k]
      rows = tuple(map(tuple, cells[int(reduction)]))
      module = Cell(
        config.ops,
        rows,
        width,
        reduction,
        self.axis_name,
        statistics,
        name=f"cell_{k}",
      )
      return module(previous, current, masks)

    return classify(
      self, cell, images, masks, deterministic, statistics=statistics
    )


class Cell(nn.Module):
  """One cell of the network.

  Attributes:
    ops: the name of the op set.
    rows: the cell's N nodes, each `(input_a, op_a, input_b, op_b)`.
    width: C, the width of every state.
    reduction: whether the branches that read an input have stride 2.
    axis_name: see `StandAlone`.
    statistics: the statistics that BatchNorm normalises by.
  """

  ops: str
  rows: tuple[tuple[int, int, int, int], ...]
  width: int
  reduction: bool
  axis_name: str | None = None
  statistics: Statistics = "batch"

  @nn.compact
  def __call__(
    self, previous: jax.Array, current: jax.Array, masks: jax.Array | None
  ) -> jax.Array:
    """Takes inputs [C', H', W', B]; returns [C * loose ends, H, W, B]."""
    states = [
      Calibration(
        self.width,
        current.shape[1],
        self.axis_name,
        self.statistics,
        name=f"calibration_{i}",
      )(x)
      for i, x in enumerate((previous, current))
    ]
    for node, (input_a, op_a, input_b, op_b) in enumerate(self.rows):
      a = self._branch(2 * node, states, input_a, op_a, masks)
      b = self._branch(2 * node + 1, states, input_b, op_b, masks)
      states.append(a + b)
    loose = np.flatnonzero(cnn.unused_states(np.array(self.rows)))
    return jnp.concatenate([self._loose_end(i, states[i]) for i in loose])

  def _branch(self, branch: int, states, source: int, op: int, masks):
    name, stride = f"branch_{branch}", 1 + (self.reduction and source < 2)
    op_name = cnn.OP_SETS[self.ops][op]
    y = ops.apply(
      op_name,
      states[source],
      declare(self, name, ops.shapes(op_name, self.width, stride)),
      stride=stride,
      axis_name=self.axis_name,
      norm=normaliser(self, name),
    )
    return y if masks is None else y * masks[branch]

  def _loose_end(self, state: int, x) -> jax.Array:
    """Returns a state for the output; a reduction cell's inputs are reduced."""
    if not self.reduction or state >= 2:
      return x
    return shrink_input(self, state, x)
