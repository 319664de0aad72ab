"""Division of images without parts into a training and a test part."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from nao_jax.errors import UserError, some


@dataclasses.dataclass(frozen=True)
class Split:
  """Shares of a division, the same of each class.

  Attributes:
    fraction: share of the test part, above 0 and below 1.
    seed: the division's; the same seed divides the same images alike.
  """

  fraction: float
  seed: int = 0

  def divide(
    self, labels: np.ndarray, class_names: Sequence[str], place: str
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and of the test part, ascending.

    Each class has an image at least in both.

    Args:
      labels: int [N].
      class_names: names of the labels 0, 1, ...
      place: the source, for messages.

    Raises:
      UserError: the share is not allowed, or a class has one image only.
    """
    if not 0 < self.fraction < 1:
      raise UserError(
        f"`test_fraction={self.fraction}`: allowed: above 0, below 1"
      )
    counts = np.bincount(labels, minlength=len(class_names))
    if single := [class_names[label] for label in np.flatnonzero(counts == 1)]:
      raise UserError(
        f"{place}: 1 image only of {some(single)}; a class needs one for each "
        "part, so add some, or leave the class out"
      )
    rng, test = np.random.default_rng(self.seed), np.zeros(len(labels), bool)
    for label, count in enumerate(counts):
      rows = rng.permutation(np.flatnonzero(labels == label))
      share = min(max(round(self.fraction * count), 1), count - 1)
      test[rows[: max(share, 0)]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)
