"""Shared parts of training language models: windows, losses, gradients.

Shapes: T steps of a bptt window, B streams, H width, N nodes, V words.
"""

import functools
import itertools

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax import parallel
from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig, Masks, Weights
from nao_jax.training import language
from nao_jax.training.language import Batch, Step, Window
from tests import trees

# Sums are taken in other orders.
pytestmark = pytest.mark.usefixtures("double_precision")

DEVICES = 2
B, H, N, V = 4, 3, 3, 7
ROWS = 24
SLOWNESS = 0.5
MODEL = LanguageModelConfig(
  nodes=N,
  width=H,
  vocabulary=V,
  output_dropout=0.4,
  hidden_dropout=0.25,
  input_dropout=0.3,
  word_dropout=0.2,
)
CELL = np.array([[0, 1], [1, 0], [1, 2]], np.int32)
CLIPPED = jax.jit(language.clipped)


@pytest.fixture(scope="module")
def weights():
  rng = np.random.default_rng(0)
  shapes = Weights((V, H), (V,), (2 * H, 2 * H), (N, H, 2 * H))
  return Weights(*(jnp.asarray(rng.normal(size=shape)) for shape in shapes))


@pytest.fixture(scope="module")
def streams():
  """Text, int32 [ROWS, B]."""
  return np.random.default_rng(1).integers(0, V, (ROWS, B)).astype(np.int32)


@pytest.fixture(scope="module")
def hidden():
  return jnp.asarray(np.random.default_rng(2).normal(size=(B, H)))


@pytest.fixture(scope="module")
def masks():
  return recurrent.draw_masks(jax.random.key(0), MODEL, B)


@pytest.fixture(scope="module")
def gradients():
  return jax.jit(functools.partial(language.gradients, slowness=SLOWNESS))


_assert_close = functools.partial(trees.assert_close, rtol=1e-9, atol=1e-12)
seeds = st.integers(0, 2**31 - 1)


@given(seeds, st.integers(0, 2000), st.integers(2, 3000), st.integers(5, 80))
def test_windows_are_the_whole_text_once(seed, epoch, rows, bptt):
  pieces = list(language.random_windows(seed, epoch, rows, bptt))
  assert pieces[0].start == 0
  ends = [piece.start + piece.length for piece in pieces]
  assert [piece.start for piece in pieces[1:]] == ends[:-1]
  # The last row is predicted, and nothing is after it.
  assert ends[-1] == rows - 1
  assert all(1 <= piece.length <= bptt + 20 for piece in pieces)
  assert all(piece.length >= 5 for piece in pieces[:-1])


@given(seeds, st.integers(0, 2000))
def test_windows_depend_on_seed_and_epoch_alone(seed, epoch):
  def draw(*key):
    return list(language.random_windows(*key, 5000, 35))

  assert draw(seed, epoch) == draw(seed, epoch)
  assert draw(seed, epoch) != draw(seed, epoch + 1)
  assert draw(seed, epoch) != draw(seed + 1, epoch)


def test_one_window_in_twenty_is_around_half_as_long():
  pieces = list(language.random_windows(0, 0, 100_000, 100))
  lengths = np.array([piece.length for piece in pieces[:-1]])
  halved = lengths < 75
  assert halved.mean() == pytest.approx(0.05, abs=0.03)
  # Rounded down, so half a step shorter than what was drawn.
  assert lengths[~halved].mean() == pytest.approx(99.5, abs=1)
  assert lengths[~halved].std() == pytest.approx(5, abs=0.5)
  assert lengths[halved].mean() == pytest.approx(49.5, abs=3)


def test_a_length_that_is_drawn_too_long_is_cut_short():
  # This epoch draws a 26.
  pieces = language.random_windows(seed=0, epoch=11, rows=60_000, bptt=5)
  assert max(piece.length for piece in pieces) == 25


def test_a_text_without_a_word_to_predict_has_no_window():
  assert list(language.random_windows(0, 0, 1, 35)) == []


@given(st.integers(1, 200))
def test_a_length_is_padded_to_the_next_multiple(length):
  padded = Window(0, length).padded
  assert padded % language.PADDED_TO == 0
  assert 0 <= padded - length < language.PADDED_TO


@given(st.integers(0, ROWS - 2), st.data())
def test_cut_begins_with_the_window_and_the_row_after_it(start, data):
  text = np.arange(ROWS * B, dtype=np.int32).reshape(ROWS, B)
  length = data.draw(st.integers(1, ROWS - 1 - start))
  window = Window(start, length)
  rows = language.cut(text, window)
  assert rows.shape == (window.padded + 1, B)
  assert rows.dtype == np.int32
  expected = text[start : start + length + 1]
  np.testing.assert_array_equal(rows[: length + 1], expected)
  assert np.isin(rows, text).all()


@pytest.fixture(scope="module")
def plain_loss(weights):
  """Streams to the mean loss, read word by word."""
  step = jax.jit(recurrent.apply)

  def read(streams):
    losses, state = [], jnp.zeros((streams.shape[1], H))
    for row, targets in itertools.pairwise(streams):
      outputs = step(weights, CELL, row[None], state)
      state = outputs.hidden
      scores = np.exp(np.asarray(recurrent.logits(weights, outputs.raw))[0])
      shares = scores / scores.sum(1, keepdims=True)
      losses += [
        -np.log(share[target])
        for share, target in zip(shares, targets, strict=True)
      ]
    return np.mean(losses)

  return read


@pytest.fixture(scope="module")
def measure(weights):
  return jax.jit(functools.partial(language.measure, weights, CELL))


