"""Defines flags from frozen dataclasses, which hold the only defaults.

Every field becomes a flag whose default is "as in the preset": a preset is a
value of the dataclass, and a flag overrides one field of it. The library names
settings by their fields (`search.pool_size`); drivers replace these names in
messages by the flags (--pool_size).
"""

from collections.abc import Callable, Iterable
import dataclasses
import inspect
import re
from typing import Any

from absl import flags, logging

from nao_jax import settings
from nao_jax.errors import UserError, rename


class _WholeNumbers(flags.ArgumentParser):
  """Reads whole numbers with commas between them."""

  syntactic_help = "whole numbers with commas between them"

  def parse(self, argument: str | tuple[int, ...]) -> tuple[int, ...]:
    """Returns the numbers; raises ValueError for anything else."""
    if isinstance(argument, tuple):
      return argument
    try:
      return tuple(map(int, argument.split(",")))
    except ValueError as error:
      raise ValueError(f"allowed: {self.syntactic_help}") from error


def _define_numbers(name: str, default: Any, text: str) -> flags.FlagHolder:
  """Defines a flag of several whole numbers."""
  serializer = flags.CsvListSerializer(",")
  return flags.DEFINE(
    _WholeNumbers(), name, default, text, serializer=serializer
  )


_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
  tuple[int, ...]: _define_numbers,
}


# The flags of settings whose names differ.
_FLAGS: dict[str, str] = {}
# Flags of earlier versions, which still work: {old name: name}.
RENAMED = {"coding": "encoding", "late": "max_pending"}

# Prefixes of the flags of a search's nested settings, see `define`.
SEARCH_PREFIXES = {
  "controller": "controller_",
  "fit": "controller_",
  "final": "final_",
  "finalist": "finalist_",
  "mobile": "mobile_",
  "plus": "plus_",
  "semi": "semi_",
  "stream": "stream_",
}

# Settings that the data determine, so that a flag would have no effect.
_FROM_DATA = ("classes", "vocabulary")


def define(
  config_class: type, prefixes: dict[str, str], fixed: tuple[str, ...] = ()
) -> None:
  """Defines a flag for each field, nested dataclasses included.

  Args:
    config_class: a frozen dataclass whose docstring describes its attributes.
    prefixes: prefixes of the flags of a nested dataclass, by the name of its
      field; without an entry they have no prefix.
    fixed: fields without a flag, as something else determines them.
  """
  known = _flags(config_class, prefixes, (*_FROM_DATA, *fixed))
  _FLAGS.update(known)
  fields = settings.names(config_class)
  for name, flag in known.items():
    field, text = fields[name], _help(config_class, name)
    _DEFINE[field.type](
      flag, None, f"{text} (default: the preset's, else {field.default})"
    )
    offer(flag, settings.limits(field).choices)
  for old, new in RENAMED.items():
    if new in known.values():
      flags.DEFINE_alias(old, new)


def define_all(config_class: type, name: str) -> Callable:
  """Defines a flag for each field; the flags belong to no preset.

  Args:
    config_class: a frozen dataclass whose docstring describes its attributes.
    name: name of the library's argument that takes the settings.

  Returns:
    A function that returns the settings, once flags are parsed.
  """
  given = {}
  for field in dataclasses.fields(config_class):
    _FLAGS[f"{name}.{field.name}"] = field.name
    given[field.name] = _DEFINE[field.type](
      field.name, field.default, _help(config_class, field.name)
    )
  return lambda: config_class(**{k: flag.value for k, flag in given.items()})


def offer(flag: str, values: Iterable[str]) -> None:
  """Declares values that a shell offers for a flag; they are not checked."""
  if values := [*values]:
    flags.FLAGS[flag].parser = _Offering(values)


class _Offering(flags.ArgumentParser):
  """Parser of any text, as the library checks it."""

  def __init__(self, values: list[str]):
    super().__init__()
    self.enum_values = values


def given(config_class: type) -> list[str]:
  """Returns a dataclass's flags on the command line, for another command.

  Args:
    config_class: a frozen dataclass without nested ones, see `define`.
  """
  return [
    f"--{name}={flags.FLAGS[name].value}"
    for name in config_class.__annotations__
    if name in flags.FLAGS and flags.FLAGS[name].present
  ]


def stands_for(flag: str, name: str) -> None:
  """Makes messages show a flag where the library names an argument."""
  _FLAGS[name] = flag


def in_flags(message: str) -> str:
  """Replaces the settings in a message of the library by flags.

  `search.pool_size=1` becomes --pool_size=1, `search.extend=True` --extend and
  `search.extend=False` --noextend. Other text stays as it is.
  """
  return rename(message, _in_flags)


def _in_flags(name: str, value: str | None) -> str | None:
  flag = _FLAGS.get(name, name)
  if flag not in flags.FLAGS:
    return None
  if value is None:
    return f"--{flag}"
  if flags.FLAGS[flag].boolean and value in ("True", "False"):
    return f"--{flag}" if value == "True" else f"--no{flag}"
  if isinstance(flags.FLAGS[flag].parser, _WholeNumbers):
    value = ",".join(re.findall(r"-?\d+", value))
  return f"--{flag}={value}"


def _flags(config_class: type, prefixes: dict[str, str], fixed) -> dict:
  """Returns {dotted name of a setting: its flag}."""
  found = {}
  for name in settings.names(config_class):
    *owners, own = name.split(".")
    if own not in fixed:
      prefix = prefixes.get(owners[-1], "") if owners else ""
      found[name] = f"{prefix}{own}"
  return found


def _help(config_class: type, name: str) -> str:
  """Returns a setting's description, from its class's docstring, and limits."""
  *owners, own = name.split(".")
  for owner in owners:
    fields = {x.name: x for x in dataclasses.fields(config_class)}
    config_class = fields[owner].type
  text = _described(config_class)[own]
  field = settings.names(config_class)[own]
  limits = settings.limits(field)
  # Choices are described if they have more than a name.
  if limits.text and not limits.choices:
    text = f"{text.rstrip('.')}; allowed: {limits.text}"
  return text


def _described(owner: type) -> dict[str, str]:
  """Returns {attribute: description} of the docstrings' Attributes sections.

  The docstring of a class describes what it adds to its base classes.
  """
  found = {}
  for base in filter(dataclasses.is_dataclass, reversed(owner.__mro__)):
    section = inspect.getdoc(base).partition("Attributes:\n")[2]
    entries = re.findall(
      r"^  (\w+): (.*(?:\n    .*)*)", section, flags=re.MULTILINE
    )
    found |= {name: " ".join(text.split()) for name, text in entries}
  return found


def choose(presets: dict, preset: str, prefixes: dict[str, str]):
  """Returns the preset, with the given flags in place of its own values.

  Raises:
    UserError: the preset does not exist; or a flag is outside its limits, or
      would have no effect together with the others.
  """
  if preset not in presets:
    raise UserError(
      f"--preset={preset}: unknown; allowed: {', '.join(presets)}"
    )
  for old, new in RENAMED.items():
    if old in flags.FLAGS and flags.FLAGS[old].present:
      logging.warning("--%s is now called --%s", old, new)
  base = presets[preset]
  given = {
    name: flags.FLAGS[flag].value
    for name, flag in _flags(type(base), prefixes, ()).items()
    if flag in flags.FLAGS and flags.FLAGS[flag].value is not None
  }
  config = settings.replace(base, given)
  settings.validate(config, base)
  return config
