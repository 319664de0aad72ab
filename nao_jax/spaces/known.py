"""Spaces of slots of which only listed architectures are known.

Shapes: A listed architectures, L slots.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.spaces.slots import Slots


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """Architectures of a list.

  Attributes:
    tokens: int32 [A, L], all different.
  """

  tokens: np.ndarray

  @functools.cached_property
  def numbers(self) -> dict[bytes, int]:
    """The place of each architecture, by the bytes of its tokens."""
    return {row.tobytes(): at for at, row in enumerate(self.tokens)}


@dataclasses.dataclass(frozen=True)
class Known(Slots):
  """Space that draws listed architectures only.

  Attributes:
    rows: the list.
  """

  rows: Rows = Rows(np.zeros((0, 0), np.int32))

  @property
  def complete(self) -> bool:
    """True if every architecture is listed."""
    return len(self.rows.tokens) == super().sequences

  @property
  def sequences(self) -> int:
    """Number of listed architectures."""
    return len(self.rows.tokens)

  def number(self, tokens: np.ndarray) -> np.ndarray:
    """Implements `Space.number`."""
    tokens = np.ascontiguousarray(tokens, np.int32)
    rows = tokens.reshape(-1, self.length)
    found = [self.rows.numbers.get(row.tobytes(), -1) for row in rows]
    return np.array(found, np.int64).reshape(tokens.shape[:-1])

  def sample(self, key: jax.Array, count: int) -> jax.Array:
    """Draws listed architectures, int32 [count, L]; consumes the key."""
    rows = jax.random.randint(key, (count,), 0, len(self.rows.tokens))
    return jnp.asarray(self.rows.tokens)[rows]

  def only(self, kept: np.ndarray) -> "Known":
    """Returns the space of some of the listed architectures, bool [A]."""
    return dataclasses.replace(self, rows=Rows(self.rows.tokens[kept]))

  def missing(self) -> np.ndarray | None:
    """Returns the first architecture, [L], that is not listed, if any."""
    for row in itertools.product(*self.choices):
      if (tokens := np.int32(row)).tobytes() not in self.rows.numbers:
        return tokens
    return None
