"""Neural Architecture Optimization (Luo et al., NeurIPS 2018) in JAX.

`import nao_jax` is enough: a module loads when it is first named, such as
`nao_jax.search.loop.run` or `nao_jax.spaces.slots.space`. Until then the import
takes no time, and no import touches a device.
"""

from typing import TYPE_CHECKING

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

__getattr__, __dir__ = lazy.submodules(__name__, __path__)
