"""What a number among the settings may be."""

import numpy as np

from nao_jax.errors import UserError

# What JAX counts with has 32 bits.
_MOST = 2**31 - 1
_LAST_SEED = 2**32 - 1

_KINDS = {
  "count": (lambda x: 1 <= x <= _MOST, f"1 or more, up to {_MOST}"),
  "count or none": (lambda x: 0 <= x <= _MOST, f"0 or more, up to {_MOST}"),
  "seed": (lambda x: 0 <= x <= _LAST_SEED, f"0 to {_LAST_SEED}"),
  "weight": (lambda x: 0 <= x < np.inf, "0 or more"),
  "rate": (lambda x: 0 < x < np.inf, "above 0"),
  "kept": (lambda x: 0 < x <= 1, "above 0, at most 1"),
  "dropped": (lambda x: 0 <= x < 1, "from 0 to below 1"),
  "share": (lambda x: 0 <= x <= 1, "from 0 to 1"),
}


def check(ranges: dict[str, dict]) -> None:
  """Checks numbers.

  Args:
    ranges: {kind: {flag without dashes: value}}; the kinds are those above.

  Raises:
    UserError: a number is outside its range; the message names the flag.
  """
  for kind, settings in ranges.items():
    allows, allowed = _KINDS[kind]
    for name, value in settings.items():
      if not allows(value):
        raise UserError(f"--{name}={value}: allowed: {allowed}")
