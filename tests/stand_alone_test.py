import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from nao_jax.errors import UserError
from nao_jax.networks import macro, ops, parameters, stand_alone
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.stand_alone import StandAlone
from nao_jax.spaces import cnn
from tests.reference.networks import count

BATCH = 4
CONFIG = NetworkConfig(nodes=2, cells_per_stage=1, channels=2)
# Two loose ends in each cell; one is an input of the reduction cell.
CELLS = np.array([[[0, 0, 1, 4], [1, 3, 0, 2]], [[1, 4, 1, 0], [2, 2, 2, 3]]])
NETWORK = StandAlone(CONFIG, tuple(cnn.to_tokens(CELLS).tolist()))


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def images():
  return _random(0, BATCH, 8, 8, 3)


@pytest.fixture(scope="module")
def variables(images):
  """Running statistics unlike fresh ones, so that their use shows."""
  variables = parameters.initialise(NETWORK, jax.random.key(1), images)
  old = jax.tree.map(lambda leaf: 0.1 * leaf + 0.05, variables["batch_stats"])
  return {"params": variables["params"], "batch_stats": old}


@pytest.fixture(scope="module")
def evaluate():
  ones = np.ones((len(CONFIG.cells), 4, BATCH), np.float32)
  apply = jax.jit(NETWORK.apply)
  return lambda variables, images, masks=ones: apply(variables, images, masks)


def _train(network, variables, images):
  """((logits, auxiliary), new running statistics)."""
  out, new = network.apply(
    variables, images, None, False, mutable="batch_stats"
  )
  return out, new["batch_stats"]


@pytest.fixture(scope="module")
def trained(variables, images):
  """((logits, statistics), gradients) of a training step."""

  def loss(params):
    both = variables | {"params": params}
    (logits, _), statistics = _train(NETWORK, both, images)
    return jnp.sum(logits**2), (logits, statistics)

  value, gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    variables["params"]
  )
  return value[1], gradients


def _stem(variables, images):
  """The stem's convolution in NumPy: [channels, B, H, W]."""
  kernels = np.asarray(variables["params"]["stem"]["conv"])
  return np.array(
    [
      [
        sum(
          signal.correlate2d(image[..., c], kernel[c], mode="same")
          for c in range(3)
        )
        for image in images
      ]
      for kernel in kernels
    ]
  )


def test_running_statistics_follow_the_batch_with_the_unbiased_variance(
  variables, images, trained
):
  old = variables["batch_stats"]["stem"]
  new = trained[0][1]["stem"]
  x = _stem(variables, images).reshape(6, -1)
  mean = 0.9 * old["mean"] + 0.1 * x.mean(1)
  variance = 0.9 * old["variance"] + 0.1 * x.var(1, ddof=1)
  np.testing.assert_allclose(new["mean"], mean, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(new["variance"], variance, rtol=1e-5)


def test_every_running_statistic_follows(variables, trained):
  moved = jax.tree.map(
    lambda old, new: bool(jnp.all(old != new)),
    variables["batch_stats"],
    trained[0][1],
  )
  assert all(jax.tree.leaves(moved))


def test_training_normalises_by_the_biased_variance_of_the_batch(
  variables, images
):
  stem = macro.Stem(CONFIG, statistics="tracked")
  own = {name: variables[name]["stem"] for name in variables}
  (y, _), _ = stem.apply(own, images, mutable="batch_stats")
  x = _stem(variables, images)
  mean = x.mean((1, 2, 3), keepdims=True)
  variance = x.var((1, 2, 3), keepdims=True)
  expected = (x - mean) / np.sqrt(variance + 1e-5)
  np.testing.assert_allclose(
    y, expected.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4
  )


def test_evaluation_of_an_image_does_not_depend_on_its_batch(
  variables, images, evaluate
):
  others = np.concatenate([images[:1], _random(5, BATCH - 1, 8, 8, 3)])
  ours, _ = evaluate(variables, images)
  theirs, _ = evaluate(variables, others)
  np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
  assert np.abs(ours[1] - theirs[1]).max() > 1e-3


def test_training_and_evaluation_normalise_differently(
  variables, images, trained, evaluate
):
  logits, _ = evaluate(variables, images)
  assert np.abs(logits - trained[0][0]).max() > 1e-3


def test_a_fresh_network_has_running_mean_0_and_variance_1(images):
  drawn = parameters.initialise(NETWORK, jax.random.key(0), images)
  plain = jax.eval_shape(NETWORK.init, jax.random.key(0), images)
  assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, plain)
  for path, leaf in jax.tree.leaves_with_path(drawn["batch_stats"]):
    expected = 0.0 if "mean" in path[-1].key else 1.0
    np.testing.assert_array_equal(leaf, expected)


