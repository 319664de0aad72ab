"""Settings know their limits; the library names settings, the drivers flags."""

import dataclasses
import pathlib
import re
from typing import NamedTuple

from absl import flags
import pytest

from experiments import settings as flag_settings
from nao_jax import settings
from nao_jax.errors import UserError
from nao_jax.evaluators.executors import ExecutorConfig
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.settings import Only, field
from nao_jax.studies.comparison import CompareConfig
from nao_jax.studies.controller_study import StudyConfig
from nao_jax.tasks import (
  image_presets,
  image_recipes,
  text_presets,
  text_recipes,
)
from tests import driver_flags

ROOT = pathlib.Path(__file__).parents[1]


class Driver(NamedTuple):
  """A driver whose flags are settings.

  Attributes:
    config_class: of the settings.
    presets: named ones.
  """

  config_class: type
  presets: dict


DRIVERS = {
  "search_cnn": Driver(image_presets.SearchCnnConfig, image_presets.PRESETS),
  "search_rnn": Driver(text_presets.SearchRnnConfig, text_presets.PRESETS),
  "train_cnn": Driver(image_recipes.TrainCnnConfig, image_recipes.RECIPES),
  "train_rnn": Driver(text_recipes.TrainRnnConfig, text_recipes.RECIPES),
  "train_controller": Driver(StudyConfig, {"": StudyConfig()}),
  "compare_strategies": Driver(CompareConfig, {"": CompareConfig()}),
}
# Classes whose settings are an argument of its own, of the searches.
ARGUMENTS = {"executor": ExecutorConfig, "checkpoints": CheckpointConfig}
# What the data or the architecture decides, and what has no flag.
NO_FLAG = {"classes", "vocabulary", "step_sizes"}
WITHOUT = {"train_rnn": {"network.nodes"}, "train_controller": {"nao.held_out"}}


def _outside(limits):
  """Values just outside the limits, by the side on which they are."""
  if limits.choices:
    return ["no such word"]
  values = [float("nan")]
  values += [] if limits.least is None else [limits.least - 1]
  values += [] if limits.above is None else [limits.above]
  values += [] if limits.most is None else [limits.most + 1]
  return values + ([] if limits.below is None else [limits.below])


def _cases():
  """(driver, dotted name, value outside) for every limit of every setting."""
  for driver, (config_class, _) in DRIVERS.items():
    for name, own in settings.names(config_class).items():
      for value in _outside(settings.limits(own)):
        if own.type in (int, float, str) and settings.limits(own).text:
          yield driver, name, value


def _refused(config):
  with pytest.raises(UserError) as refused:
    settings.validate(config, type(config)())
  return refused.value


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_setting_outside_its_limits_is_refused_by_name_and_by_flag(driver):
  config_class = DRIVERS[driver].config_class
  cases = [case[1:] for case in _cases() if case[0] == driver]
  assert cases
  with driver_flags.loaded(driver):
    for name, value in cases:
      error = _refused(settings.replace(config_class(), {name: value}))
      message = str(error)
      assert error.where == name
      assert message.startswith(f"`{name}={value}`: allowed: ")
      assert "--" not in message
      if name in WITHOUT.get(driver, ()) or name.split(".")[-1] in NO_FLAG:
        continue
      line = flag_settings.in_flags(message)
      flag = line.partition("=")[0]
      assert flag.startswith("--")
      assert flag.removeprefix("--") in flags.FLAGS
      assert line.startswith(f"{flag}={value}: allowed: ")
      assert name.split(".")[-1] in flag
      assert "`" not in line
      assert re.search(r"[a-z]\.[a-z]", line) is None


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_settings_beside_a_preset_are_refused_by_their_flags_too(argument):
  config_class = ARGUMENTS[argument]
  with driver_flags.loaded("search_cnn"):
    for name, own in settings.names(config_class).items():
      for value in _outside(settings.limits(own)):
        if not settings.limits(own).text:
          continue
        config = dataclasses.replace(config_class(), **{name: value})
        with pytest.raises(UserError) as refused:  # noqa: SIM117
          with settings.within(argument, config):
            settings.validate(config)
        assert refused.value.where == f"{argument}.{name}"
        line = flag_settings.in_flags(str(refused.value))
        assert line.startswith("--")
        assert line[2:].partition("=")[0] in flags.FLAGS


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_number_and_every_preset_is_within_limits(driver):
  config_class, named = DRIVERS[driver]
  for name, own in settings.names(config_class).items():
    assert own.type in (str, bool) or settings.limits(own).text, name
  for preset in named.values():
    settings.validate(preset, preset)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_help_of_a_flag_gives_its_limits(driver):
  config_class = DRIVERS[driver].config_class
  with driver_flags.loaded(driver):
    assert "allowed: 0 to 4294967295" in (
      flags.FLAGS["seed"].help if "seed" in flags.FLAGS else ""
    )
    for flag in settings.names(config_class):
      if flag in flags.FLAGS:
        assert "default: " in flags.FLAGS[flag].help


@dataclasses.dataclass(frozen=True)
class Inner:
  ACTS_WITH = (Only(("speed",), "moves"),)

  width: int = field(4, least=1, most=9)
  moves: bool = False
  speed: float = field(1.0, above=0)

  def check_together(self):
    if self.width == 5:
      raise UserError(f"`width={self.width}`: odd; see `moves` and `other`")


