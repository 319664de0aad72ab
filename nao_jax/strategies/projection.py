"""Embeddings in two dimensions, for people.

Shapes: N architectures in the pool, M proposals, H hidden units.
"""

from typing import NamedTuple

import numpy as np


class Plane(NamedTuple):
  """The plane in which the pool is widest.

  Attributes:
    members: float32 [N, 2].
    proposals: float32 [M, 2].
    share: float32 [2], of the pool's variance that each axis shows.
  """

  members: np.ndarray
  proposals: np.ndarray
  share: np.ndarray


def project(members: np.ndarray, proposals: np.ndarray) -> Plane:
  """The first two principal components of embeddings.

  Args:
    members: of the pool, [N, H]; they alone decide where the plane lies.
    proposals: [M, H].
  """
  # Two axes, whatever H is; a pool without spread has none that is longer.
  wide = np.pad(np.float64(members), ((0, 0), (0, 2)))
  middle = wide.mean(0)
  _, lengths, axes = np.linalg.svd(wide - middle, full_matrices=False)
  lengths, axes = np.pad(lengths, (0, 2)), np.pad(axes, ((0, 2), (0, 0)))
  # An axis has no direction of its own: its largest part points upwards.
  largest = np.argmax(np.abs(axes[:2]), axis=1)
  axes = axes[:2] * np.where(axes[[0, 1], largest] < 0, -1, 1)[:, None]
  others = np.pad(np.float64(proposals), ((0, 0), (0, 2)))
  shares = lengths[:2] ** 2 / max(np.sum(lengths**2), np.finfo(float).tiny)
  return Plane(
    members=np.float32((wide - middle) @ axes.T),
    proposals=np.float32((others - middle) @ axes.T),
    share=np.float32(shares),
  )