def test_every_parameter_has_a_gradient(trained):
  used = jax.tree.map(lambda leaf: bool(jnp.any(leaf != 0)), trained[1])
  assert all(jax.tree.leaves(used))


def test_devices_agree_on_the_running_statistics_of_the_whole_batch(
  variables, images, trained
):
  network = dataclasses.replace(NETWORK, axis_name="devices")
  step = jax.pmap(
    lambda variables, images: _train(network, variables, images),
    axis_name="devices",
    in_axes=(None, 0),
    devices=jax.devices()[:2],
  )
  (logits, _), statistics = step(variables, images.reshape(2, 2, 8, 8, 3))
  np.testing.assert_allclose(
    logits.reshape(BATCH, -1), trained[0][0], rtol=1e-3, atol=1e-3
  )
  for ours, one_device in zip(
    jax.tree.leaves(statistics), jax.tree.leaves(trained[0][1]), strict=True
  ):
    np.testing.assert_array_equal(ours[0], ours[1])
    np.testing.assert_allclose(ours[0], one_device, rtol=1e-3, atol=1e-4)


def test_a_dropped_branch_changes_its_own_image_alone(
  variables, images, evaluate
):
  masks = np.ones((len(CONFIG.cells), 4, BATCH), np.float32)
  whole, _ = evaluate(variables, images, masks)
  masks = masks.copy()
  masks[2, 1, 3] = 0
  dropped, _ = evaluate(variables, images, masks)
  np.testing.assert_allclose(dropped[:3], whole[:3], rtol=1e-5, atol=1e-6)
  assert np.abs(dropped[3] - whole[3]).max() > 1e-4


def _pool(x, reduce, stride):
  """3x3 pool of [C, H, W, B] over the pixels that exist."""
  rows = range(0, x.shape[1], stride)
  columns = range(0, x.shape[2], stride)
  out = [
    [
      reduce(x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2], (1, 2))
      for j in columns
    ]
    for i in rows
  ]
  return np.moveaxis(np.array(out), (0, 1), (1, 2))


def _factorized_reduction(x, even, odd):
  shifted = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
  y = np.concatenate(
    [
      np.einsum("chwb,cd->dhwb", x[:, ::2, ::2], even),
      np.einsum("chwb,cd->dhwb", shifted[:, ::2, ::2], odd),
    ]
  )
  mean, variance = (f(y, (1, 2, 3), keepdims=True) for f in (np.mean, np.var))
  return (y - mean) / np.sqrt(variance + 1e-5)


def test_a_normal_cell_concatenates_its_loose_ends_in_ascending_order():
  rows = ((0, 2, 1, 4), (0, 3, 0, 4))
  cell = stand_alone.Cell("small", rows, 4, reduction=False)
  a, b = _random(1, 4, 6, 6, 3), _random(2, 4, 6, 6, 3)
  variables = cell.init(jax.random.key(0), a, b, None)
  assert not jax.tree.leaves(variables)
  expected = [_pool(a, np.mean, 1) + b, _pool(a, np.max, 1) + a]
  np.testing.assert_allclose(
    cell.apply(variables, a, b, None), np.concatenate(expected), atol=1e-5
  )


