"""Checks labels of images: whole numbers from 0, of at least 2 classes.

Shapes: N images.
"""

from collections.abc import Iterable, Sequence

from absl import logging
import numpy as np

from nao_jax.errors import UserError, some


def check_labels(labels: np.ndarray, classes: int, place: str) -> None:
  """Requires that labels [N] are 0 to `classes` - 1.

  Raises:
    UserError: a label is out of range; the message gives its index.
  """
  (wrong,) = np.nonzero((labels < 0) | (labels >= classes))
  if wrong.size:
    check_label(labels[wrong[0]], classes, f"{place}[{wrong[0]}]")


def check_label(label: int, classes: int, place: str) -> None:
  """Requires that a label is 0 to `classes` - 1.

  Raises:
    UserError: the label is out of range.
  """
  if not 0 <= label < classes:
    raise UserError(f"{place}: label {label}; allowed: 0 to {classes - 1}")


def check_classes(
  labels: np.ndarray, names: Sequence[str], place: str
) -> list[str]:
  """Requires at least 2 classes.

  Args:
    labels: int [N], each from 0 to below the number of classes.
    names: names of the classes.
    place: the name of the labels in messages.

  Returns:
    The names of the classes without any label.

  Raises:
    UserError: there are fewer than 2 classes.
  """
  counts = np.bincount(labels, minlength=len(names))
  if len(names) < 2 or np.count_nonzero(counts) < 2:
    raise UserError(
      f"{place}: 1 class only, {names[int(np.argmax(counts))]}; a"
      " classification needs 2 or more classes"
    )
  return [names[number] for number in np.flatnonzero(counts == 0)]


def class_weights(counts: np.ndarray, power: float) -> tuple[float, ...]:
  """Returns weights of classes that make up for their unequal sizes.

  Args:
    counts: int [classes], images of each class.
    power: from 0, all images weigh the same, to 1, all classes together do.

  Returns:
    Weights in proportion to the class's share of the images to the power
    -`power`; their mean over the images is 1.
  """
  weights = np.maximum(counts, 1.0) ** -power
  return tuple((weights * counts.sum() / (weights @ counts)).tolist())


def warn_of_empty(
  place: str, part: str, empty: Iterable[str], names: Sequence[str]
) -> None:
  """Warns of classes that have no image in a part.

  Args:
    place: the name of the data set in messages.
    part: "training" or "test".
    empty: the classes without an image.
    names: the names of all classes.
  """
  if empty := list(empty):
    logging.warning(
      "%s: no %s image of %d of %d classes: %s",
      place,
      part,
      len(empty),
      len(names),
      some(empty),
    )
