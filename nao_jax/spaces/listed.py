"""Equivalence of architectures by a list of all sequences of a small space.

Swaps describe equivalence for cells whose branches are only added. If more is
known, such as that an operation outputs zeros, all sequences are listed. The
list must be short: at most some hundred thousand sequences.

Shapes: L tokens, S sequences, F functions.
"""

from collections.abc import Callable, Hashable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.spaces.arrays import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
  """Numbered functions of a space.

  Attributes:
    first: int32 [L], the smallest token of each position.
    sizes: int32 [L], the number of consecutive legal tokens of each position.
    of_sequence: int32 [S], the function of each sequence, see `index`.
    representative: int32 [F], the first sequence of each function.
  """

  first: np.ndarray
  sizes: np.ndarray
  of_sequence: np.ndarray
  representative: np.ndarray

  def index(self, tokens: Array) -> Array:
    """Returns the numbers [...] of sequences [..., L] (NumPy or JAX).

    The last token is the least significant digit.
    """
    strides = np.cumprod([1, *self.sizes[:0:-1]])[::-1].astype(np.int32)
    return ((tokens - self.first) * strides).sum(-1)

  def tokens(self, index: Array) -> Array:
    """Returns the sequence of each number, [...] to [..., L]."""
    digits = []
    for size in self.sizes[::-1]:
      index, digit = index // size, index % size
      digits.append(digit)
    stack = jnp.stack if isinstance(index, jax.Array) else np.stack
    return stack(digits[::-1], -1) + self.first

  def number(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the function of each sequence, [..., L] to [...]."""
    return self.of_sequence[self.index(np.asarray(tokens))]

  def canonical(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the first sequence of the same function, [..., L] to [..., L]."""
    return self.tokens(self.representative[self.number(tokens)])

  def disguise(self, key: jax.Array, tokens: jax.Array) -> jax.Array:
    """Draws an equivalent sequence for each of [B, L]; consumes the key."""
    order = np.argsort(self.of_sequence, kind="stable").astype(np.int32)
    count = np.bincount(self.of_sequence).astype(np.int32)
    start = (np.cumsum(count) - count).astype(np.int32)
    number = jnp.asarray(self.of_sequence)[self.index(tokens)]
    uniform = jax.random.uniform(key, number.shape)
    drawn = jnp.floor(uniform * jnp.asarray(count)[number]).astype(jnp.int32)
    # Rounding may lift the drawn number to the count.
    drawn = jnp.minimum(drawn, jnp.asarray(count)[number] - 1)
    return self.tokens(jnp.asarray(order)[jnp.asarray(start)[number] + drawn])


def functions(
  choices: tuple[tuple[int, ...], ...], form: Callable[[list[int]], Hashable]
) -> Functions:
  """Lists all sequences and compares their forms.

  Args:
    choices: the legal tokens of each position, consecutive numbers.
    form: maps the index of each position's choice, [L], to a value that two
      sequences share exactly if they are the same function.
  """
  sizes = np.array([len(tokens) for tokens in choices], np.int32)
  first = np.array([tokens[0] for tokens in choices], np.int32)
  numbers, of_sequence, representative = {}, [], []
  for index, row in enumerate(np.ndindex(*sizes)):
    number = numbers.setdefault(form(list(row)), len(numbers))
    if number == len(representative):
      representative.append(index)
    of_sequence.append(number)
  return Functions(first, sizes, *map(np.int32, (of_sequence, representative)))
