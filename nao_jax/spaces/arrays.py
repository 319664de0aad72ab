"""Type of functions that take NumPy or JAX arrays and return the same kind.

Without it a type checker would not know the kind of the result.
"""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)
