"""The public names: of `nao_jax.__all__`, their members, flags of drivers.

python -m tests.public > tests/public.txt
"""

import dataclasses
import inspect
from typing import Any

from experiments import command, completion
import nao_jax


def names() -> list[str]:
  """Returns them, sorted."""
  found = [
    line
    for name in nao_jax.__all__
    for line in _lines(name, getattr(nao_jax, name))
  ]
  flags = [
    f"{driver} {flag.words[0].rstrip('=')}"
    for driver in command.DRIVERS
    for flag in completion.flags_of(driver)
  ]
  return sorted({*found, *flags})


def _lines(name: str, value: Any) -> list[str]:
  if isinstance(value, dict):
    return [name, *(f"{name}[{key}]" for key in value)]
  if not inspect.isclass(value):
    return [name, *(f"{name}({x}=)" for x in _arguments(value))]
  members = {x for x in vars(value) if not x.startswith("_")}
  members |= {*getattr(value, "_fields", ())}
  if dataclasses.is_dataclass(value):
    members |= {x.name for x in dataclasses.fields(value)}
  own = "__init__" in vars(value) and not getattr(value, "_is_protocol", False)
  arguments = _arguments(value.__init__) if own else []
  return [
    name,
    *(f"{name}.{member}" for member in members if not member.startswith("_")),
    *(f"{name}({x}=)" for x in arguments if x != "self"),
  ]


def _arguments(function: Any) -> list[str]:
  return [*inspect.signature(function).parameters]


if __name__ == "__main__":
  print(*names(), sep="\n")
