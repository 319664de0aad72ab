"""Morphological operators agree with SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from nao_jax.networks import morphology, ops, parameters
from nao_jax.networks.supernet import Supernet
from nao_jax.spaces import cnn
from tests.short_networks import ShortConfig

KEY = jax.random.key(0)
MAPS = np.random.default_rng(0).normal(size=(3, 6, 7, 2)).astype(np.float32)


def _dilated(image, structure):
  return ndimage.grey_dilation(
    image, structure=structure, mode="constant", cval=-np.inf
  )


def _eroded(image, structure):
  return ndimage.grey_erosion(
    image, structure=structure, mode="constant", cval=np.inf
  )


def _each(function, structures):
  """Applies a function of an image and a structure to every map."""
  return np.stack(
    [
      np.stack(
        [function(MAPS[c, ..., b], structures[c]) for b in range(2)], axis=-1
      )
      for c in range(3)
    ]
  )


@pytest.mark.parametrize("size", [3, 5])
def test_flat_operators_are_scipys(size):
  flat = np.zeros((3, size, size))
  dilated, eroded = _each(_dilated, flat), _each(_eroded, flat)
  opened = _each(lambda f, s: _dilated(_eroded(f, s), s), flat)
  closed = _each(lambda f, s: _eroded(_dilated(f, s), s), flat)
  expected = {
    "dilation": dilated,
    "erosion": eroded,
    "gradient": dilated - eroded,
    "opening": opened,
    "closing": closed,
    "top_hat": MAPS - opened,
  }
  assert expected.keys() == morphology.FLAT.keys()
  for name, operator in morphology.FLAT.items():
    np.testing.assert_allclose(
      operator(MAPS, size), expected[name], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
  ("name", "reference"), [("dilation", _dilated), ("erosion", _eroded)]
)
def test_learnt_operators_are_scipys_with_a_structure(name, reference):
  structures = np.random.default_rng(1).normal(size=(3, 3, 3))
  found = morphology.LEARNT[f"learnt_{name}"](MAPS, jnp.float32(structures))
  expected = _each(reference, structures)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", morphology.LEARNT)
def test_a_flat_structure_is_the_flat_operator(name):
  flat = morphology.FLAT[name.removeprefix("learnt_")](MAPS, 3)
  found = morphology.LEARNT[name](MAPS, jnp.zeros((3, 3, 3)))
  np.testing.assert_array_equal(found, flat)


@pytest.mark.parametrize("name", morphology.LEARNT)
def test_gradients_of_learnt_operators_are_differences(name):
  operator = morphology.LEARNT[name]
  structures = jax.random.normal(KEY, (3, 3, 3))
  weights = jax.random.normal(KEY, MAPS.shape)
  total = lambda x, b: jnp.sum(operator(x, b) * weights)  # noqa: E731
  jax.test_util.check_grads(total, (MAPS, structures), 1, ["rev"], eps=1e-3)


def test_the_gradient_of_a_maximum_goes_to_its_first_winner():
  gradient = jax.grad(
    lambda x: morphology.learnt_dilation(x, jnp.zeros((1, 3, 3)))[0, 1, 1, 0]
  )(jnp.ones((1, 3, 3, 1)))
  np.testing.assert_array_equal(
    gradient[0, ..., 0], np.eye(3)[:1].T * [1, 0, 0]
  )


@pytest.mark.parametrize("op", cnn.OP_SETS["morphological"])
@pytest.mark.parametrize("stride", [1, 2])
def test_they_keep_the_channels_and_halve_maps_at_stride_2(op, stride):
  shapes = ops.shapes(op, 4, stride)
  weights = {k: jnp.ones(shape) for k, shape in shapes.items()}
  x = jax.random.normal(KEY, (4, 8, 8, 2))
  y = ops.apply(op, x, weights, stride=stride)
  assert y.shape == (4, 8 // stride, 8 // stride, 2)
  assert np.isfinite(y).all()


def test_a_supernet_of_them_learns():
  config = ShortConfig(ops="morphological", channels=4, nodes=2, kinds="R")
  network, space = Supernet(config), cnn.space(2, "morphological")
  images = jax.random.normal(KEY, (4, 8, 8, 3))
  tokens = np.asarray(space.sample(KEY, 1))
  reduction = space.text(tokens[0]).split("|")[1].split()
  assert max(map(int, reduction[1::2])) > 1  # The first two are others.
  cells = config.to_cells(tokens)[0]
  variables = parameters.initialise(network, KEY, images, cells)

  @jax.jit
  @jax.value_and_grad
  def learn(variables):
    logits, _ = network.apply(variables, images, cells)
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)])

  loss, gradient = learn(variables)
  step = jax.tree.map(lambda w, g: w - 1e-4 * g, variables, gradient)
  assert learn(step)[0] < loss
