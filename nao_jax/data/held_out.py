"""The choice of examples that are held out of a training part."""

import numpy as np

from nao_jax.errors import UserError
from nao_jax.settings import LAST_SEED


def numbers(
  count: int, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws which examples are held out; the same in memory and in streams.

  Args:
    count: how many there are.
    fraction: share of them to hold out, from 0 to below 1.
    seed: of the draw.

  Returns:
    The numbers of those to train with, and of those held out; both rise.

  Raises:
    UserError: an argument is out of range, no example is left to train
      with, or a fraction above 0 holds out none.
  """
  check(fraction, seed)
  held_out = round(fraction * count)
  if fraction and not held_out:
    raise UserError(
      f"`validation_fraction={fraction}`: holds out none of {count} images; "
      "give more, or 0"
    )
  if held_out == count:
    raise UserError(
      f"`validation_fraction={fraction}`: leaves none of {count} images to "
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
