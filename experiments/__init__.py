"""The drivers: absl flags in, one library call each.

From a checkout `python -m experiments.search_cnn`, for example; each has a
--help. A wheel installs them as `nao_jax.experiments` (the link beside the
library's packages), since users have folders named `experiments` of their own.
"""

from . import guard

if guard.starts_a_driver():
  guard.set_up()
