"""A search space: which token sequences are architectures.

Shapes: B sequences, L tokens a sequence, V tokens in the vocabulary.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.errors import UserError

# Token 0 starts every sequence (SOS) and is never part of one.
SOS = 0

# Two groups of positions, of equal size, whose contents may be exchanged.
Swap = tuple[tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Space:
  """The grammar of a search space; hashable, so jit can take it as static.

  Attributes:
    name: what messages call it.
    choices: for each of the L positions, the tokens that are legal there.
    swaps: exchanges that leave the function of an architecture unchanged, one
      tuple for each cell. Augmentation draws one swap from each tuple. Within
      a tuple no position occurs twice.
    tokens_per_step: tokens that the encoder folds into one LSTM step; divides
      L.
  """

  name: str
  choices: tuple[tuple[int, ...], ...]
  swaps: tuple[tuple[Swap, ...], ...] = ()
  tokens_per_step: int = 1

  @property
  def length(self) -> int:
    """L."""
    return len(self.choices)

  @property
  def vocabulary(self) -> int:
    """V, token 0 (SOS) included."""
    return 1 + max(max(tokens) for tokens in self.choices)

  @functools.cached_property
  def legal(self) -> np.ndarray:
    """bool [L, V]: is this token legal at this position?"""
    legal = np.zeros((self.length, self.vocabulary), bool)
    for position, tokens in enumerate(self.choices):
      legal[position, list(tokens)] = True
    return legal

  @functools.cached_property
  def swap_permutations(self) -> np.ndarray:
    """int32 [cells, swaps, L]: each swap as a gather along the sequence."""
    cells = [[self._permutation(swap) for swap in cell] for cell in self.swaps]
    shape = (len(self.swaps), len(self.swaps[0]) if self.swaps else 0)
    return np.array(cells, np.int32).reshape(*shape, self.length)

  def _permutation(self, swap: Swap) -> np.ndarray:
    permutation = np.arange(self.length)
    first, second = map(list, swap)
    permutation[first], permutation[second] = second, first
    return permutation

  def sample(self, key: jax.Array, count: int) -> jax.Array:
    """Draws each token uniformly and independently; consumes the key.

    Returns:
      int32 [count, L]; duplicates are possible (spec of the official code).
    """
    logits = jnp.where(self.legal, 0.0, -jnp.inf)
    shape = (count, self.length)
    return jax.random.categorical(key, logits, shape=shape).astype(jnp.int32)

  def accepts(self, tokens: Sequence[int]) -> bool:
    """Is this sequence an architecture?"""
    return len(tokens) == self.length and all(
      token in choices
      for token, choices in zip(tokens, self.choices, strict=True)
    )

  def validate(self, tokens: Sequence[int], source: str = "tokens"):
    """Checks one sequence.

    Args:
      tokens: the sequence.
      source: where it came from (a flag, a file), for the message.

    Returns:
      int32 [L].

    Raises:
      UserError: it names the first illegal position and what is allowed.
    """
    if len(tokens) != self.length:
      raise UserError(
        f"{source}: {len(tokens)} tokens, but an architecture of space "
        f"{self.name!r} has {self.length}"
      )
    for position, token in enumerate(tokens):
      if token not in self.choices[position]:
        allowed = " ".join(map(str, self.choices[position]))
        raise UserError(
          f"{source}: token {token} at position {position} (counted from 0) "
          f"is illegal in space {self.name!r}; allowed there: {allowed}"
        )
    return np.asarray(tokens, np.int32)

  def canonical(self, tokens: np.ndarray) -> np.ndarray:
    """The one representative of all swap-equal sequences; [..., L] to same.

    The two groups of a swap are put in ascending order.
    """
    tokens = np.array(tokens)
    for first, second in (swap for cell in self.swaps for swap in cell):
      first, second = list(first), list(second)
      a, b = tokens[..., first], tokens[..., second]
      out_of_order = _lexicographically_greater(a, b)[..., None]
      tokens[..., first] = np.where(out_of_order, b, a)
      tokens[..., second] = np.where(out_of_order, a, b)
    return tokens

  def keys(self, tokens: np.ndarray) -> list[bytes]:
    """A hashable name of the function of each sequence of [B, L]."""
    return [row.tobytes() for row in self.canonical(tokens).astype(np.int32)]


def _lexicographically_greater(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """[..., n] against [..., n] to bool [...]."""
  greater = np.zeros(a.shape[:-1], bool)
  for i in reversed(range(a.shape[-1])):
    greater = np.where(a[..., i] == b[..., i], greater, a[..., i] > b[..., i])
  return greater
