import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nao_jax.training.optimisers import SgdConfig, sgd

EPOCHS, STEPS_PER_EPOCH = 4, 3


def _by_hand(config, params, gradients):
  """PyTorch's clip_grad_norm_, SGD and CosineAnnealingLR, in NumPy."""
  params = [np.array(p, np.float64) for p in params]
  momenta = [np.zeros_like(p) for p in params]
  for step, gradient in enumerate(gradients):
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradient))
    scale = min(1.0, config.clip / norm)
    rate = _learning_rate(config, step // STEPS_PER_EPOCH)
    for p, m, g in zip(params, momenta, gradient, strict=True):
      decayed = scale * g + config.weight_decay * p
      m[...] = config.momentum * m + decayed
      p -= rate * (decayed + config.momentum * m if config.nesterov else m)
  return params


def _learning_rate(config, epoch):
  top, bottom = config.learning_rate, config.end_learning_rate
  return bottom + (top - bottom) * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2


def _run(config, params, gradients):
  """All values that the parameters take, the first ones included."""
  optimiser = sgd(config, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH)

  def step(carry, gradient):
    params, state = carry
    updates, state = optimiser.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), params

  stacked = jax.tree.map(lambda *g: jnp.stack(g), *gradients)
  _, path = jax.lax.scan(step, (params, optimiser.init(params)), stacked)
  return jax.tree.map(lambda p, q: np.array([p, *q]), params, path)


def _drawn(count):
  """Parameters, and gradients of which some are clipped and some are not."""
  rng = np.random.default_rng(0)
  shapes = [(3, 2), (4,)]
  params = [rng.standard_normal(s).astype(np.float32) for s in shapes]
  gradients = [
    [(scale * rng.standard_normal(s)).astype(np.float32) for s in shapes]
    for scale in np.resize([0.1, 3.0], count)
  ]
  return params, gradients


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_are_those_of_pytorch(nesterov):
  config = SgdConfig(
    learning_rate=0.3,
    end_learning_rate=0.02,
    weight_decay=0.05,
    clip=2.0,
    nesterov=nesterov,
  )
  params, gradients = _drawn(EPOCHS * STEPS_PER_EPOCH)
  norms = [np.sqrt(sum(np.sum(g**2) for g in both)) for both in gradients]
  assert min(norms) < config.clip < max(norms)
  path = _run(config, params, gradients)
  for ours, theirs in zip(
    path, _by_hand(config, params, gradients), strict=True
  ):
    np.testing.assert_allclose(ours[-1], theirs, rtol=2e-5, atol=1e-6)


def test_the_cosine_starts_at_the_top_and_changes_once_an_epoch():
  config = SgdConfig(momentum=0.0, weight_decay=0.0)
  ones = [np.ones(1, np.float32)]
  # One epoch more than the cosine has: there it is at its end.
  steps = (EPOCHS + 1) * STEPS_PER_EPOCH
  (path,) = _run(config, [np.zeros(1, np.float32)], [ones] * steps)
  rates = -np.diff(path[:, 0]).reshape(EPOCHS + 1, STEPS_PER_EPOCH)
  expected = [_learning_rate(config, epoch) for epoch in range(EPOCHS + 1)]
  assert (expected[0], expected[-1]) == (0.025, 0.001)
  np.testing.assert_allclose(
    rates, np.repeat(expected, STEPS_PER_EPOCH).reshape(rates.shape), rtol=1e-3
  )


def test_a_cosine_with_restarts_starts_again_after_10_30_70_150_and_310():
  """The published schedule: T0 10, Tmul 2, 630 epochs."""
  config = SgdConfig(
    schedule="restarts", learning_rate=0.05, end_learning_rate=1e-4
  )
  rates = np.array([config.by_epoch(630)(epoch) for epoch in range(630)])
  (tops,) = np.nonzero(np.isclose(rates, 0.05))
  assert tops.tolist() == [0, 10, 30, 70, 150, 310]
  by_hand = 1e-4 + (0.05 - 1e-4) * (1 + np.cos(np.pi * 25 / 40)) / 2
  np.testing.assert_allclose(rates[55], by_hand, rtol=1e-5)


def test_a_step_schedule_decays_once_an_epoch():
  config = SgdConfig(schedule="step", learning_rate=0.1, decay=0.97)
  rates = [config.by_epoch(250)(epoch) for epoch in (0, 1, 249)]
  np.testing.assert_allclose(rates, [0.1, 0.097, 0.1 * 0.97**249], rtol=1e-4)


def test_a_parameter_without_gradient_coasts_on_its_momentum():
  config = SgdConfig(learning_rate=0.5, end_learning_rate=0.5, weight_decay=0.0)
  one, zero = [np.ones(1, np.float32)], [np.zeros(1, np.float32)]
  (path,) = _run(config, [np.zeros(1, np.float32)], [one, zero, zero])
  steps = -np.diff(path[:, 0]) / 0.5
  np.testing.assert_allclose(steps, [1, 0.9, 0.81], rtol=1e-6)


def test_a_parameter_without_gradient_decays():
  config = SgdConfig(
    learning_rate=0.5, end_learning_rate=0.5, weight_decay=0.1, momentum=0.0
  )
  zero = [np.zeros(1, np.float32)]
  (path,) = _run(config, [np.ones(1, np.float32)], [zero] * 3)
  np.testing.assert_allclose(path[:, 0], 0.95 ** np.arange(4), rtol=1e-6)


def test_batch_norm_decays_unless_told_otherwise():
  zero = {name: np.zeros(1, np.float32) for name in ("kernel", "scale_1")}
  ones = jax.tree.map(np.ones_like, zero)
  for decays in (True, False):
    config = SgdConfig(weight_decay=0.1, decay_batch_norm=decays)
    path = _run(config, ones, [zero] * 2)
    assert path["kernel"][-1] < 1
    assert (path["scale_1"][-1] < 1) == decays