# Windows that divide the 23 or 21 words to predict, and windows that do not;
# the last one takes the whole text.
@pytest.mark.parametrize("steps", [3, 7, ROWS + 5])
@pytest.mark.parametrize("rows", [ROWS, ROWS - 2])
def test_measure_is_the_plain_loss_whatever_the_windows(
  steps, rows, measure, plain_loss, streams
):
  expected = plain_loss(streams[:rows])
  found = measure(language.windows(streams[:rows], steps))
  assert found == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 40), st.integers(1, 12))
def test_windows_predict_every_word_but_the_first_once(rows, steps):
  text = np.arange(rows * B, dtype=np.int32).reshape(rows, B)
  windows = language.windows(text, steps)
  assert windows.shape[1:] == (steps + 1, B)
  np.testing.assert_array_equal(windows[:-1, -1], windows[1:, 0])
  predicted = windows[:, 1:].reshape(-1, B)
  np.testing.assert_array_equal(predicted[: rows - 1], text[1:])
  assert np.all(predicted[rows - 1 :] == -1)
  assert len(predicted) - (rows - 1) < steps


@pytest.fixture(scope="module")
def whole(gradients, weights, streams, hidden, masks):
  """A bptt window of 7 steps without padding."""
  return gradients(weights, CELL, Batch(streams[:8], 7, masks), hidden)


def test_gradients_are_those_of_mean_loss_and_slowness(
  whole, weights, streams, hidden, masks
):
  def objective(weights):
    outputs = recurrent.apply(weights, CELL, streams[:7], hidden, masks)
    log_probs = jax.nn.log_softmax(recurrent.logits(weights, outputs.dropped))
    chosen = jnp.take_along_axis(log_probs, streams[1:8, :, None], 2)
    slowness = jnp.mean(jnp.diff(outputs.raw, axis=0) ** 2)
    return SLOWNESS * slowness - chosen.mean(), -chosen.mean()

  expected, loss = jax.jit(jax.grad(objective, has_aux=True))(weights)
  _assert_close((whole.gradients, whole.loss), (expected, loss))


def test_without_slowness_the_gradients_are_others_and_the_loss_is_not(
  whole, weights, streams, hidden, masks
):
  plain = jax.jit(functools.partial(language.gradients, slowness=0.0))(
    weights, CELL, Batch(streams[:8], 7, masks), hidden
  )
  assert plain.loss == pytest.approx(float(whole.loss), rel=1e-12)
  difference = plain.gradients.nodes - whole.gradients.nodes
  assert np.abs(difference).max() > 1e-3


def test_padding_changes_neither_loss_nor_gradients_nor_state(
  whole, gradients, weights, streams, hidden, masks
):
  for seed in range(2):
    padded = language.cut(streams, Window(0, 7))
    padded[8:] = np.random.default_rng(seed).integers(0, V, (3, B))
    found = gradients(weights, CELL, Batch(padded, 7, masks), hidden)
    _assert_close(found, whole)


def test_a_window_of_one_step_has_finite_gradients(
  gradients, weights, streams, hidden, masks
):
  rows = language.cut(streams, Window(ROWS - 2, 1))
  found = gradients(weights, CELL, Batch(rows, 1, masks), hidden)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_the_state_is_handed_on_to_the_next_window(
  whole, gradients, weights, streams, hidden, masks
):
  state, total = hidden, 0
  for window in (Window(0, 4), Window(4, 3)):
    rows = language.cut(streams, window)
    batch = Batch(rows, window.length, masks)
    found = gradients(weights, CELL, batch, state)
    state, total = found.hidden, total + window.length * found.loss
  _assert_close(state, whole.hidden)
  assert total / 7 == pytest.approx(float(whole.loss), rel=1e-9)


def _step(weights, tokens, hidden, key, axis_name=None):
  """A step that draws its own dropout, as trainings do."""
  masks = language.masks(key, MODEL, len(hidden), axis_name)
  return language.gradients(
    weights,
    CELL,
    Batch(tokens, 7, masks),
    hidden,
    slowness=SLOWNESS,
    axis_name=axis_name,
  ), masks


@pytest.fixture(scope="module")
def one_and_two_devices(weights, streams, hidden):
  key, tokens = jax.random.key(0), language.cut(streams, Window(0, 7))
  one = jax.jit(_step)(weights, tokens, hidden, key)
  two = parallel.spread(
    functools.partial(_step, axis_name=parallel.AXIS),
    in_axes=(None, 1, 0, None),
    out_axes=(Step(None, None, 0), Masks(None, 0, 0, 0, 0)),
    devices=DEVICES,
  )(
    weights,
    tokens.reshape(-1, DEVICES, B // DEVICES),
    hidden.reshape(DEVICES, B // DEVICES, H),
    key,
  )
  return one, jax.tree.map(lambda x, y: np.reshape(y, x.shape), one, two)


def test_two_devices_drop_what_one_drops(one_and_two_devices):
  (_, one), (_, two) = one_and_two_devices
  jax.tree.map(np.testing.assert_array_equal, one, two)
  assert all(0 < np.mean(mask == 0) < 1 for mask in one)


def test_gradients_loss_and_state_of_two_devices_are_those_of_one(
  one_and_two_devices, whole
):
  (one, _), (two, _) = one_and_two_devices
  _assert_close(two, one)
  # The same key as the masks': the same dropout.
  _assert_close(one, whole)


@given(
  st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4),
  st.floats(1e-3, 1e3),
)
def test_clipped_gradients_are_never_longer_and_point_the_same_way(
  numbers, largest
):
  before = np.array(numbers)
  after = np.concatenate(CLIPPED(Weights(*before.reshape(4, 1)), largest))
  norm = np.linalg.norm(before)
  assert np.linalg.norm(after) <= largest * (1 + 1e-9)
  scale = min(1, largest / norm) if norm else 1
  np.testing.assert_allclose(after, before * scale, rtol=1e-9)
