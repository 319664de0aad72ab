"""Pickles from anybody, if they hold numbers, strings, lists and dictionaries.

A pickle may name any function to be called. Here the few that plain data need
are stood for by others, and nothing else is called.
"""

import collections
from collections.abc import Callable
import pickle
from typing import Any, BinaryIO

import numpy as np

_TYPES = ("f4", "f8", "i4", "i8")


def load(file: BinaryIO) -> Any:
  """Reads one pickle.

  Raises:
    Exception: of nearly any kind, if it is damaged; pickle.UnpicklingError, if
      it holds anything else.
  """
  return _Numbers(file).load()


class _Numbers(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Callable:
    """What may be built: scalars of NumPy, from their bytes, and a dict."""
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if module.startswith("numpy") and name in ("scalar", "dtype"):
      return _scalar if name == "scalar" else _Dtype
    raise pickle.UnpicklingError(f"it would call {module}.{name}")


class _Dtype:
  """Stands for a NumPy type, of which only the name is looked at."""

  def __init__(self, name: str, *_):
    self.name = name

  def __setstate__(self, state):
    """The byte order and more; all files are little-endian."""


def _scalar(dtype: _Dtype, data: bytes) -> float | int:
  if dtype.name not in _TYPES or len(data) != int(dtype.name[1:]):
    raise pickle.UnpicklingError(f"it has a number of type {dtype.name!r}")
  return np.frombuffer(data, f"<{dtype.name}")[0].item()
