"""Flags that several drivers share, with the same meaning in each."""

from collections.abc import Callable, Iterable
from typing import Any

from absl import flags, logging
import jax

from nao_jax import __version__
from nao_jax import settings as library_settings
from nao_jax.data import tables
from nao_jax.distributed import processes
from nao_jax.errors import UserError
from nao_jax.evaluators.executors import ExecutorConfig
from nao_jax.evaluators.table import Table
from nao_jax.runs import trackers
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.tasks.task import RunOptions

from . import settings

# Flags belong to the driver that defines them, whose --help shows them.
flags.disclaim_key_flags()


def preset(default: str, presets: Iterable[str]) -> flags.FlagHolder:
  """Defines --preset."""
  holder = flags.DEFINE_string(
    "preset", default, f"Settings to start from: {', '.join(presets)}."
  )
  settings.offer("preset", presets)
  return holder


def config(
  presets: dict[str, Any],
  default: str,
  prefixes: dict[str, str] = settings.SEARCH_PREFIXES,
  fixed: tuple[str, ...] = (),
) -> Callable[[], Any]:
  """Defines --preset and a flag for each setting; returns a reader of them.

  Args:
    presets: settings by name.
    default: the preset without the flag.
    prefixes: see `settings.define`.
    fixed: see `settings.define`.
  """
  chosen = preset(default, presets)
  # Of several numbers, only whole ones have flags.
  settings.define(type(presets[default]), prefixes, ("step_sizes", *fixed))
  return lambda: settings.choose(presets, chosen.value, prefixes)


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


def truth() -> Callable[[], Table | None]:
  """Defines --table and --column, of true scores; returns a reader of them."""
  table = flags.DEFINE_string(
    "table", None, "File of true scores, in the form of NAS-Bench-201."
  )
  column = flags.DEFINE_string(
    "column", "cifar10:test200", "Column of the table: DATASET:SIGNAL."
  )

  def read() -> Table | None:
    if table.value is None:
      if column.present:
        raise UserError(f"--column={column.value}: needs --table")
      return None
    dataset, _, signal = column.value.partition(":")
    settings.stands_for("column", "signal")
    loaded = tables.load(table.value, dataset, signal)
    return Table(loaded.space, loaded.scores)

  return read


def devices() -> flags.FlagHolder:
  """Defines --devices."""
  return flags.DEFINE_integer(
    "devices",
    None,
    "Devices to use, of each process; all by default.",
    lower_bound=1,
  )


def options() -> Callable[[], RunOptions]:
  """Defines the flags of `RunOptions`; returns a reader of them.

  Call the reader before anything else: it joins the other processes.
  """
  chosen_devices, chosen_log = devices(), _log()
  chosen_checkpoints, join = _checkpoints(), _team()
  chosen_trackers = _track()

  def chosen() -> RunOptions:
    joined = join()
    first = joined is None or joined.first
    return RunOptions(
      chosen_devices.value,
      chosen_checkpoints(),
      chosen_log.value == "plain",
      joined,
      trackers.parse(chosen_trackers.value) if first else (),
    )

  return chosen


def architectures() -> flags.FlagHolder:
  """Defines --arch, of a search."""
  settings.stands_for("arch", "architectures")
  settings.stands_for("arch", "given")
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


def executor() -> Callable[[], ExecutorConfig]:
  """Defines the flags of `ExecutorConfig`; returns a reader of them."""
  return settings.define_all(ExecutorConfig, "executor")


def retired(name: str, reason: str) -> Callable[[], None]:
  """Defines a switch of an earlier version; returns a function that warns.

  The function warns that the switch no longer acts, if it is given.

  Args:
    name: name of the flag.
    reason: the reason, a clause.
  """
  flag = flags.DEFINE_boolean(name, None, f"No longer acts: {reason}.")

  def warn() -> None:
    if flag.value is not None:
      logging.warning("--%s no longer acts: %s", name, reason)

  return warn


def _log() -> flags.FlagHolder:
  """Defines --log."""
  return flags.DEFINE_enum(
    "log",
    "auto",
    ["auto", "plain"],
    "How progress is shown: plain lines, or bars where there is a terminal.",
  )


