"""Computation on many devices: the only module that names `pmap`.

Functions take `axis_name: str | None`; with a name they average over the
devices, without one they run on a single device. `pmap` is in maintenance mode;
if it is removed, only this file changes.

Devices are those of all processes (see distributed/processes.py), in the order
of the processes; every process has the same number of them, calls the same
functions, and has the data of its own devices. A single process has all data.

Shapes: D devices.
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
from typing import Any, TypeVar

import jax
from jax import lax
from jax.experimental import multihost_utils
import numpy as np

from nao_jax.errors import UserError, in_a_line
from nao_jax.runs import environment

AXIS = "devices"

# Largest part of an error message, in bytes, that is sent to other processes.
_MESSAGE_BYTES = 2000
_Element = TypeVar("_Element")

_ALONE = contextvars.ContextVar("alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
  """Limits devices to those of this process, within the context."""
  token = _ALONE.set(True)
  try:
    yield
  finally:
    _ALONE.reset(token)


def _processes() -> int:
  return 1 if _ALONE.get() else jax.process_count()


def spread(
  function: Callable,
  in_axes: Any,
  out_axes: Any = 0,
  *,
  devices: int | None = None,
  donate: tuple[int, ...] = (),
) -> Callable:
  """Compiles a function for every device.

  Args:
    function: takes and returns pytrees; collectives name the axis `AXIS`.
    in_axes: for each argument the axis whose slices go to the devices, or None
      for an argument that all devices get whole. Place such arguments with
      `replicate` if they stay the same from call to call. A process passes the
      slices of its own devices, see `own_rows`.
    out_axes: for each result the axis along which the devices' parts are
      stacked, or None for a result that is equal on all devices (the caller
      must ensure this: average it first). A process gets the parts of its own
      devices, see `gather`.
    devices: number of devices of each process to use; all by default.
    donate: indices of the arguments whose memory the results may reuse.
  """
  return jax.pmap(
    function,
    axis_name=AXIS,
    in_axes=in_axes,
    out_axes=out_axes,
    devices=_all(devices),
    donate_argnums=donate,
  )


def check(devices: int | None, where: str = "devices") -> None:
  """Raises UserError if a process has fewer devices than `devices`."""
  most = len(environment.local_devices())
  if devices is not None and not 1 <= devices <= most:
    raise UserError(f"`{where}={devices}`: allowed: 1 to {most}")


def check_batch(
  batch: int, devices: int | None, where: str = "train.batch"
) -> None:
  """Raises UserError if the devices cannot share a batch evenly.

  Args:
    batch: examples or streams of a step.
    devices: see `spread`.
    where: the setting that gave the batch, for the message.
  """
  parts = count(devices)
  if batch % parts:
    raise UserError(
      f"`{where}={batch}`: {parts} devices share a batch evenly; give a "
      f"multiple of {parts}, or `devices`"
    )


def count(devices: int | None = None) -> int:
  """Returns the number of devices that `spread` uses, over all processes."""
  return len(_all(devices))


def replicate(tree: Any, *, devices: int | None = None) -> Any:
  """Puts a pytree on every device of this process, as `spread` returns it.

  An initial state with another placement makes the second call compile again.
  """
  return jax.device_put(tree, _sharding(devices))


def distribute(tree: Any, *, devices: int | None = None) -> Any:
  """Puts each slice along the first axis on its device, as `spread` does.

  Args:
    tree: arrays [D, ...], the same in all processes.
    devices: see `spread`.
  """
  own = jax.tree.map(lambda x: own_rows(x, devices=devices), tree)
  return jax.device_put(own, _sharding(devices, AXIS))


def own_rows(rows: Any, axis: int = 0, *, devices: int | None = None) -> Any:
  """Returns this process's slices of an array that is split over the devices.

  Args:
    rows: an array with D rows along the axis, the same in all processes.
    axis: the index of that axis.
    devices: see `spread`.
  """
  if _processes() == 1:
    return rows
  own = len(local(devices))
  first = jax.process_index() * own
  return rows[(slice(None),) * axis + (slice(first, first + own),)]


def gather(rows: Any) -> Any:
  """Returns the rows of all processes: the inverse of `own_rows`, first axis.

  All processes must call it.
  """
  if _processes() == 1:
    return rows
  return multihost_utils.process_allgather(np.asarray(rows), tiled=True)


def together(own: Iterator[_Element]) -> Iterator[_Element]:
  """Yields the elements of each process's own iterator; if one fails, all fail.

  Otherwise the other processes would wait in their next step for the one that
  failed. All processes must take the same number of elements. Each element
  costs a gather of one byte.

  Args:
    own: the iterator of this process.

  Raises:
    UserError: if the iterator of another process failed.
    Exception: in this process, the exception of its own iterator.
  """
  if _processes() == 1:
    yield from own
    return
  ended = object()
  while True:
    element, error = None, None
    try:
      element = next(own, ended)
    except Exception as failure:
      error = failure
    if gather(np.array([error is not None])).any():
      verdict = _failed(error)
      raise error or UserError(verdict)
    if element is ended:
      return
    yield element


def _failed(error: Exception | None) -> str:
  """Returns the error of the first failed process; a call of all processes."""
  message = "" if error is None else in_a_line(error)
  content = np.zeros((1, _MESSAGE_BYTES), np.uint8)
  encoded = np.frombuffer(message.encode()[:_MESSAGE_BYTES], np.uint8)
  content[0, : len(encoded)] = encoded
  messages = gather(content)
  number = int(messages.any(1).argmax())
  text = messages[number].tobytes().rstrip(b"\0").decode(errors="ignore")
  return f"process {number} cannot go on: {text}"


def of_first(number: int) -> int:
  """Returns the first process's `number`; all processes must call it."""
  if _processes() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _sharding(devices, *axes: str) -> jax.sharding.NamedSharding:
  mesh = jax.sharding.Mesh(np.array(local(devices)), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def mean(tree: Any, axis_name: str | None) -> Any:
  """Returns the mean over devices of a mapped axis; the tree without one."""
  return tree if axis_name is None else lax.pmean(tree, axis_name)


def total(tree: Any, axis_name: str | None) -> Any:
  """Returns the sum over the devices of a mapped axis; the tree without one."""
  return tree if axis_name is None else lax.psum(tree, axis_name)


def size(axis_name: str | None) -> int:
  """Returns the number of devices along a mapped axis; without one, 1."""
  return 1 if axis_name is None else lax.axis_size(axis_name)


def own_part(x: jax.Array, axis: int, axis_name: str | None) -> jax.Array:
  """Returns this device's slice of an array that all devices hold whole.

  Random numbers are drawn for the whole batch on every device and sliced here,
  so they do not depend on the number of devices.
  """
  if axis_name is None:
    return x
  part = x.shape[axis] // size(axis_name)
  start = lax.axis_index(axis_name) * part
  return lax.dynamic_slice_in_dim(x, start, part, axis)


def local(number: int | None = None) -> list[jax.Device]:
  """Returns those devices of this process that `spread` uses."""
  return environment.local_devices()[:number]


def _all(number: int | None) -> list[jax.Device]:
  if _processes() == 1:
    return local(number)
  return [
    device
    for process in range(_processes())
    for device in jax.local_devices(process)[:number]
  ]
