"""Weights and inputs that anyone can rebuild from their shapes.

The formulas speak of PyTorch's layouts: linear layers and LSTM matrices
`[out, in]`, convolution kernels `[out, in, height, width]`, embeddings
`[vocabulary, width]`.
"""

import numpy as np


def weight(shape: tuple[int, ...]) -> np.ndarray:
  """A parameter of rank 2 or more, float32."""
  count = int(np.prod(shape))
  fan = int(np.prod(shape[1:]))
  k = np.arange(count, dtype=np.float64)
  values = np.sqrt(3 / fan) * np.cos(0.61803398875 * (k + 1) + count)
  return values.reshape(shape).astype(np.float32)


def bias(size: int) -> np.ndarray:
  """A bias, float32 [size]."""
  return (0.1 * np.cos(np.arange(size) + 1.0)).astype(np.float32)


def images(shape: tuple[int, ...]) -> np.ndarray:
  """Images [B, height, width, channels], float32."""
  k = np.arange(int(np.prod(shape)), dtype=np.float64)
  return np.sin(0.37 * k + 0.011 * (k % 97)).reshape(shape).astype(np.float32)


def words(shape: tuple[int, ...]) -> np.ndarray:
  """Tokens of a text, int32."""
  k = np.arange(int(np.prod(shape)))
  return ((13 * k) % 50).reshape(shape).astype(np.int32)


def start_state(shape: tuple[int, ...]) -> np.ndarray:
  """The state of a recurrent network before the first word, float32."""
  k = np.arange(int(np.prod(shape)))
  return (0.1 * np.sin(k)).reshape(shape).astype(np.float32)
