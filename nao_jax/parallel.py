"""Many devices: the only file that says pmap.

Functions take `axis_name: str | None`; with a name they average over the
devices, without one they run alone. `pmap` is in maintenance mode; the day it
goes, this file changes.
"""

from collections.abc import Callable

import jax
from jax import lax
import numpy as np

from nao_jax.errors import UserError

AXIS = "devices"


def spread(
  function: Callable,
  in_axes,
  out_axes=0,
  *,
  devices: int | None = None,
  donate: tuple[int, ...] = (),
) -> Callable:
  """Compiles a function for every local device.

  Args:
    function: takes and returns pytrees; collectives name the axis `AXIS`.
    in_axes: for each argument the axis whose slices go to the devices, or
      None for an argument that all see whole. Place such arguments with
      `replicate` if they stay from call to call.
    out_axes: for each result the axis along which the devices' parts are
      stacked, or None for a result that is equal on all (the caller's promise:
      average it first).
    devices: how many to use; all local ones by default.
    donate: numbers of the arguments whose memory the results may take.
  """
  return jax.pmap(
    function,
    axis_name=AXIS,
    in_axes=in_axes,
    out_axes=out_axes,
    devices=_devices(devices),
    donate_argnums=donate,
  )


def check(devices: int | None, flag: str = "--devices") -> None:
  """Raises UserError if there are fewer local devices than that."""
  if devices is not None and not 1 <= devices <= count():
    raise UserError(f"{flag}={devices}: allowed: 1 to {count()}")


def count(devices: int | None = None) -> int:
  """How many devices `spread` uses."""
  return len(_devices(devices))


def replicate(tree, *, devices: int | None = None):
  """Puts a pytree on every device, as `spread` gives it back.

  A first state that is placed otherwise makes the second call compile again.
  """
  return jax.device_put(tree, _sharding(devices))


def distribute(tree, *, devices: int | None = None):
  """Puts each slice along the first axis on its device, as `spread` does."""
  return jax.device_put(tree, _sharding(devices, AXIS))


def _sharding(devices, *axes: str) -> jax.sharding.NamedSharding:
  mesh = jax.sharding.Mesh(np.array(_devices(devices)), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def mean(tree, axis_name: str | None):
  """The average over the devices of a mapped axis; without one, the tree."""
  return tree if axis_name is None else lax.pmean(tree, axis_name)


def total(tree, axis_name: str | None):
  """The sum over the devices of a mapped axis; without one, the tree."""
  return tree if axis_name is None else lax.psum(tree, axis_name)


def size(axis_name: str | None) -> int:
  """The devices along a mapped axis; without one, 1."""
  return 1 if axis_name is None else lax.axis_size(axis_name)


def own_part(x: jax.Array, axis: int, axis_name: str | None) -> jax.Array:
  """This device's slice of an array that all devices hold whole.

  Random numbers are drawn for the whole batch on every device and cut here,
  so they do not depend on the number of devices.
  """
  if axis_name is None:
    return x
  part = x.shape[axis] // size(axis_name)
  start = lax.axis_index(axis_name) * part
  return lax.dynamic_slice_in_dim(x, start, part, axis)


def _devices(number: int | None) -> list[jax.Device]:
  return jax.local_devices()[:number]
