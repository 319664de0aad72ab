"""Networks as a chain of small programs: one for each layer and shape."""

from collections.abc import Iterator
import contextlib
import sys
from unittest import mock

import jax

from nao_jax.networks import convolutions, normalisation, pooling

# What is no array among the arguments of each layer.
_STATIC = {
  convolutions.conv: ("strides", "padding"),
  convolutions.depthwise: ("stride", "dilation"),
  convolutions.pointwise: (),
  normalisation.batch_norm: ("axis_name", "epsilon"),
  normalisation.moments: ("axis_name",),
  normalisation.normalise: ("epsilon",),
  pooling.avg_pool: ("size", "stride"),
  pooling.max_pool: ("size", "stride"),
  pooling.valid_avg_pool: ("size", "stride"),
}


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
  """Compiles, or traces, layers once for each shape while it is entered.

  It suits many networks that each run once: op by op there would be at least
  twice as many programs, and the program of a whole network is used only once.
  """
  with contextlib.ExitStack() as stack:
    for layer, static in _STATIC.items():
      jitted = jax.jit(layer, static_argnames=static)
      module = sys.modules[layer.__module__]
      stack.enter_context(mock.patch.object(module, layer.__name__, jitted))
    yield
