"""Time that jax spends compiling, as jax reports it."""

import threading

import jax

# Events of jax.monitoring from a traced function to a program. Tracing is left
# out: functions are traced inside others, so its times contain each other.
_EVENTS = (
  "/jax/core/compile/jaxpr_to_mlir_module_duration",
  "/jax/core/compile/backend_compile_duration",
)


class CompileTime:
  """Context manager that adds up the compile time of this process.

  Attributes:
    seconds: the sum so far, over all threads.
  """

  def __init__(self):
    self.seconds = 0.0
    self._lock = threading.Lock()

  def __enter__(self) -> "CompileTime":
    jax.monitoring.register_event_duration_secs_listener(self._add)
    return self

  def __exit__(self, *_) -> None:
    jax.monitoring.unregister_event_duration_listener(self._add)

  def _add(self, event: str, seconds: float, **_) -> None:
    if event in _EVENTS:
      with self._lock:
        self.seconds += seconds
