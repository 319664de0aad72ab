"""A driver whose networks have two cells: most of its time is compiling.

python -m tests.short_driver search_cnn [flags]
"""

import runpy
import sys

from nao_jax.networks.macro import NetworkConfig
from tests.short_networks import TWO_CELLS

if __name__ == "__main__":
  NetworkConfig.cells = TWO_CELLS
  del sys.argv[0]
  try:
    runpy.run_module(f"experiments.{sys.argv[0]}", run_name="__main__")
  finally:
    # Not even by a library.
    assert "tensorflow" not in sys.modules
