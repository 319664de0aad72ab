"""What a number among the settings may be."""

import numpy as np

from nao_jax.errors import UserError

_KINDS = {
  "count": (lambda x: x >= 1, "1 or more"),
  "count or none": (lambda x: x >= 0, "0 or more"),
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
