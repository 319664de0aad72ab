"""Sets up jax and hypothesis before any test module is imported."""

import collections
import gc
import os

from hypothesis import settings
import pytest

from tests import drivers

# Some tests send signals.
drivers.heed_signals()

gc.set_threshold(*drivers.RARELY)

# Four devices, so that code for many can be tested.
drivers.compile_fast(devices=4)

# No clocks, as compiling takes its time, and the same examples in every run.
settings.register_profile(
  "nao_jax", deadline=None, derandomize=True, max_examples=50
)
settings.load_profile("nao_jax")


def pytest_configure(config):
  # The process that hands out tests runs none: it need not import the library.
  if not config.getoption("numprocesses", None):
    config.pluginmanager.import_plugin("tests.report_searches")
  # A run that was killed, or one at the same time, leaves an entry half
  # written; jax then says so and compiles.
  config.addinivalue_line(
    "filterwarnings",
    "ignore:Error (reading|writing) persistent compilation cache:UserWarning",
  )


def pytest_collection_modifyitems(items):
  # Those that start processes take longest: one that begins last would have
  # the other workers wait for it.
  first = ("soak_test.py", "remote_test.py", "processes_test.py")
  items.sort(key=lambda item: item.path.name not in first)


@pytest.fixture
def reference_folder() -> str:
  """The folder of reference cases; a test that needs it may be skipped."""
  return _folder("NAO_JAX_REFERENCE")


@pytest.fixture
def data_folder() -> str:
  """The folder of cifar10_jpeg.npz; a test that needs it may be skipped."""
  return _folder("NAO_JAX_DATA")


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
  """The folder in which a few digits are prepared; nothing is written there."""
  from tests import tiny_images

  return tiny_images.few_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """A folder for all tests of a module."""
  return tmp_path_factory.mktemp("home")


def _folder(variable: str) -> str:
  folder = os.environ.get(variable)
  if not folder:
    pytest.skip(f"{variable} is not set")
  return folder


@pytest.fixture(scope="module", autouse=True)
def kept_programs():
  """Keeps what searches compile until the end of a module.

  A search drops it, and the next one of the module would trace all of it again.
  """
  import jax

  dropped = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "clear_caches", lambda: dropped.append(True))
    yield
  if dropped:
    jax.clear_caches()


@pytest.fixture(scope="module")
def double_precision():
  """Computes in 64 bits."""
  import jax

  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module")
def traces() -> collections.Counter:
  """Counts how often each of a module's programs was traced."""
  return collections.Counter()
