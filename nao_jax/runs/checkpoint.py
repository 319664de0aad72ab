"""Saving and resuming pytrees of arrays, on orbax.

orbax writes to a temporary folder and renames it, so a checkpoint is either
complete or absent. A digest of the files detects damage on disk.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from nao_jax.errors import UserError
from nao_jax.runs import paths
from nao_jax.settings import field

# Number of checkpoints to keep: if the newest is damaged, the other is used.
KEEP = 2


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """Intervals at which the state is saved; it is always saved at the end.

  The intervals are checked between calls to the devices: at most 25 training
  steps, an epoch of candidates, or a tenth of a controller's fit.

  Attributes:
    minutes: save when this many minutes have passed since the last save.
    steps: save after this many steps; 0 for no such limit.
  """

  minutes: float = field(10.0, least=0)
  steps: int = field(0, least=0)


DEFAULT = CheckpointConfig()


_EMPTY = " is empty"
# Folder in which orbax puts the arrays, and the file with their digest.
_ARRAYS, _SEAL = "default", "files.sha256"


def save(directory: str | os.PathLike, tree: Any) -> None:
  """Saves a pytree of arrays and numbers; waits until it is on disk."""
  leaves = map(np.asarray, jax.device_get(jax.tree.leaves(tree)))
  arrays = dict(_named(number, leaf) for number, leaf in enumerate(leaves))
  with _manager(directory) as manager:
    number = max(manager.all_steps(), default=0) + 1
    manager.save(number, args=ocp.args.StandardSave(arrays))
    _seal(pathlib.Path(manager.directory, str(number)))


def bytes_on_disk(tree: Any) -> int:
  """Returns the size of all kept checkpoints before compression."""
  # A new checkpoint is written before the oldest is deleted.
  leaves = jax.tree.leaves(tree)
  return (KEEP + 1) * sum(getattr(leaf, "nbytes", 8) for leaf in leaves)


def restore(
  directory: str | os.PathLike,
  template: Any,
  *,
  exact: bool = False,
  earlier: Any = None,
) -> Any:
  """Restores the newest checkpoint that is undamaged.

  Args:
    directory: the directory given to `save`.
    template: a pytree of the same structure.
    exact: whether shapes must equal the template's, too.
    earlier: a pytree of the structure that earlier versions saved, if another.

  Returns:
    The pytree, of NumPy arrays, in one of the two structures; None if nothing
    was saved there.

  Raises:
    UserError: all checkpoints are damaged, or hold something else.
  """
  directory = paths.expanded(directory)
  _refuse_files(directory)
  if not directory.is_dir():
    return None
  with _manager(directory) as manager:
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
      if (leaves := _read(manager, step)) is not None:
        known = [template] if earlier is None else [template, earlier]
        return _unflatten(directory, leaves, known, exact)
  if steps:
    raise UserError(
      f"{directory}: all {len(steps)} checkpoints are damaged; start again in "
      "another `workdir`"
    )
  return None


def _refuse_files(directory: pathlib.Path) -> None:
  """Raises UserError for a file where the folder of checkpoints belongs."""
  inside = directory.glob("[0-9]*") if directory.is_dir() else ()
  for path in (directory, *inside):
    if path.is_file():
      raise UserError(f"{path}: a file where a folder belongs; move it away")


def _named(number: int, leaf: np.ndarray) -> tuple[str, np.ndarray]:
  """Returns the name and the array that are saved for a leaf.

  orbax takes no arrays without elements: their shape is saved instead.
  """
  if leaf.size:
    return f"{number:05d}", leaf
  return f"{number:05d}{_EMPTY}", np.int32(leaf.shape)


def _read(manager, step: int) -> list[np.ndarray] | None:
  """Returns the arrays of a checkpoint; None if it is damaged."""
  try:
    _check_seal(pathlib.Path(manager.directory, str(step)))
    arrays = manager.restore(step, args=ocp.args.StandardRestore())
    arrays = {name: np.asarray(arrays[name]) for name in sorted(arrays)}
  except Exception as error:  # Damaged files raise nearly anything.
    logging.warning("checkpoint %d is damaged: %s", step, error)
    return None
  return [
    np.zeros(array, np.float32) if name.endswith(_EMPTY) else array
    for name, array in arrays.items()
  ]


def _seal(folder: pathlib.Path) -> None:
  """Writes the digest of a checkpoint's files, atomically."""
  temporary = folder / f".{_SEAL}.partial"
  temporary.write_text(_files_digest(folder))
  os.replace(temporary, folder / _SEAL)


def _check_seal(folder: pathlib.Path) -> None:
  """Raises ValueError if the files of a checkpoint have changed.

  orbax notices damage too, but in threads whose tracebacks cannot be caught.
  If a kill prevented the digest from being written, orbax is the only check.
  """
  seal = folder / _SEAL
  text = seal.read_text() if seal.exists() else ""
  if text and text != _files_digest(folder):
    raise ValueError("the files are not those that were saved")


def _files_digest(folder: pathlib.Path) -> str:
  total = hashlib.sha256()
  for path in sorted((folder / _ARRAYS).rglob("*")):
    total.update(f"{path.relative_to(folder)}\n".encode())
    if path.is_file():
      with path.open("rb") as file:
        total.update(hashlib.file_digest(file, "sha256").digest())
  return total.hexdigest()


def _unflatten(directory, leaves: list, templates: list, exact: bool):
  for template in templates:
    expected = jax.tree.leaves(template)
    if [x.ndim for x in leaves] == [np.ndim(x) for x in expected]:
      break
  else:
    raise UserError(
      f"{directory}: holds {len(leaves)} arrays where {len(expected)} of other "
      "ranks belong; it is of another architecture, or of another version of "
      "this program"
    )
  for number, (found, leaf) in enumerate(zip(leaves, expected, strict=True)):
    if exact and found.shape != np.shape(leaf):
      raise UserError(
        f"{directory}: array {number} is {list(found.shape)} where "
        f"{list(np.shape(leaf))} belongs; it is of another architecture"
      )
    if not found.size:  # Only its shape was saved.
      leaves[number] = found.astype(leaf.dtype)
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _manager(directory) -> ocp.CheckpointManager:
  path = paths.expanded(directory).absolute()
  path.mkdir(parents=True, exist_ok=True)
  return ocp.CheckpointManager(
    path,
    options=ocp.CheckpointManagerOptions(
      max_to_keep=KEEP,
      enable_async_checkpointing=False,
      create=False,
      # The process that saves must not wait for other processes.
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
      ),
    ),
  )
