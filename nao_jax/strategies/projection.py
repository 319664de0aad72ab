"""Projection of embeddings to two dimensions, for plots.

Shapes: N architectures in the pool, M proposals, H hidden units.
"""

from typing import NamedTuple

import numpy as np


class Plane(NamedTuple):
  """Coordinates in the plane of the pool's largest variance.

  Attributes:
    members: float32 [N, 2].
    proposals: float32 [M, 2].
    share: float32 [2], share of the pool's variance along each axis.
  """

  members: np.ndarray
  proposals: np.ndarray
  share: np.ndarray


def project(members: np.ndarray, proposals: np.ndarray) -> Plane:
  """Projects embeddings on the first two principal components of the pool.

  Args:
    members: embeddings of the pool, [N, H]; they alone determine the plane.
    proposals: embeddings of proposals, [M, H].
  """
  # Padding gives two axes even if H is 1 or the pool has a single member.
  wide = np.pad(np.float64(members), ((0, 0), (0, 2)))
  middle = wide.mean(0)
  _, lengths, axes = np.linalg.svd(wide - middle, full_matrices=False)
  lengths, axes = np.pad(lengths, (0, 2)), np.pad(axes, ((0, 2), (0, 0)))
  # The sign of an axis is arbitrary: its largest component is made positive.
  largest = np.argmax(np.abs(axes[:2]), axis=1)
  axes = axes[:2] * np.where(axes[[0, 1], largest] < 0, -1, 1)[:, None]
  others = np.pad(np.float64(proposals), ((0, 0), (0, 2)))
  shares = lengths[:2] ** 2 / max(np.sum(lengths**2), np.finfo(float).tiny)
  return Plane(
    members=np.float32((wide - middle) @ axes.T),
    proposals=np.float32((others - middle) @ axes.T),
    share=np.float32(shares),
  )
