"""Flags made from frozen dataclasses, which hold the only defaults.

Every field becomes a flag whose default is "as in the preset", so that a
preset is a value of the dataclass and a flag overrides one field of it. The
library names settings by their fields (`search.pool_size`); what it says is
shown with their flags (--pool_size) in the place of that.
"""

from collections.abc import Callable
import dataclasses
import inspect
import re

from absl import flags

from nao_jax import settings
from nao_jax.errors import UserError, rename

_DEFINE = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}


# The flag of each setting whose name is another one.
_FLAGS: dict[str, str] = {}

# What the flags of a search's nested settings start with, see `define`.
SEARCH_PREFIXES = {
  "controller": "controller_",
  "fit": "controller_",
  "final": "final_",
  "finalist": "finalist_",
  "plus": "plus_",
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
  known = _flags(config_class, prefixes, (*_FROM_DATA, *fixed))
  _FLAGS.update(known)
  fields = settings.names(config_class)
  for name, flag in known.items():
    field, text = fields[name], _help(config_class, name)
    _DEFINE[field.type](
      flag, None, f"{text} (default: the preset's, else {field.default})"
    )


def define_all(config_class: type, name: str) -> Callable:
  """Defines a flag for each field, which belongs to no preset.

  Args:
    config_class: a frozen dataclass whose docstring describes its attributes.
    name: of the argument that the library takes it as.

  Returns:
    A function that gives the settings, once flags are parsed.
  """
  given = {}
  for field in dataclasses.fields(config_class):
    _FLAGS[f"{name}.{field.name}"] = field.name
    given[field.name] = _DEFINE[field.type](
      field.name, field.default, _help(config_class, field.name)
    )
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


def stands_for(flag: str, name: str) -> None:
  """Has messages show a flag where the library names an argument."""
  _FLAGS[name] = flag


def in_flags(message: str) -> str:
  """What the library says, with flags in the place of settings.

  `search.pool_size=1` becomes --pool_size=1, `search.extend=True` --extend and
  `search.extend=False` --noextend. What is no setting stays as it is.
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
  return f"--{flag}={value}"


def _flags(config_class: type, prefixes: dict[str, str], fixed) -> dict:
  """{dotted name of a setting: its flag}."""
  found = {}
  for name in settings.names(config_class):
    *owners, own = name.split(".")
    if own not in fixed:
      prefix = prefixes.get(owners[-1], "") if owners else ""
      found[name] = f"{prefix}{own}"
  return found


def _help(config_class: type, name: str) -> str:
  """What a setting is, from the docstring of its class, and its limits."""
  *owners, own = name.split(".")
  for owner in owners:
    fields = {x.name: x for x in dataclasses.fields(config_class)}
    config_class = fields[owner].type
  text = _described(config_class)[own]
  field = settings.names(config_class)[own]
  limits = settings.limits(field)
  # A choice is described where it has more than a name.
  if limits.text and not limits.choices:
    text = f"{text.rstrip('.')}; allowed: {limits.text}"
  return text


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
    UserError: there is no such preset; or a flag is outside its limits, or
      would do nothing beside the others.
  """
  if preset not in presets:
    raise UserError(
      f"--preset={preset}: unknown; allowed: {', '.join(presets)}"
    )
  base = presets[preset]
  given = {
    name: flags.FLAGS[flag].value
    for name, flag in _flags(type(base), prefixes, ()).items()
    if flag in flags.FLAGS and flags.FLAGS[flag].value is not None
  }
  config = settings.replace(base, given)
  settings.validate(config, base)
  return config
