"""Type variable of functions from NumPy to NumPy, or from JAX to JAX arrays."""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)
