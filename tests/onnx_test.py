"""Networks as ONNX graphs: the logits of jax, for any number of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.data.augment import normalise
from nao_jax.networks import build, onnx_graph
from nao_jax.spaces import cnn
from tests.short_networks import ShortConfig

onnxruntime = pytest.importorskip("onnxruntime")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
FLAT = IMAGES.copy()
FLAT[0] = 7


def _network(name, ops="small"):
  """A network with weights of its own, as a function of images."""
  architecture = cnn.resolve(name, ops=ops, nodes=5)
  config = ShortConfig(
    ops=architecture.ops,
    nodes=architecture.nodes,
    channels=2,
    classes=4,
    auxiliary=False,
  )
  model = build.stand_alone(config, tuple(architecture.tokens.tolist()))
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.float32(IMAGES))
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda x: rng.uniform(0.1, 0.6, x.shape).astype(np.float32), shapes
  )
  return lambda images: model.apply(variables, images)[0]


def _both(function, images):
  """Results of jax and of onnxruntime for images."""
  content = onnx_graph.translate(
    function,
    jax.ShapeDtypeStruct(images.shape[1:], images.dtype),
    ("images", "logits"),
  )
  session = onnxruntime.InferenceSession(content)
  (found,) = session.run(None, {"images": images})
  (part,) = session.run(["logits"], {"images": images[:2]})
  np.testing.assert_allclose(part, found[:2], rtol=1e-5)
  return np.asarray(jax.jit(function)(images)), found


LARGE = " ".join(["0 5 1 6 1 7 0 8 2 9 1 10 0 3 2 4 1 2 3 1"] * 2)


@pytest.mark.parametrize(
  ("name", "ops"),
  [("NAONet-A", ""), ("NAONet-B", ""), ("NAONet-V2", ""), (LARGE, "large")],
  ids=["A", "B", "V2", "large"],
)
def test_logits_are_those_of_jax(name, ops):
  network = _network(name, ops)
  mean = std = np.float32([0.5, 0.4, 0.3])
  expected, found = _both(
    lambda images: network(normalise(images, mean, std)), IMAGES
  )
  scale = abs(expected).max()
  np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


def test_images_may_be_standardised_each_by_itself():
  expected, found = _both(lambda x: normalise(x, None, None), FLAT)
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_cannot_be_translated_is_named():
  def sorted_and_looped(x):
    x = jnp.sort(jnp.float32(x), axis=1)
    return jax.lax.fori_loop(0, 3, lambda _, y: y * 2, x)

  with pytest.raises(onnx_graph.Untranslatable, match=r"scan, sort$"):
    _both(sorted_and_looped, IMAGES)
