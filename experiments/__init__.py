"""Drivers, each of which turns absl flags into one library call.

From a checkout, run for example `python -m experiments.search_cnn`; each driver
has a --help. A wheel installs them as `nao_jax.experiments` (the link beside
the library's packages), since users may have folders named `experiments` of
their own.
"""

from . import guard

if guard.starts_a_driver():
  guard.set_up()
