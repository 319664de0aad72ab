"""Neural Architecture Optimization (Luo et al., NeurIPS 2018) in JAX.

`import nao_jax` is enough: a module loads when it is first named, such as
`nao_jax.search.loop.run` or `nao_jax.spaces.slots.space`. Until then the import
takes no time, and no import touches a device.
"""

import importlib
from typing import TYPE_CHECKING, Any
import warnings

from nao_jax import lazy

if TYPE_CHECKING:
  from nao_jax import (
    controller,
    data,
    distributed,
    drawing,
    errors,
    evaluators,
    metrics,
    networks,
    objectives,
    parallel,
    pool,
    report,
    runs,
    search,
    settings,
    spaces,
    strategies,
    studies,
    tasks,
    training,
  )

# Semantic versioning (semver.org) of what `__all__` names and its documented
# members. setup.cfg reads it here.
__version__ = "0.2.0.dev0"

__all__ = [
  "controller",
  "data",
  "distributed",
  "drawing",
  "errors",
  "evaluators",
  "metrics",
  "networks",
  "objectives",
  "parallel",
  "pool",
  "report",
  "runs",
  "search",
  "settings",
  "spaces",
  "strategies",
  "studies",
  "tasks",
  "training",
]

# Names of modules in 0.1, which still work from here.
_MOVED = {
  "cnn_costs": "tasks.image_costs",
  "cnn_search": "tasks.image_search",
  "cnn_training": "tasks.image_training",
  "cnn_use": "tasks.image_inference",
  "comparison": "studies.comparison",
  "controller_study": "studies.controller_study",
  "journal": "search.journal",
  "measures": "metrics",
  "outcome": "search.finals",
  "pool_file": "search.pool_file",
  "presets": "tasks.image_presets",
  "recipes": "tasks.image_recipes",
  "rnn_presets": "tasks.text_presets",
  "rnn_search": "tasks.text_search",
  "rnn_training": "tasks.text_training",
  "search_state": "search.state",
}

_load, __dir__ = lazy.submodules(__name__, __path__)


def __getattr__(name: str) -> Any:
  """Loads a module when it is first named."""
  if name not in _MOVED:
    return _load(name)
  new = f"{__name__}.{_MOVED[name]}"
  warnings.warn(
    f"nao_jax.{name} is now {new}", DeprecationWarning, stacklevel=2
  )
  return importlib.import_module(new)
