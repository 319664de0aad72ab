"""Loads drivers into this process, one at a time, for what their flags say."""

from collections.abc import Iterator
import contextlib
import importlib
import sys
import types

from absl import flags


@contextlib.contextmanager
def set_aside(*places: str) -> Iterator[None]:
  """Takes the flags of modules away, which other tests have imported.

  Args:
    places: how the names of the modules begin.
  """
  aside = [
    (module, flag)
    for module, own in flags.FLAGS.flags_by_module_dict().items()
    if module.startswith(places)
    for flag in own
  ]
  for _, flag in aside:
    delattr(flags.FLAGS, flag.name)
  try:
    yield
  finally:
    for module, flag in aside:
      flags.FLAGS[flag.name] = flag
      flags.FLAGS.register_flag_by_module(module, flag)


@contextlib.contextmanager
def loaded(driver: str) -> Iterator[types.ModuleType]:
  """Imports a driver afresh; its flags go with the block."""
  name = f"experiments.{driver}"
  with set_aside("benchmarks."):
    before = set(flags.FLAGS)
    sys.modules.pop(name, None)
    try:
      yield importlib.import_module(name)
    finally:
      sys.modules.pop(name, None)
      for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
