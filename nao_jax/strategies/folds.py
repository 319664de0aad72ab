"""Which architectures a controller never learns from.

A fold is decided by a hash of the canonical architecture alone. So it stays the
same for the whole life of the architecture, in every round, pool and process:
a controller that is fitted on from round to round never sees the score of what
it is measured on. (The official code in PyTorch measures its controller on what
it was fitted to, NAO_V1, or on a tenth that is drawn anew each round, NAO_V2.)

Shapes: N architectures, L tokens.
"""

import hashlib

import numpy as np

from nao_jax.spaces.space import Space

_BITS = 64


def held_out(space: Space, tokens: np.ndarray, share: float) -> np.ndarray:
  """A share of all architectures of a space, by their hash.

  Args:
    space: of the architectures.
    tokens: int32 [N, L].
    share: of all architectures of the space, from 0 to 1; of the N given ones
      it may be more or less, by chance.

  Returns:
    bool [N]; equal for architectures that are the same function.
  """
  return _hashes(space, tokens) / 2.0**_BITS < share


def numbers(space: Space, tokens: np.ndarray, folds: int) -> np.ndarray:
  """The fold of each architecture, by its hash.

  Args:
    space: of the architectures.
    tokens: int32 [N, L].
    folds: how many there are; each has about as many architectures.

  Returns:
    int64 [N], from 0 to folds - 1; equal for architectures that are the same
    function.
  """
  return (_hashes(space, tokens) % np.uint64(folds)).astype(np.int64)


def _hashes(space: Space, tokens: np.ndarray) -> np.ndarray:
  """uint64 [N]; the same on every machine and in every process."""
  rows = space.canonical(np.asarray(tokens)).astype("<i4")
  names = (hashlib.blake2b(row.tobytes(), digest_size=8) for row in rows)
  return np.array(
    [int.from_bytes(name.digest(), "little") for name in names], np.uint64
  )
