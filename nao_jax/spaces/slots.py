"""User-defined spaces: named slots, each with choices.

An architecture has one choice for every slot. A token is one choice of one
slot, so different slots have different tokens even if their choices are equal.

Shapes: L slots, which is also the number of tokens of an architecture.
"""

from collections.abc import Hashable, Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from nao_jax.errors import UserError
from nao_jax.spaces.space import Space

Choices = tuple[Hashable, ...]


def space(name: str, slots: Mapping[str, Sequence[Hashable]]) -> "Slots":
  """Makes a space from slots like `{"width": (16, 32), "act": (relu, tanh)}`.

  Args:
    name: name of the space in messages.
    slots: the choices of each slot: numbers, texts, functions or other hashable
      values. The controller reads slots in their order.

  Raises:
    UserError: there is no slot, or a slot has no choice, or a choice twice.
  """
  if not slots:
    raise UserError(f"space {name!r}: no slots; give at least one")
  rows = tuple((slot, tuple(choices)) for slot, choices in slots.items())
  for slot, choices in rows:
    _check(f"space {name!r}: slot {slot!r}", choices)
  ends = np.cumsum([0, *(len(choices) for _, choices in rows)]).tolist()
  return Slots(
    name=name,
    choices=tuple(
      tuple(range(1 + start, 1 + end))
      for start, end in itertools.pairwise(ends)
    ),
    slots=rows,
  )


def _check(slot: str, choices: Choices) -> None:
  if not choices:
    raise UserError(f"{slot} has no choices; give at least one")
  try:
    different = set(choices)
  except TypeError as error:
    raise UserError(
      f"{slot}: {error}; write lists as tuples, and arrays as numbers"
    ) from error
  if len(different) < len(choices):
    twice = next(c for c in choices if choices.count(c) > 1)
    raise UserError(f"{slot} has the choice {_text(twice)} twice")


@dataclasses.dataclass(frozen=True)
class Slots(Space):
  """Space whose tokens are choices of named slots; made by `space`.

  Attributes:
    slots: the names of the L slots, each with its choices.
  """

  slots: tuple[tuple[str, Choices], ...] = ()

  def indices(self, tokens: jax.Array | np.ndarray) -> dict[str, Any]:
    """Returns the index of each slot's choice, from 0.

    They are for table look-ups, and for `jax.lax.switch` under jit and vmap.

    Args:
      tokens: int32 [..., L], NumPy or JAX.

    Returns:
      {slot: int32 [...]}, arrays of the same kind as the tokens.
    """
    return {
      slot: tokens[..., at] - self.choices[at][0]
      for at, (slot, _) in enumerate(self.slots)
    }

  def values(self, tokens: jax.Array | np.ndarray) -> dict[str, jax.Array]:
    """Returns the values of slots of numbers; works under jit and vmap.

    Args:
      tokens: int32 [..., L].

    Returns:
      {slot: chosen numbers [...]} for each slot whose choices are all numbers.
    """
    indices = self.indices(tokens)
    return {
      slot: jnp.array(choices)[indices[slot]]
      for slot, choices in self.slots
      if all(isinstance(choice, (bool, int, float)) for choice in choices)
    }

  def read(self, tokens: npt.ArrayLike) -> dict[str, Any]:
    """Returns the choices of one architecture, int32 [L]: {slot: choice}.

    Raises:
      UserError: the tokens are illegal; the message names the slot.
    """
    indices = self.indices(self.validate(np.asarray(tokens).tolist()))
    return {slot: choices[indices[slot]] for slot, choices in self.slots}

  def write(self, chosen: Mapping[str, Hashable]) -> np.ndarray:
    """Returns the tokens [L] of an architecture; the inverse of `read`.

    Raises:
      UserError: a slot is missing or unknown, or a choice is unknown.
    """
    names = [slot for slot, _ in self.slots]
    for slot in [*(set(names) - set(chosen)), *(set(chosen) - set(names))]:
      raise UserError(
        f"space {self.name!r}: slot {slot!r} is "
        f"{'missing' if slot in names else 'unknown'}; the slots are "
        f"{', '.join(names)}"
      )
    tokens = []
    for (slot, choices), numbers in zip(self.slots, self.choices, strict=True):
      if chosen[slot] not in choices:
        raise UserError(
          f"space {self.name!r}: slot {slot!r} is {_text(chosen[slot])}; "
          f"allowed: {', '.join(map(_text, choices))}"
        )
      tokens.append(numbers[choices.index(chosen[slot])])
    return self.validate(tokens)

  def text(self, tokens: npt.ArrayLike) -> str:
    """Writes the choices as text: `width=16, act=relu`."""
    chosen = self.read(tokens).items()
    return ", ".join(f"{slot}={_text(choice)}" for slot, choice in chosen)

  def _place(self, position: int) -> str:
    return f"slot {self.slots[position][0]!r}"

  def _meaning(self, position: int, token: int) -> str:
    index = self.choices[position].index(token)
    return f"{token} ({_text(self.slots[position][1][index])})"


def _text(choice: Hashable) -> str:
  """Writes a choice as text: functions and classes by their names."""
  return str(getattr(choice, "__name__", choice))
