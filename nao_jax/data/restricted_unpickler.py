"""Reads untrusted pickles of numbers, strings, lists and dictionaries.

A pickle may name any function to be called. Here the few functions that plain
data need are replaced by others, and nothing else is called.
"""

import collections
from collections.abc import Callable
import pickle
from typing import Any, BinaryIO, ClassVar

import numpy as np

_TYPES = ("f4", "f8", "i4", "i8")


def load(file: BinaryIO) -> Any:
  """Reads one pickle.

  Raises:
    Exception: of nearly any kind, if the pickle is damaged;
      pickle.UnpicklingError, if it holds anything else.
  """
  return _Numbers(file).load()


# The one written in Python: that in C makes a table up to the largest number of
# an object that it reads, 60 bytes of a damaged pickle asking for gigabytes.
class _Numbers(pickle._Unpickler):
  # Plain data has no bytearray, for which memory is taken before it is read.
  dispatch: ClassVar = {
    code: read
    for code, read in pickle._Unpickler.dispatch.items()
    if code != pickle.BYTEARRAY8[0]
  }

  def find_class(self, module: str, name: str) -> Callable:
    """Returns the callables allowed: NumPy scalars from bytes, and a dict."""
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if module.startswith("numpy") and name in ("scalar", "dtype"):
      return _scalar if name == "scalar" else _Dtype
    raise pickle.UnpicklingError(f"it would call {module}.{name}")


class _Dtype:
  """Replacement for a NumPy type, of which only the name is used."""

  def __init__(self, name: str, *_):
    self.name = name

  def __setstate__(self, state):
    """Ignores the byte order and more; all files are little-endian."""


def _scalar(dtype: _Dtype, data: bytes) -> float | int:
  if dtype.name not in _TYPES or len(data) != int(dtype.name[1:]):
    raise pickle.UnpicklingError(f"it has a number of type {dtype.name!r}")
  return np.frombuffer(data, f"<{dtype.name}")[0].item()
