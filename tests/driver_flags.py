"""Loads drivers into this process, one at a time, for what their flags say."""

from collections.abc import Iterator
import contextlib
import importlib
import sys
import types

from absl import flags


@contextlib.contextmanager
def loaded(driver: str) -> Iterator[types.ModuleType]:
  """Imports a driver afresh; its flags go with the block.

  Flags of benchmarks that other tests have imported are set aside, as names
  are the same.
  """
  aside = [
    (module, flag)
    for module, own in flags.FLAGS.flags_by_module_dict().items()
    if module.startswith("benchmarks.")
    for flag in own
  ]
  for _, flag in aside:
    delattr(flags.FLAGS, flag.name)
  before = set(flags.FLAGS)
  name = f"experiments.{driver}"
  sys.modules.pop(name, None)
  try:
    yield importlib.import_module(name)
  finally:
    sys.modules.pop(name, None)
    for flag in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, flag)
    for module, flag in aside:
      flags.FLAGS[flag.name] = flag
      flags.FLAGS.register_flag_by_module(module, flag)
