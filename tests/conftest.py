"""Sets up jax and hypothesis before any test module is imported."""

import os
import pathlib

from hypothesis import settings
import pytest

# Four devices on one processor, so that code for many devices can be tested;
# and quick compiling, which is what most of the tests' time goes to. jax reads
# these once, when it starts. Subprocesses inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=4",
    "--xla_backend_optimization_level=0",
  ]
)

# What one run compiles, the next one reads: most of the tests' time.
_CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# No clocks, as compiling takes its time, and the same examples in every run.
settings.register_profile(
  "nao_jax", deadline=None, derandomize=True, max_examples=50
)
settings.load_profile("nao_jax")


def pytest_configure(config):
  # A run that was killed, or one at the same time, leaves an entry half
  # written; jax then says so and compiles.
  config.addinivalue_line(
    "filterwarnings",
    "ignore:Error (reading|writing) persistent compilation cache:UserWarning",
  )


@pytest.fixture
def reference_folder() -> str:
  """The folder of reference cases; a test that needs it may be skipped."""
  return _folder("NAO_JAX_REFERENCE")


@pytest.fixture
def data_folder() -> str:
  """The folder of cifar10_jpeg.npz; a test that needs it may be skipped."""
  return _folder("NAO_JAX_DATA")


def _folder(variable: str) -> str:
  folder = os.environ.get(variable)
  if not folder:
    pytest.skip(f"{variable} is not set")
  return folder
