"""Loads drivers into this process, one at a time, for what their flags say."""

from collections.abc import Iterator
import contextlib
import importlib
import sys
import types

from absl import flags


@contextlib.contextmanager
def loaded(driver: str) -> Iterator[types.ModuleType]:
  """Imports a driver afresh; its flags go with the block."""
  before = set(flags.FLAGS)
  name = f"experiments.{driver}"
  sys.modules.pop(name, None)
  try:
    yield importlib.import_module(name)
  finally:
    sys.modules.pop(name, None)
    for flag in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, flag)
