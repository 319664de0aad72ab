"""Runs drivers as processes."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

# When garbage is collected. Tracing makes many objects and no cycles to speak
# of; with Python's own threshold a quarter of its time went there.
RARELY = 50_000, 20, 20

# The compiler's emitters of fusions take a third of the time for networks and
# more for small programs. Later ones have no others, and refuse the flag.
_WITHOUT_EMITTERS = (
  ["--xla_cpu_use_fusion_emitters=false"]
  if importlib.metadata.version("jaxlib").startswith("0.10.")
  else []
)


def compile_fast(devices: int = 4) -> None:
  """Sets the environment of this process and of those it starts.

  jax reads it once, when it starts.

  Args:
    devices: that the processor poses as.
  """
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = " ".join(
    [
      os.environ.get("XLA_FLAGS", ""),
      f"--xla_force_host_platform_device_count={devices}",
      # Most of the time goes to compiling.
      "--xla_backend_optimization_level=0",
      "--xla_cpu_parallel_codegen_split_count=1",
      *_WITHOUT_EMITTERS,
    ]
  )
  # What one process compiles, the next one reads.
  cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def start(
  driver: str, workdir, flags: dict, *, short: bool = True
) -> subprocess.Popen:
  """Starts `experiments.DRIVER` in a directory.

  Args:
    driver: its name.
    workdir: where its run goes.
    flags: the others.
    short: have all networks be of two cells, and compile with the fewest
      optimisations; workers elsewhere know of neither, and round differently.
  """
  given = flags | {"workdir": workdir}
  program = (
    ["tests.short_driver", driver] if short else [f"experiments.{driver}"]
  )
  return subprocess.Popen(
    [sys.executable, "-m", *program]
    + [f"--{name}={value}" for name, value in given.items()],
    env=os.environ | ({"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if short else {}),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen) -> tuple[str, str]:
  """Standard output and error of a process that must end well."""
  output, errors = process.communicate()
  assert process.returncode == 0, errors
  return output, errors
