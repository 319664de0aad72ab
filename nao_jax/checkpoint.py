"""Saving and resuming pytrees of arrays, on orbax.

orbax writes to a temporary folder and renames it, so a checkpoint is there
whole or not at all.
"""

import dataclasses
import os
import pathlib

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from nao_jax.errors import UserError

# How many are kept: if the newest is damaged, the one before serves.
KEEP = 2


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When the state is saved; it is at the end in any case.

  Looked at between calls to the devices, of 25 steps at most.

  Attributes:
    minutes: when this long has passed since the last time.
    steps: or this many steps; 0 for no such limit.
  """

  minutes: float = 10.0
  steps: int = 0


DEFAULT = CheckpointConfig()


def save(directory: str | os.PathLike, step: int, tree) -> None:
  """Writes a pytree of arrays and numbers; waits until it is on disk."""
  leaves = jax.device_get(jax.tree.leaves(tree))
  with _manager(directory) as manager:
    manager.save(
      step,
      args=ocp.args.StandardSave(
        {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
      ),
    )


def restore(directory: str | os.PathLike, template, *, exact: bool = False):
  """The newest checkpoint that is whole.

  Args:
    directory: where `save` wrote.
    template: a pytree of the same structure.
    exact: whether shapes must be the template's, too.

  Returns:
    The pytree, of NumPy arrays; None if nothing was saved there.

  Raises:
    UserError: all checkpoints are damaged, or hold something else.
  """
  if not pathlib.Path(directory).is_dir():
    return None
  with _manager(directory) as manager:
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
      try:
        leaves = manager.restore(step, args=ocp.args.StandardRestore())
      except Exception as error:  # Damaged files raise nearly anything.
        logging.warning("checkpoint %d is damaged: %s", step, error)
        continue
      ordered = [np.asarray(leaves[name]) for name in sorted(leaves)]
      return _unflatten(directory, ordered, template, exact)
  if steps:
    raise UserError(
      f"{directory}: all {len(steps)} checkpoints are damaged; start again in "
      "another --workdir"
    )
  return None


def _unflatten(directory, leaves: list, template, exact: bool):
  expected = jax.tree.leaves(template)
  if [x.ndim for x in leaves] != [np.ndim(x) for x in expected]:
    raise UserError(
      f"{directory}: holds {len(leaves)} arrays where {len(expected)} of other "
      "ranks belong; it is of another architecture, or of another version of "
      "this program"
    )
  for number, (found, wanted) in enumerate(zip(leaves, expected, strict=True)):
    if exact and found.shape != np.shape(wanted):
      raise UserError(
        f"{directory}: array {number} is {list(found.shape)} where "
        f"{list(np.shape(wanted))} belongs; it is of another architecture"
      )
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _manager(directory) -> ocp.CheckpointManager:
  return ocp.CheckpointManager(
    pathlib.Path(directory).absolute(),
    options=ocp.CheckpointManagerOptions(
      max_to_keep=KEEP, enable_async_checkpointing=False
    ),
  )
