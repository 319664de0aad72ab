"""Functions that take NumPy and JAX arrays give back the kind they were given.

Without it a type checker would not know the kind of what comes back.
"""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)
