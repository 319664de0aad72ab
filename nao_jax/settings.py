"""Settings with declared limits, and their flat form for JSON.

Settings are frozen dataclasses. A field declares the numbers or choices that
are allowed, and a class declares in `ACTS_WITH` the settings that need another
setting. Further conditions between the settings of a class are checked by its
method `check_together`. `validate` checks all of them.

Errors name a setting as in Python, with dots where dataclasses are nested:
`search.pool_size`.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import math
import numbers
import typing
from typing import Any, NamedTuple, TypeVar

from absl import logging

from nao_jax.errors import UserError, named, rename

_T = TypeVar("_T")
_LIMITS, _ADDED = "limits", "added"
# Integers of JAX have 32 bits.
_LARGEST = 2**31 - 1
LAST_SEED = 2**32 - 1
_WORDS = {int: "a whole number", float: "a number", bool: "True or False"}


@dataclasses.dataclass(frozen=True)
class Limits:
  """Allowed values of a setting; they apply to each item of a tuple.

  Attributes:
    least: the smallest number allowed.
    most: the largest number allowed.
    above: numbers must be larger than this.
    below: numbers must be smaller than this.
    choices: the words allowed; any if empty.
  """

  least: float | None = None
  most: float | None = None
  above: float | None = None
  below: float | None = None
  choices: tuple[str, ...] = ()

  @property
  def text(self) -> str:
    """Limits in words, such as `2 or more`; "" without limits."""
    if self.choices:
      return ", ".join(self.choices)
    low, strict, high, open_ = self.least, self.above, self.most, self.below
    lower = f"above {strict:g}" if strict is not None else None
    upper = f"below {open_}" if open_ is not None else None
    if low is not None:
      if high is None and upper is None:
        return f"{low} or more"
      lower = f"{low}" if upper is None else f"from {low}"
    if high is not None:
      upper = f"{high}" if low is not None else f"at most {high}"
    joint = " to " if low is not None else ", "
    return joint.join(part for part in (lower, upper) if part)

  def allow(self, value: Any) -> bool:
    """Returns whether a value of the right type is allowed."""
    if self.choices:
      return value in self.choices
    return (
      (self.least is None or value >= self.least)
      and (self.most is None or value <= self.most)
      and (self.above is None or value > self.above)
      and (self.below is None or value < self.below)
    )


def field(
  default: _T,
  *,
  least: float | None = None,
  most: float | None = None,
  above: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] = (),
  added: bool = False,
) -> _T:
  """Makes a dataclass field with a default and limits, those of `Limits`.

  Args:
    default: the default; of a nested dataclass, an instance.
    added: whether `flatten` leaves the setting out at its default. Runs and
      trials from before a setting was added then keep their identity; the
      default must stand for what was done before, and stay as it is.
  """
  limits = Limits(least, most, above, below, choices)
  metadata = {_LIMITS: limits, _ADDED: added}
  return dataclasses.field(default=default, metadata=metadata)


class Only(NamedTuple):
  """Rule of `ACTS_WITH`: settings act only with some values of another setting.

  Attributes:
    settings: names of the settings; the name of a nested dataclass means all
      settings in it.
    other: the setting that they need.
    values: the values of `other` with which they act; if empty, all but 0, ""
      and False.
    warns_with: values of `other` with which settings without effect give a
      warning and no error.
    alternatives: further pairs of `other` and `values`, of which one is enough.
  """

  settings: tuple[str, ...]
  other: str
  values: tuple[str, ...] = ()
  warns_with: tuple[str, ...] = ()
  alternatives: tuple[tuple[str, tuple[str, ...]], ...] = ()

  @property
  def needs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Pairs of a setting and its values, of which one must hold."""
    return ((self.other, self.values), *self.alternatives)


def limits(config_field: dataclasses.Field) -> Limits:
  """Returns the limits that a field declares."""
  return config_field.metadata.get(_LIMITS, Limits())


def names(config: Any) -> dict[str, dataclasses.Field]:
  """Returns the settings of a dataclass or instance: {dotted name: field}."""
  found = {}
  for own in dataclasses.fields(config):
    if dataclasses.is_dataclass(own.type):
      inner = names(own.type)
      found |= {f"{own.name}.{name}": value for name, value in inner.items()}
    else:
      found[own.name] = own
  return found


def get(config: Any, name: str) -> Any:
  """Returns the value of a setting, by its dotted name."""
  for part in name.split("."):
    config = getattr(config, part)
  return config


def replace(config: _T, changes: dict[str, Any]) -> _T:
  """Returns the settings with some values replaced, by their dotted names."""
  for name, value in changes.items():
    first, _, rest = name.partition(".")
    if rest:
      value = replace(getattr(config, first), {rest: value})
    config = dataclasses.replace(config, **{first: value})
  return config


def validate(config: Any, preset: Any = None) -> None:
  """Checks all settings of a frozen dataclass, nested ones included.

  Args:
    config: the settings.
    preset: the settings before the user's changes. Changed settings that have
      no effect are refused; without a preset none are.

  Raises:
    UserError: a setting has the wrong type, is outside its limits, does not
      fit the others, or would have no effect.
  """
  _validate(config, preset, "")


def _validate(config: Any, preset: Any, prefix: str) -> None:
  for own in dataclasses.fields(config):
    value = getattr(config, own.name)
    if dataclasses.is_dataclass(value):
      below = preset and getattr(preset, own.name)
      with within(own.name, value):
        _validate(value, below, f"{prefix}{own.name}.")
    else:
      _check_value(own, value)
  if hasattr(config, "check_together"):
    config.check_together()
  if preset is not None:
    _refuse_idle(config, preset, prefix)


