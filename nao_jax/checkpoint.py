"""Saving and resuming pytrees of arrays, on orbax.

orbax writes to a temporary folder and renames it, so a checkpoint is there
whole or not at all.
"""

import os
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

# How many checkpoints are kept: the newest may turn out to be damaged.
KEEP = 2


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


def restore(directory: str | os.PathLike, template):
  """The newest checkpoint.

  Args:
    directory: where `save` wrote.
    template: a pytree of the same structure; shapes may differ.

  Returns:
    The pytree, of NumPy arrays; None if nothing was saved there.
  """
  if not pathlib.Path(directory).is_dir():
    return None
  with _manager(directory) as manager:
    step = manager.latest_step()
    if step is None:
      return None
    leaves = manager.restore(step, args=ocp.args.StandardRestore())
  ordered = [np.asarray(leaves[name]) for name in sorted(leaves)]
  return jax.tree.unflatten(jax.tree.structure(template), ordered)


def _manager(directory) -> ocp.CheckpointManager:
  return ocp.CheckpointManager(
    pathlib.Path(directory).absolute(),
    options=ocp.CheckpointManagerOptions(
      max_to_keep=KEEP, enable_async_checkpointing=False
    ),
  )
