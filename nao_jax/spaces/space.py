"""Search spaces: grammars of token sequences.

Shapes: B sequences, L tokens in a sequence, V tokens in the vocabulary.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError, named
from nao_jax.spaces import notation
from nao_jax.spaces.listed import Functions

# Token 0 starts every sequence (SOS) and is never part of one.
SOS = 0

# Two groups of positions, of equal size, whose contents may be exchanged.
Swap = tuple[tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Space:
  """Grammar of a search space; hashable, so jit can take it as static.

  Attributes:
    name: name of the space in messages.
    choices: for each of the L positions, the tokens that are legal there.
    swaps: exchanges that leave the function of an architecture unchanged, one
      tuple for each cell. Augmentation draws one swap from each tuple. Within
      a tuple no position occurs twice.
    tokens_per_step: tokens that the encoder folds into one LSTM step; divides
      L.
    follows: pairs of a token and the tokens that may come right after it; after
      a token without a pair, all choices of the next position are legal. Groups
      that may be exchanged must allow the same tokens next to them.
    functions: a list of the function of every sequence, instead of swaps.

    Raises:
      ValueError: there is a legal token after which no token is legal.
  """

  name: str
  choices: tuple[tuple[int, ...], ...]
  swaps: tuple[tuple[Swap, ...], ...] = ()
  tokens_per_step: int = 1
  follows: tuple[tuple[int, tuple[int, ...]], ...] = ()
  functions: Functions | None = None

  def __post_init__(self):
    # Without dead ends, a legal token at each position always gives an
    # architecture.
    for position, befores in enumerate([(SOS,), *self.choices[:-1]]):
      for before in befores:
        if not self._allowed(position, before):
          raise ValueError(
            f"space {self.name!r}: nothing is legal at position {position} "
            f"after token {before}"
          )

  @property
  def length(self) -> int:
    """Number of tokens in a sequence, L."""
    return len(self.choices)

  @property
  def vocabulary(self) -> int:
    """Number of tokens in the vocabulary, V, token 0 (SOS) included."""
    return 1 + max(max(tokens) for tokens in self.choices)

  @functools.cached_property
  def sequences(self) -> int:
    """Number of sequences that are architectures, equivalent ones included."""
    ways = dict.fromkeys(self.choices[-1], 1)
    for position in reversed(range(self.length - 1)):
      ways = {
        token: sum(ways[after] for after in self._allowed(position + 1, token))
        for token in self.choices[position]
      }
    return sum(ways[token] for token in self._allowed(0, SOS))

  @functools.cached_property
  def legal(self) -> np.ndarray:
    """Mask of tokens that are legal at a position, bool [L, V].

    A token is legal there after some token; see `may_follow`.
    """
    legal = np.zeros((self.length, self.vocabulary), bool)
    for position, tokens in enumerate(self.choices):
      legal[position, list(tokens)] = True
    return legal

  @functools.cached_property
  def may_follow(self) -> np.ndarray:
    """Mask of tokens that may come right after a token, bool [V, V].

    After `token`, legal[position] & may_follow[token] are legal.
    """
    may_follow = np.ones((self.vocabulary, self.vocabulary), bool)
    for token, following in self.follows:
      may_follow[token] = np.isin(np.arange(self.vocabulary), following)
    return may_follow

  @functools.cached_property
  def _following(self) -> dict[int, tuple[int, ...]]:
    return dict(self.follows)

  def _allowed(self, position: int, before: int) -> tuple[int, ...]:
    """Returns the tokens that are legal at a position after a token."""
    choices = self.choices[position]
    following = self._following.get(before, choices)
    return tuple(token for token in choices if token in following)

  @functools.cached_property
  def swap_permutations(self) -> np.ndarray:
    """Swaps as gathers along the sequence, int32 [cells, swaps, L]."""
    cells = [[self._permutation(swap) for swap in cell] for cell in self.swaps]
    shape = (len(self.swaps), len(self.swaps[0]) if self.swaps else 0)
    return np.array(cells, np.int32).reshape(*shape, self.length)

  def _permutation(self, swap: Swap) -> np.ndarray:
    permutation = np.arange(self.length)
    first, second = map(list, swap)
    permutation[first], permutation[second] = second, first
    return permutation

  def sample(self, key: jax.Array, count: int) -> jax.Array:
    """Draws architectures, each with the same probability; consumes the key.

    If no token restricts the next one, tokens are drawn uniformly and
    independently, as in the official code. Otherwise a token's probability is
    proportional to the number of its continuations: an op written as type and
    kernel is as probable as in an encoding that writes it as one token.

    Returns:
      int32 [count, L]; duplicates are possible.
    """
    noise = jax.random.gumbel(key, (count, *self.legal.shape))
    scores = noise + jnp.log(self._continuations)
    if not self.follows:
      return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return _best_walk(scores, self.may_follow)

  @functools.cached_property
  def _continuations(self) -> np.ndarray:
    """Number of continuations of a token, up to a factor [L, 1]; [L, V].

    It is 0 for an illegal token.
    """
    ways, rows = np.ones(self.vocabulary), []
    for legal in reversed(self.legal):
      rows.append(legal * ways)
      ways = self.may_follow @ rows[-1]
      ways /= ways.max()
    return np.array(rows[::-1], np.float32)

  def accepts(self, tokens: Sequence[int]) -> bool:
    """Returns whether a sequence is an architecture."""
    return len(tokens) == self.length and self._first_illegal(tokens) is None

  def _first_illegal(self, tokens: Sequence[int]) -> int | None:
    """Returns the first position with a token illegal after the one before."""
    for position, token in enumerate(tokens):
      if token not in self._allowed(position, _before(tokens, position)):
        return position
    return None

  def validate(
    self, tokens: Sequence[int], place: str = "tokens"
  ) -> np.ndarray:
    """Checks one sequence.

    Returns:
      int32 [L].

    Raises:
      UserError: the sequence is illegal; the message names the first illegal
        position, the token before it if that is the cause, and the legal
        tokens.
    """
    if len(tokens) != self.length:
      raise UserError(
        f"{place}: {len(tokens)} tokens, but an architecture of space "
        f"{self.name!r} has {self.length}"
      )
    position = self._first_illegal(tokens)
    if position is not None:
      before = _before(tokens, position)
      after = f" after token {before}" if before in self._following else ""
      allowed = " ".join(
        self._meaning(position, token)
        for token in self._allowed(position, before)
      )
      raise UserError(
        f"{place}: token {tokens[position]} at {self._place(position)} "
        f"is illegal{after} in space {self.name!r}; allowed there: {allowed}"
      )
    return np.asarray(tokens, np.int32)

  def text(self, tokens: npt.ArrayLike) -> str:
    """Writes an architecture [L] as text: its tokens."""
    return " ".join(map(str, np.asarray(tokens).tolist()))

  def parse(self, text: str, source: str = "arch") -> np.ndarray:
    """Reads an architecture: tokens, or a .json file with `tokens`.

    Args:
      text: the text.
      source: the setting or argument that holds the text, for messages.

    Returns:
      int32 [L].

    Raises:
      UserError: the text is neither, or the tokens are illegal.
    """
    if text.endswith(".json"):
      written = notation.read(text, source).get("space", self.name)
      if written not in (self.name, self.plain.name):
        raise UserError(
          f"{named(source, text)}: is of space {written!r}, but this is space "
          f"{self.name!r}"
        )
      return self.validate(
        notation.tokens_of_file(text, source), named(source, text)
      )
    tokens = notation.numbers(text)
    if tokens is None:
      raise UserError(
        f"{named(source, text)}: give the {self.length} tokens of an "
        f"architecture of space {self.name!r}, or a .json file with `tokens`"
      )
    return self.validate(tokens, named(source))

  @property
  def plain(self) -> "Space":
    """Space of the same architectures in the encoding outside the controller.

    A space may have an encoding that suits the controller. Evaluators, costs,
    drawings and files of results use this one.
    """
    return self

  def to_plain(self, tokens: np.ndarray) -> np.ndarray:
    """Converts tokens [..., L] to those of `plain`."""
    return tokens

  def _place(self, position: int) -> str:
    """Returns the name of a position in messages."""
    return f"position {position} (counted from 0)"

  def _meaning(self, position: int, token: int) -> str:
    """Returns the name of a position's legal token in messages."""
    del position
    return str(token)

  def canonical(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the representative of each architecture's equivalence class.

    The two groups of a swap are put in ascending order.

    Args:
      tokens: int32 [..., L].

    Returns:
      int32 [..., L].
    """
    if self.functions:
      return self.functions.canonical(tokens)
    tokens = np.array(tokens)
    for first, second in (swap for cell in self.swaps for swap in cell):
      first, second = list(first), list(second)
      a, b = tokens[..., first], tokens[..., second]
      out_of_order = _lexicographically_greater(a, b)[..., None]
      tokens[..., first] = np.where(out_of_order, b, a)
      tokens[..., second] = np.where(out_of_order, a, b)
    return tokens

  def number(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the numbers of architectures [..., L] in a table, [...].

    The number is -1 for an architecture that the table lacks. Only spaces with
    `functions`, or of a table, have numbers.
    """
    return self.functions.number(tokens)

  def neighbours(self, tokens: np.ndarray) -> np.ndarray:
    """Returns all architectures that differ from one in a single token.

    Args:
      tokens: int32 [L].

    Returns:
      int32 [M, L].
    """
    position, token = np.nonzero(self.legal)
    changed = token != np.asarray(tokens)[position]
    position, token = position[changed], token[changed]
    rows = np.repeat(np.int32(tokens)[None], len(position), 0)
    rows[np.arange(len(rows)), position] = token
    before = np.pad(rows[:, :-1], ((0, 0), (1, 0)), constant_values=SOS)
    return rows[self.may_follow[before, rows].all(-1)]

  def keys(self, tokens: np.ndarray) -> list[bytes]:
    """Returns for each sequence of [B, L] a hashable key of its function."""
    return [row.tobytes() for row in self.canonical(tokens).astype(np.int32)]


@jax.jit
def _best_walk(scores: jax.Array, may_follow: jax.Array) -> jax.Array:
  """Takes the best allowed tokens [B, L] of scores [B, L, V], one by one."""

  def step(before, scores):
    scores = jnp.where(may_follow[before], scores, -jnp.inf)
    token = jnp.argmax(scores, axis=-1)
    return token, token

  start = jnp.full(len(scores), SOS)
  _, tokens = jax.lax.scan(step, start, scores.swapaxes(0, 1))
  return tokens.T.astype(jnp.int32)


def _before(tokens: Sequence[int], position: int) -> int:
  return int(tokens[position - 1]) if position else SOS


def _lexicographically_greater(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Compares [..., n] with [..., n]; returns bool [...]."""
  greater = np.zeros(a.shape[:-1], bool)
  for i in reversed(range(a.shape[-1])):
    greater = np.where(a[..., i] == b[..., i], greater, a[..., i] > b[..., i])
  return greater
