"""Folds of architectures that are held out of the fit of a controller.

A fold depends on a hash of the canonical architecture alone, so it is the same
in every round, pool and process: a controller is never fitted to the scores
that it is measured on, in no round. (The official code in PyTorch measures its
controller on the architectures it was fitted to, NAO_V1, or on a random tenth
that changes from round to round, NAO_V2.)

Shapes: N architectures, L tokens.
"""

import hashlib

import numpy as np

from nao_jax.spaces.space import Space

_BITS = 64


def held_out(space: Space, tokens: np.ndarray, share: float) -> np.ndarray:
  """Returns which architectures are held out, by their hash.

  Args:
    space: space of the architectures.
    tokens: int32 [N, L].
    share: share of all architectures of the space to hold out, from 0 to 1; the
      share of the N given architectures varies by chance.

  Returns:
    bool [N]; equal for architectures that are the same function.
  """
  return _hashes(space, tokens) / 2.0**_BITS < share


def numbers(space: Space, tokens: np.ndarray, folds: int) -> np.ndarray:
  """Returns the fold of each architecture, by its hash.

  Args:
    space: space of the architectures.
    tokens: int32 [N, L].
    folds: number of folds, which are of about equal size.

  Returns:
    int64 [N], from 0 to folds - 1; equal for architectures that are the same
    function.
  """
  return (_hashes(space, tokens) % np.uint64(folds)).astype(np.int64)


def _hashes(space: Space, tokens: np.ndarray) -> np.ndarray:
  """Returns hashes, uint64 [N], equal on every machine and in every process."""
  rows = space.canonical(np.asarray(tokens)).astype("<i4")
  names = (hashlib.blake2b(row.tobytes(), digest_size=8) for row in rows)
  return np.array(
    [int.from_bytes(name.digest(), "little") for name in names], np.uint64
  )