def _track() -> flags.FlagHolder:
  """Defines --track."""
  return flags.DEFINE_string(
    "track",
    "",
    "Further places for metrics and results, separated by commas:"
    f" {trackers.KINDS}.",
  )


def _checkpoints() -> Callable[[], CheckpointConfig]:
  """Defines the flags of `CheckpointConfig`; returns a reader of them."""
  settings.stands_for("checkpoint_minutes", "checkpoints.minutes")
  settings.stands_for("checkpoint_steps", "checkpoints.steps")
  minutes = flags.DEFINE_float(
    "checkpoint_minutes",
    CheckpointConfig.minutes,
    "The state is saved when this long has passed since the last time.",
    lower_bound=0.0,
  )
  steps = flags.DEFINE_integer(
    "checkpoint_steps",
    CheckpointConfig.steps,
    "Or this many steps, checked between calls to the devices; 0 for no such"
    " limit.",
    lower_bound=0,
  )

  def chosen() -> CheckpointConfig:
    config = CheckpointConfig(minutes.value, steps.value)
    # NaN is not below the bound.
    with library_settings.within("checkpoints", config):
      library_settings.validate(config)
    return config

  return chosen


# The flags that may differ between the processes of a run.
_OWN = (
  *("coordinator", "process_id", "coordinator_seconds", "data_dir", "text"),
  *("track", "log", "log_dir", "verbosity", "stderrthreshold", "logtostderr"),
  *("alsologtostderr", "showprefixforinfo"),
)


def _team() -> Callable[[], processes.Team | None]:
  """Defines --coordinator and related flags; returns a function that joins.

  It joins the other processes, and returns None if there are none.
  """
  for flag, name in (
    ("coordinator", "rendezvous.coordinator"),
    ("num_processes", "rendezvous.count"),
    ("process_id", "rendezvous.number"),
    ("distributed", "rendezvous"),
  ):
    settings.stands_for(flag, name)
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first process, to train in several; the same command runs"
    " in each, but for --process_id.",
  )
  flags.DEFINE_integer(
    "num_processes", None, "With --coordinator: how many processes there are."
  )
  flags.DEFINE_integer(
    "process_id", None, "With --coordinator: which of them this is, from 0."
  )
  flags.DEFINE_boolean(
    "distributed",
    False,
    "Train in several processes, of which SLURM, Open MPI or Cloud TPU knows.",
  )
  flags.DEFINE_float(
    "coordinator_seconds",
    processes.Rendezvous.seconds,
    "How long processes wait for each other at the start.",
    lower_bound=1.0,
  )
  return _join


def _join() -> processes.Team | None:
  """Joins the other processes, if the flags say that there are any."""
  given = flags.FLAGS
  if given.coordinator is None and not given.distributed:
    for name, where in (
      ("num_processes", "--coordinator"),
      ("process_id", "--coordinator"),
      ("coordinator_seconds", "--coordinator or --distributed"),
    ):
      if given[name].present:
        raise UserError(f"--{name}: allowed with {where} only")
    return None
  if given.coordinator is not None and given.distributed:
    raise UserError("--distributed --coordinator: give only one of them")
  return _meet(
    processes.Rendezvous(
      given.coordinator,
      given.num_processes,
      given.process_id,
      given.coordinator_seconds,
    )
  )


def _meet(where: processes.Rendezvous) -> processes.Team:
  """Joins the other processes and compares their flags."""
  met = processes.meet(where)
  if not met.first:
    logging.set_verbosity(logging.WARNING)
  met.compare(_of_all(met))
  logging.info(
    "%d processes, %d devices; if one ends, the others do so within a minute, "
    "and the same commands go on",
    met.count,
    jax.device_count(),
  )
  return met


def _of_all(met: processes.Team) -> dict:
  """Returns the values that must be the same in all processes."""
  given = {
    f"--{name}": flags.FLAGS[name].value
    for name in flags.FLAGS
    if flags.FLAGS[name].present and name not in _OWN
  }
  return {
    "the version of nao_jax": __version__,
    "the version of jax": jax.__version__,
    "the number of processes": met.count,
    "the number of its devices": jax.local_device_count(),
    **given,
  }
