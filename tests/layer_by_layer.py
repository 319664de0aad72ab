"""Networks as a chain of small programs: one for each layer and shape."""

from collections.abc import Iterator
import contextlib
from unittest import mock

import jax

from nao_jax.networks import layers

# What is no array among the arguments of each layer.
_STATIC = {
  "avg_pool": ("size", "stride"),
  "batch_norm": ("axis_name",),
  "conv": ("strides", "padding"),
  "depthwise": ("stride", "dilation"),
  "max_pool": ("size", "stride"),
  "moments": ("axis_name",),
  "normalise": (),
  "pointwise": (),
  "valid_avg_pool": ("size", "stride"),
}


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
  """Compiles, or traces, layers once for each shape while it is entered.

  It suits many networks that each run once: op by op there would be at least
  twice as many programs, and the program of a whole network is used only once.
  """
  with contextlib.ExitStack() as stack:
    for name, static in _STATIC.items():
      layer = jax.jit(getattr(layers, name), static_argnames=static)
      stack.enter_context(mock.patch.object(layers, name, layer))
    yield
