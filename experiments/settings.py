"""Flags made from frozen dataclasses, which hold the only defaults.

Every field becomes a flag whose default is "as in the preset", so that a
preset is a value of the dataclass and a flag overrides one field of it.
"""

from collections.abc import Callable
import dataclasses
import inspect
import re

from absl import flags

from nao_jax.errors import UserError

_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}


# What the data decide, so that a flag would have no effect.
_FROM_DATA = ("classes", "vocabulary")


def define(
  config_class: type, prefixes: dict[str, str], fixed: tuple[str, ...] = ()
) -> None:
  """Defines a flag for each field, nested dataclasses included.

  Args:
    config_class: a frozen dataclass whose docstring describes its attributes.
    prefixes: what flags of a nested dataclass start with, by the name of its
      field; without an entry they have no prefix.
    fixed: fields that get no flag, as something else decides them.
  """
  for field in dataclasses.fields(config_class):
    _define_field(config_class, field, "", prefixes, (*_FROM_DATA, *fixed))


def _define_field(owner, field, prefix, prefixes, fixed):
  if dataclasses.is_dataclass(field.type):
    inner_prefix = prefixes.get(field.name, "")
    for inner in dataclasses.fields(field.type):
      _define_field(field.type, inner, inner_prefix, prefixes, fixed)
  elif field.name not in fixed:
    text = _described(owner)[field.name]
    _DEFINE[field.type](
      f"{prefix}{field.name}",
      None,
      f"{text} (default: the preset's, else {field.default})",
    )


def define_all(config_class: type) -> Callable:
  """Defines a flag for each field, which belongs to no preset.

  Args:
    config_class: a frozen dataclass whose docstring describes its attributes.

  Returns:
    A function that gives the settings, once flags are parsed.
  """
  described = _described(config_class)
  given = {
    field.name: _DEFINE[field.type](
      field.name, field.default, described[field.name]
    )
    for field in dataclasses.fields(config_class)
  }
  return lambda: config_class(**{k: flag.value for k, flag in given.items()})


def given(config_class: type) -> list[str]:
  """The flags of a dataclass that the command line has, for another command.

  Args:
    config_class: a frozen dataclass without nested ones, see `define`.
  """
  return [
    f"--{name}={flags.FLAGS[name].value}"
    for name in config_class.__annotations__
    if name in flags.FLAGS and flags.FLAGS[name].present
  ]


def _described(owner: type) -> dict[str, str]:
  """{attribute: description} of a docstring's Attributes section."""
  section = inspect.getdoc(owner).partition("Attributes:\n")[2]
  entries = re.findall(
    r"^  (\w+): (.*(?:\n    .*)*)", section, flags=re.MULTILINE
  )
  return {name: " ".join(text.split()) for name, text in entries}


def choose(presets: dict, preset: str, prefixes: dict[str, str]):
  """The preset with the given flags in place of its own values.

  Raises:
    UserError: there is no such preset.
  """
  if preset not in presets:
    raise UserError(
      f"--preset={preset}: unknown; allowed: {', '.join(presets)}"
    )
  return _override(presets[preset], "", prefixes)


def _override(config, prefix, prefixes):
  changes = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      inner = prefixes.get(field.name, "")
      changes[field.name] = _override(value, inner, prefixes)
    elif f"{prefix}{field.name}" in flags.FLAGS:
      given = flags.FLAGS[f"{prefix}{field.name}"].value
      changes[field.name] = value if given is None else given
  return dataclasses.replace(config, **changes)