def test_a_reduction_cell_halves_a_loose_input_before_it_concatenates():
  rows = ((1, 3, 1, 2), (2, 4, 1, 4))
  cell = stand_alone.Cell("small", rows, 4, reduction=True)
  a, b = _random(1, 4, 6, 6, 3), _random(2, 4, 6, 6, 3)
  variables = cell.init(jax.random.key(0), a, b, None)
  w = variables["params"]
  loose, identity = (
    _factorized_reduction(x, w[f"{name}_even"], w[f"{name}_odd"])
    for name, x in (("loose_input_0", a), ("branch_3", b))
  )
  node = _pool(b, np.max, 2) + _pool(b, np.mean, 2)
  np.testing.assert_allclose(
    cell.apply(variables, a, b, None),
    np.concatenate([loose, node + identity]),
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
  ("op", "reduce"), [("avg_pool_2x2", np.mean), ("max_pool_2x2", np.max)]
)
def test_a_2x2_pool_looks_right_and_down(op, reduce, stride):
  x = _random(3, 2, 4, 4, 3)
  expected = np.empty((2, 4, 4, 3), np.float32)
  for i, j in np.ndindex(4, 4):
    expected[:, i, j] = reduce(x[:, i : i + 2, j : j + 2], (1, 2))
  y, pullback = jax.vjp(lambda x: ops.apply(op, x, {}, stride=stride), x)
  np.testing.assert_allclose(y, expected[:, ::stride, ::stride], rtol=1e-5)
  # Positively homogeneous functions satisfy Euler's theorem.
  (gradient,) = pullback(y)
  np.testing.assert_allclose(jnp.sum(gradient * x), jnp.sum(y * y), rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", ["conv_1x1", "conv_3x3", "conv_1x3_3x1"])
def test_a_dense_convolution_strides_along_its_window(op, stride):
  x = _random(4, 2, 4, 4, 3)
  weights = {
    name: np.ones(shape) if "scale" in name else _random(6, *shape)
    for name, shape in ops.shapes(op, 2, stride).items()
  }

  def take_x(x, *_args, **_axis):
    return x

  expected = x
  for name in (n for n in weights if "dense" in n or "pointwise" in n):
    kernel = weights[name]
    if "pointwise" in name:
      kernel = kernel.T[:, :, None, None]
    expected = _correlate(np.maximum(expected, 0), kernel)
  y = ops.apply(op, x, weights, stride=stride, norm=take_x)
  np.testing.assert_allclose(
    y, expected[:, ::stride, ::stride], rtol=1e-4, atol=1e-5
  )


def _correlate(x, kernel):
  """[C, H, W, B] with [D, C, k, l], padded so that the size is kept."""
  out = np.zeros((len(kernel), *x.shape[1:]), np.float32)
  for d, c, b in np.ndindex(*kernel.shape[:2], x.shape[3]):
    out[d, ..., b] += signal.correlate2d(x[c, ..., b], kernel[d, c], "same")
  return out


# The first one is the paper's 144.6M network, of 1.93 % error.
@pytest.mark.parametrize(
  ("name", "stem", "cells", "channels", "expected"),
  [
    ("NAONet-A", "cifar", 6, 128, 144_576_394),
    ("NAONet-B", "cifar", 6, 36, 2_921_302),
    ("NAONet-V2", "imagenet", 4, 52, 7_026_850),
  ],
)
def test_published_networks_have_the_published_size(
  name, stem, cells, channels, expected
):
  op_set = "large" if name == "NAONet-A" else "small"
  config = NetworkConfig(
    ops=op_set,
    cells_per_stage=cells,
    channels=channels,
    classes=10 if stem == "cifar" else 1000,
    stem=stem,
  )
  tokens = cnn.parse(cnn.space(ops=op_set), name)
  assert count(StandAlone(config, tuple(tokens.tolist()))) == expected


def test_the_imagenet_network_starts_at_an_eighth_of_the_image():
  config = dataclasses.replace(CONFIG, stem="imagenet", auxiliary=True)
  network = dataclasses.replace(NETWORK, config=config)
  images = jnp.zeros((BATCH, 224, 224, 3))
  stem = macro.Stem(config)
  shapes, _ = jax.eval_shape(stem.init_with_output, jax.random.key(0), images)
  assert [x.shape for x in shapes] == [(2, 56, 56, BATCH), (2, 28, 28, BATCH)]
  (logits, auxiliary), _ = jax.eval_shape(
    network.init_with_output, jax.random.key(0), images
  )
  assert logits.shape == auxiliary.shape == (BATCH, 10)


@pytest.mark.parametrize(
  ("changes", "size", "culprit"),
  [
    ({"stem": "mnist"}, 32, "`stem=mnist`"),
    ({"stem": "imagenet"}, 112, "112 pixels"),
    ({"stem": "imagenet", "auxiliary": True}, 32, "`auxiliary=True`"),
    ({}, 30, "30 pixels"),
  ],
)
def test_a_network_that_cannot_be_built_is_refused(changes, size, culprit):
  with pytest.raises(UserError, match=culprit):
    dataclasses.replace(CONFIG, **changes).check(size)
