"""The split of a training part into training and validation examples."""

import numpy as np

from nao_jax.errors import UserError
from nao_jax.settings import LAST_SEED


def split(
  count: int, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Splits examples at random.

  Images in memory and streamed images get the same split.

  Args:
    count: number of examples.
    fraction: share of the examples to hold out, from 0 to below 1; see `check`.
    seed: seed of the split; see `check`.

  Returns:
    Indices of the examples to train with, and of those held out, both
    ascending.

  Raises:
    UserError: no example is left to train with, or a fraction above 0 holds out
      none.
  """
  held_out = round(fraction * count)
  if fraction and not held_out:
    raise UserError(
      f"`validation_fraction={fraction}`: holds out none of {count} examples; "
      "give more, or 0"
    )
  if held_out == count:
    raise UserError(
      f"`validation_fraction={fraction}`: leaves none of {count} examples to "
      "train with"
    )
  # NumPy's policy freezes RandomState's stream, but not Generator's.
  order = np.random.RandomState(seed).permutation(count)
  return np.sort(order[held_out:]), np.sort(order[:held_out])


def check(fraction: float, seed: int) -> None:
  """Raises UserError if a share or a seed is out of range."""
  if not 0 <= fraction < 1:
    raise UserError(
      f"`validation_fraction={fraction}`: allowed: from 0 to below 1"
    )
  check_seed(seed)


def check_seed(seed: int) -> None:
  """Raises UserError if the seed is out of range."""
  if not 0 <= seed <= LAST_SEED:
    raise UserError(f"`seed={seed}`: allowed: 0 to {LAST_SEED}")
