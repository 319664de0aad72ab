"""What runs in a worker process of a cluster, which need not be like this one.

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

# What decides the numbers, beside the flags of the compiler.
_SETTINGS = (
  "jax_enable_x64",
  "jax_default_matmul_precision",
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
  "jax_disable_most_optimizations",
)


class Worker:
  """A process of the cluster that trains one candidate after the other."""

  def __init__(self, candidates: local.Candidates):
    self._candidates = candidates

  def prepare(self, conditions: dict) -> str:
    """Takes over what decides the numbers; says what differs."""
    own = _code()
    differences = [
      f"{name} is {own.get(name)} on {platform.node()} and {there} here"
      for name, there in conditions["code"].items()
      if own.get(name) != there
    ]
    if differences:
      return f"{', '.join(differences)}; install the same there"
    # jax has read nothing of it yet, as no device was asked for.
    os.environ.pop("XLA_FLAGS", None)
    os.environ.update(conditions["environment"])
    for name, value in conditions["settings"].items():
      jax.config.update(name, value)
    folder = conditions["programs"]
    if folder and os.path.isdir(folder):
      jax.config.update("jax_compilation_cache_dir", folder)
    return ""

  def train(self, tokens: np.ndarray, limits: np.ndarray) -> Trial:
    """A whole training."""
    return local.train(self._candidates, tokens, limits)


def conditions(gpus: float) -> dict:
  """What a worker needs to give the numbers of this process.

  Args:
    gpus: that it takes; below 1 it must leave memory to others.
  """
  environment = {}
  if "XLA_FLAGS" in os.environ:
    environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"]
  if 0 < gpus < 1:
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
  return {
    "code": _code(),
    "environment": environment,
    "settings": {name: jax.config.read(name) for name in _SETTINGS},
    "programs": jax.config.jax_compilation_cache_dir,
  }


@functools.cache
def _code() -> dict[str, str]:
  """Versions of what computes, and a digest of this project's source."""
  root = pathlib.Path(__file__).parents[1]
  source = hashlib.sha256()
  for file in sorted(root.rglob("*.py")):
    source.update(file.read_bytes())
  names = ("jax", "jaxlib", "numpy", "flax", "optax")
  return {name: importlib.metadata.version(name) for name in names} | {
    "nao_jax's source": source.hexdigest()[:12]
  }
