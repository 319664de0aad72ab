"""Environment of a program: precision, devices, main module."""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import functools
import multiprocessing
from typing import ParamSpec, TypeVar

import jax

from nao_jax.errors import UserError, in_a_line

# Exit status of a worker that would repeat the work of the whole program.
IMPORTED = 77

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# Whether 64 bits were enabled where a function in 32 bits was called.
_OUTSIDE: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
  "outside", default=None
)


def leave_if_imported() -> None:
  """Ends a worker process that is importing the script that started it.

  A script that does not check whether it is the main module would start its
  work again in each worker. The process that waits for the worker reports this
  once.
  """
  if getattr(multiprocessing.current_process(), "_inheriting", False):
    raise SystemExit(IMPORTED)


def in_32_bits(
  function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
  """Decorates a function to compute in 32 bits in spite of JAX_ENABLE_X64.

  With 64 bits enabled jax and its libraries draw other random numbers and
  change the types of states, so that a result would depend on a variable that
  another project has set. Nothing changes outside the function. Threads that
  the function starts must be decorated, too.
  """

  @functools.wraps(function)
  def inner(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
    leave_if_imported()
    outside = bool(jax.config.read("jax_enable_x64"))
    token = _OUTSIDE.set(outside) if _OUTSIDE.get() is None else None
    try:
      with jax.enable_x64(False):
        return function(*args, **kwargs)
    finally:
      if token is not None:
        _OUTSIDE.reset(token)

  return inner


@contextlib.contextmanager
def of_the_caller() -> Iterator[None]:
  """Restores the caller's precision, for functions that the user supplied."""
  outside = _OUTSIDE.get()
  with contextlib.nullcontext() if outside is None else jax.enable_x64(outside):
    yield


def local_devices() -> list[jax.Device]:
  """Returns the devices of this process.

  Raises:
    UserError: there are no devices of the kind that JAX_PLATFORMS asks for.
  """
  if message := missing_platform():
    raise UserError(message)
  return jax.local_devices()


def missing_platform() -> str:
  """Describes the platform of JAX_PLATFORMS if it is missing; else empty.

  It initialises the devices, so in a run of several processes they must have
  been connected before.
  """
  try:
    jax.local_devices()
  except (RuntimeError, AssertionError) as error:
    asked = jax.config.jax_platforms
    reason = in_a_line(error).partition(" (set JAX_PLATFORMS")[0]
    # jax raises an assertion without a message if a plugin finds no device.
    why = f" ({reason})" if str(error) else ""
    return (
      f"JAX_PLATFORMS={asked}: jax finds no such device{why}; cpu is always "
      "there: JAX_PLATFORMS=cpu, or unset it to use the best there is"
    )
  return ""
