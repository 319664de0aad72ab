"""Flags that several drivers have, with the same meaning in each."""

from collections.abc import Callable

from absl import flags

from experiments import settings
from nao_jax import ranges
from nao_jax.checkpoint import CheckpointConfig
from nao_jax.evaluators.executors import ExecutorConfig

# They belong to the driver that asks for them, whose --help shows them.
flags.disclaim_key_flags()


def workdir() -> flags.FlagHolder:
  """Defines --workdir."""
  return flags.DEFINE_string(
    "workdir", None, "Directory of this run.", required=True
  )


def data_dir() -> flags.FlagHolder:
  """Defines --data_dir."""
  return flags.DEFINE_string(
    "data_dir", "~/.cache/nao_jax/data", "Directory of TFDS data sets."
  )


def devices() -> flags.FlagHolder:
  """Defines --devices."""
  return flags.DEFINE_integer(
    "devices", None, "Local devices to use; all by default.", lower_bound=1
  )


def log() -> flags.FlagHolder:
  """Defines --log."""
  return flags.DEFINE_enum(
    "log",
    "auto",
    ["auto", "plain"],
    "How progress is shown: plain lines, or bars where there is a terminal.",
  )


def architectures() -> flags.FlagHolder:
  """Defines --arch, of a search."""
  return flags.DEFINE_multi_string(
    "arch",
    [],
    "Architecture that starts in the pool: a name, numbers in the published"
    " notation, tokens, or a .json file with `tokens`. Repeat for more.",
  )


def trials() -> flags.FlagHolder:
  """Defines --trials, of a search."""
  return flags.DEFINE_string(
    "trials",
    None,
    "With --evaluator=scratch: file of trials to share with other searches; one"
    " in the workdir by default.",
  )


def checkpoints() -> Callable[[], CheckpointConfig]:
  """Defines --checkpoint_minutes and --checkpoint_steps; call what it gives."""
  minutes = flags.DEFINE_float(
    "checkpoint_minutes",
    CheckpointConfig.minutes,
    "The state is saved when this long has passed since the last time.",
    lower_bound=0.0,
  )
  steps = flags.DEFINE_integer(
    "checkpoint_steps",
    CheckpointConfig.steps,
    "Or this many steps, looked at every 25 steps at least; 0 for no such"
    " limit.",
    lower_bound=0,
  )

  def chosen() -> CheckpointConfig:
    # NaN is not below the bound.
    ranges.check({"weight": {"checkpoint_minutes": minutes.value}})
    return CheckpointConfig(minutes.value, steps.value)

  return chosen


def executor() -> Callable[[], ExecutorConfig]:
  """Defines the flags of where candidates train; call what it gives."""
  return settings.define_all(ExecutorConfig)
