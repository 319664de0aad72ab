"""Counts of the programs that jax traces and compiles anew."""

import collections
from collections.abc import Iterator
import contextlib

import jax

# A program from the compilation cache is lowered too.
_EVENTS = {
  "/jax/core/compile/jaxpr_trace_duration": "trace",
  "/jax/core/compile/jaxpr_to_mlir_module_duration": "compile",
}


@contextlib.contextmanager
def programs() -> Iterator[collections.Counter]:
  """Counts, while it is entered, {"trace NAME" or "compile NAME": times}."""
  found = collections.Counter()

  def listen(event, seconds, *, fun_name="", **_):
    del seconds
    if event in _EVENTS:
      found[f"{_EVENTS[event]} {fun_name}"] += 1

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
