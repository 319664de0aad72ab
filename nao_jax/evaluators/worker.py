"""Worker process of a cluster, whose machine may differ from this one.

Shapes: L tokens.
"""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform

import jax
import numpy as np

from nao_jax.evaluators import local
from nao_jax.runs.trials import Trial

# Settings of jax that change numerical results, beside the compiler's flags.
_SETTINGS = (
  "jax_enable_x64",
  "jax_default_matmul_precision",
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
  "jax_disable_most_optimizations",
)


class Worker:
  """Process of the cluster that trains one candidate after the other."""

  def __init__(self, candidates: local.Candidates):
    self._candidates = candidates

  def prepare(self, conditions: dict) -> str:
    """Applies the settings that change numerical results.

    Args:
      conditions: from the function `conditions` in the driver's process.

    Returns:
      A description of versions that differ; empty if none do.
    """
    own = _code()
    differences = [
      f"{name} is {own.get(name)} on {platform.node()} and {there} here"
      for name, there in conditions["code"].items()
      if own.get(name) != there
    ]
    if differences:
      return f"{', '.join(differences)}; install the same there"
    # jax has not read the environment yet, as no device was used.
    os.environ.pop("XLA_FLAGS", None)
    os.environ.update(conditions["environment"])
    for name, value in conditions["settings"].items():
      jax.config.update(name, value)
    folder = conditions["programs"]
    if folder and os.path.isdir(folder):
      jax.config.update("jax_compilation_cache_dir", folder)
    return ""

  def train(self, tokens: np.ndarray, limits: np.ndarray) -> Trial:
    """Trains one candidate to the end; see `local.train`."""
    return local.train(self._candidates, tokens, limits)


def conditions(gpus: float) -> dict:
  """Returns the settings that make a worker compute the same numbers.

  Args:
    gpus: GPUs that the worker takes; a fraction leaves memory to others.
  """
  environment = {}
  if "XLA_FLAGS" in os.environ:
    environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"]
  if 0 < gpus < 1:
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
  return {
    "code": _code(),
    "environment": environment,
    "settings": {name: _setting(name) for name in _SETTINGS},
    "programs": jax.config.jax_compilation_cache_dir,
  }


def _setting(name: str) -> object:
  """Returns a setting of jax: the value of this thread, if it has one."""
  # Settings that all threads share are not attributes.
  return getattr(jax.config, name, jax.config.values[name])


@functools.cache
def _code() -> dict[str, str]:
  """Returns the versions of numerical packages and a digest of this source."""
  root = pathlib.Path(__file__).parents[1]
  source = hashlib.sha256()
  for file in sorted(root.rglob("*.py")):
    source.update(file.read_bytes())
  names = ("jax", "jaxlib", "numpy", "flax", "optax")
  return {name: importlib.metadata.version(name) for name in names} | {
    "nao_jax's source": source.hexdigest()[:12]
  }