@contextlib.contextmanager
def within(name: str, config: Any) -> Iterator[None]:
  """Renames settings of a config to `name.setting` in errors of the block.

  Args:
    name: name of the field, or of the argument, that holds the config.
    config: a dataclass, whose settings the block names without the prefix.
  """
  try:
    yield
  except UserError as error:
    known = names(config)

    def write(setting, value):
      if setting not in known:
        return None
      return named(f"{name}.{setting}", value)

    raise type(error)(rename(str(error), write)) from error


def _check_value(own: dataclasses.Field, value: Any) -> None:
  allowed = limits(own)
  kind, items = own.type, (value,)
  if typing.get_origin(kind) is tuple:
    kind, items = typing.get_args(kind)[0], value
    if not items and allowed.text:
      raise UserError(f"{named(own.name, value)}: allowed: one value or more")
  for item in items:
    if not _is_of(kind, item):
      text = ", ".join(filter(None, (_WORDS.get(kind, "text"), allowed.text)))
    elif not allowed.allow(item) or (kind is float and not math.isfinite(item)):
      text = allowed.text or "a finite number"
    elif kind is int and allowed.most is None and item > _LARGEST:
      text = f"up to {_LARGEST}"
    else:
      continue
    raise UserError(f"{named(own.name, value)}: allowed: {text}")


def _is_of(kind: type, value: Any) -> bool:
  """Returns whether a value has a type; an integer counts as a float, too."""
  if kind not in (int, float):
    return isinstance(value, kind)
  if isinstance(value, bool):
    return False
  if kind is int:
    return isinstance(value, numbers.Integral)
  return isinstance(value, numbers.Real)


def _refuse_idle(config: Any, preset: Any, prefix: str) -> None:
  """Refuses settings that the user changed and that have no effect.

  They only give a warning if the rule allows it, or if the user set the number
  that they depend on to 0, as for a quick trial.
  """
  for rule in getattr(config, "ACTS_WITH", ()):
    if any(_holds(get(config, other), values) for other, values in rule.needs):
      continue
    other = get(config, rule.other)
    left_out = type(other) is int and other != get(preset, rule.other)
    only_warns = left_out or other in rule.warns_with
    for name in _changed(config, preset, rule):
      value = get(config, name)
      if not only_warns:
        raise UserError(
          f"{named(name, value)}: acts only with {_needs_text(rule)}"
        )
      logging.warning(
        "%s does nothing with %s",
        named(f"{prefix}{name}", value),
        named(f"{prefix}{rule.other}", other),
      )


def _changed(config: Any, preset: Any, rule: Only) -> list[str]:
  """Returns the settings of a rule that differ from the preset."""
  groups = tuple(f"{name}." for name in rule.settings)
  others = [other for other, _ in rule.needs]
  return [
    name
    for name in names(config)
    if (name in rule.settings or name.startswith(groups))
    and name not in others
    and get(config, name) != get(preset, name)
  ]


def _holds(value: Any, values: tuple) -> bool:
  return value in values if values else bool(value)


def _needs_text(rule: Only) -> str:
  return " or ".join(
    named(other, value)
    for other, values in rule.needs
    for value in values or (None,)
  )


def numbered(name: str, text: str) -> list[tuple[str, int]]:
  """Parses a setting such as `a:12,b:200`: names, each with a whole number.

  Args:
    name: name of the setting, for messages.
    text: its value.

  Raises:
    UserError: the text has another form, or a number is 0.
  """
  pairs = [part.rpartition(":") for part in text.split(",")] if text else []
  for word, _, number in pairs:
    if not word or not number.isdecimal() or not 0 < int(number) <= _LARGEST:
      raise UserError(
        f"{named(name, text)}: give pairs with commas between them, such as "
        "8:12, whose second part is a whole number above 0"
      )
  return [(word, int(number)) for word, _, number in pairs]


def left_out(own: dataclasses.Field, value: Any) -> bool:
  """Returns whether files leave a setting out: added later, at its default."""
  return bool(own.metadata.get(_ADDED)) and value == own.default


def flatten(config: Any) -> dict:
  """Flattens nested dataclasses to one level of JSON-like settings."""
  settings = {}
  for own in dataclasses.fields(config):
    value = getattr(config, own.name)
    if left_out(own, value):
      continue
    if dataclasses.is_dataclass(value):
      settings |= {f"{own.name}.{k}": v for k, v in flatten(value).items()}
    else:
      settings[own.name] = list(value) if isinstance(value, tuple) else value
  return settings


def unflatten(config_class: type, settings: dict, prefix: str = "") -> Any:
  """Inverts `flatten`; takes lists for tuples, as JSON has no tuples.

  Raises:
    KeyError: a setting is missing.
    TypeError: a setting is of another type.
  """
  values = {}
  for own in dataclasses.fields(config_class):
    name = f"{prefix}{own.name}"
    if own.metadata.get(_ADDED) and not _names(settings, name):
      continue
    if dataclasses.is_dataclass(own.type):
      values[own.name] = unflatten(own.type, settings, f"{name}.")
    else:
      value = settings[name]
      if not _has_type(value, own.type):
        raise TypeError(f"{name} is {value!r}")
      values[own.name] = tuple(value) if isinstance(value, list) else value
  return config_class(**values)


def _names(settings: dict, name: str) -> bool:
  """Returns whether flat settings hold a setting or those inside of it."""
  return any(f"{one}.".startswith(f"{name}.") for one in settings)


def _has_type(value, kind: type) -> bool:
  if typing.get_origin(kind) is tuple:
    inner = typing.get_args(kind)[0]
    return isinstance(value, (tuple, list)) and all(
      _has_type(item, inner) for item in value
    )
  # An int may stand for a float, but a boolean may not.
  return type(value) in ((int, float) if kind is float else (kind,))