@dataclasses.dataclass(frozen=True)
class Outer:
  ACTS_WITH = (Only(("inner",), "kind", ("a", "b")),)

  kind: str = field("a", choices=("a", "b", "c"))
  steps: tuple[float, ...] = field((1.0, 2.0), above=0)
  inner: Inner = Inner()


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (Outer(kind="d"), "`kind=d`: allowed: a, b, c"),
    (Outer(steps=(1, 0)), "`steps=(1, 0)`: allowed: above 0"),
    (Outer(steps=()), "`steps=()`: allowed: one value or more"),
    (Outer(inner=Inner(0)), "`inner.width=0`: allowed: 1 to 9"),
    (Outer(inner=Inner(2.5)), "`inner.width=2.5`: allowed: a whole number, "),
    (Outer(inner=Inner(True)), "`inner.width=True`: allowed: a whole number, "),
    (Outer(inner=Inner(moves=1)), "`inner.moves=1`: allowed: True or False"),
    (
      Outer(inner=Inner(5)),
      "`inner.width=5`: odd; see `inner.moves` and `other`",
    ),
    (
      Outer(inner=Inner(speed=2.0)),
      "`inner.speed=2.0`: acts only with `inner.moves`",
    ),
    (
      Outer("c", inner=Inner(6)),
      "`inner.width=6`: acts only with `kind=a` or `kind=b`",
    ),
  ],
)
def test_a_refusal_says_what_was_found_and_what_is_allowed(config, message):
  assert str(_refused(config)).startswith(message)


def test_what_a_preset_sets_is_not_the_users():
  preset = Outer("a", inner=Inner(6, moves=True, speed=2.0))
  settings.validate(dataclasses.replace(preset, kind="c"), preset)
  changed = Outer("c", inner=Inner(6, moves=True, speed=3.0))
  with pytest.raises(UserError, match=r"^`inner.speed=3.0`: acts only with"):
    settings.validate(changed, preset)


def test_a_value_in_a_message_stays_as_the_user_wrote_it():
  with driver_flags.loaded("search_cnn"):
    line = flag_settings.in_flags("`dataset=a`b`: no `tokens` at `seed`, x.y")
  assert line == "--dataset=ab`: no `tokens` at --seed, x.y"


def test_a_switch_is_written_as_its_flag():
  with driver_flags.loaded("search_cnn"):
    line = flag_settings.in_flags("`search.extend=True` `search.extend=False`")
  assert line == "--extend --noextend"


@dataclasses.dataclass(frozen=True)
class Part:
  ACTS_WITH = (Only(("size",), "count"),)

  count: int = field(2, least=0)
  size: int = field(1, least=1)


@dataclasses.dataclass(frozen=True)
class Whole:
  part: Part = Part()


def test_of_a_part_that_is_left_out_the_rest_is_only_said_to_be_idle(caplog):
  """A script for quick trials gives `--final_cells=0 --final_batch=8`."""
  settings.validate(Whole(Part(count=0, size=3)), Whole())
  assert caplog.messages == ["`part.size=3` does nothing with `part.count=0`"]
  with pytest.raises(UserError, match=r"`part.size=3`: acts only with"):
    settings.validate(Whole(Part(count=0, size=3)), Whole(Part(count=0)))


@dataclasses.dataclass(frozen=True)
class Later:
  """`Whole` with two more settings."""

  part: Part = Part()
  more: int = field(0, least=0, added=True)
  other: Part = field(Part(), added=True)


def test_a_setting_that_was_added_later_is_written_where_it_is_used():
  assert settings.flatten(Later()) == settings.flatten(Whole())
  for config in (Later(), Later(more=1), Later(other=Part(3))):
    written = settings.flatten(config)
    assert settings.unflatten(Later, written) == config
  assert settings.flatten(Later(more=1))["more"] == 1
  assert settings.flatten(Later(other=Part(3)))["other.size"] == 1


def test_several_numbers_are_one_flag():
  with driver_flags.loaded("search_cnn") as driver:
    flags.FLAGS["mobile_widths"].parse("8,16")
    with pytest.raises(UserError) as refused:
      flag_settings.choose(
        driver.image_presets.PRESETS,
        "mobile_cifar10",
        flag_settings.SEARCH_PREFIXES,
      )
    assert flag_settings.in_flags(str(refused.value)) == (
      "--mobile_widths=8,16: 2 numbers, but --mobile_places=2,3,3 has 3; give "
      "as many"
    )


@dataclasses.dataclass(frozen=True)
class Strategies:
  ACTS_WITH = (Only(("seeds",), "strategy", ("clever",), ("random",)),)

  strategy: str = field("clever", choices=("clever", "other", "random"))
  seeds: int = field(1, least=1)


def test_a_baseline_takes_the_flags_of_its_search(caplog):
  settings.validate(Strategies("random", 2), Strategies())
  assert caplog.messages == ["`seeds=2` does nothing with `strategy=random`"]
  with pytest.raises(UserError, match=r"`seeds=2`: acts only with"):
    settings.validate(Strategies("other", 2), Strategies())
