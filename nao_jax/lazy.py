"""Packages whose modules load when they are first named."""

from collections.abc import Callable, Iterable
import functools
import importlib
import pkgutil
import types


def submodules(
  package: str, path: Iterable[str]
) -> tuple[Callable[[str], types.ModuleType], Callable[[], list[str]]]:
  """The `__getattr__` and `__dir__` of a package, so that one import is enough.

  Args:
    package: its `__name__`.
    path: its `__path__`.
  """

  @functools.cache
  def names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(path)]

  def load(name: str) -> types.ModuleType:
    if name not in names():
      raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return importlib.import_module(f"{package}.{name}")

  def list_all() -> list[str]:
    return sorted({*vars(importlib.import_module(package)), *names()})

  return load, list_all
