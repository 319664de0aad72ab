import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.controller.model import V2, Controller, ControllerConfig, normalise
from nao_jax.spaces import cnn
from nao_jax.spaces.space import SOS, Space
from tests.tiny_controllers import TINY, random_params, random_tokens

# Predecessor and activation, as in a recurrent cell: no swaps, odd widths.
CHAIN = Space(
  name="chain",
  choices=((1,), (4, 5), (1, 2), (4, 5), (1, 2, 3), (4, 5)),
  tokens_per_step=1,
)


# The paper's coding, where a type says which kernels may come next.
TRIPLES = cnn.space(2, "large", "triples")


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
  return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def lstm(weights, inputs, output, cell):
  """One sequence [T, in], step by step; returns [T, H]."""
  outputs = []
  for x in inputs:
    gates = x @ weights["input_kernel"] + weights["input_bias"]
    gates += output @ weights["recurrent_kernel"] + weights["recurrent_bias"]
    i, f, g, o = np.split(gates, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    output = sigmoid(o) * np.tanh(cell)
    outputs.append(output)
  return np.array(outputs)


@pytest.fixture(scope="module")
def controller():
  return Controller(cnn.space(2), TINY)


@pytest.fixture(scope="module")
def params(controller):
  return random_params(controller)


@pytest.fixture(scope="module")
def tokens(controller):
  return random_tokens(controller.space, 5)


@pytest.fixture(scope="module")
def encoded(controller, params, tokens):
  return jax.jit(controller.encode)(params, tokens)


@pytest.fixture(scope="module")
def decode(controller, params):
  return jax.jit(lambda *inputs: controller.decode(params, *inputs))


@pytest.mark.parametrize(
  ("config", "count"), [(ControllerConfig(), 279_533), (V2, 80_845)]
)
def test_the_parameters_are_as_many_as_in_the_official_code(config, count):
  init = Controller(cnn.space(), config).init
  shapes = jax.eval_shape(init, jax.random.key(0))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_parameters_start_as_in_pytorch():
  config = ControllerConfig(32, 64, mlp_layers=2, mlp_width=100)
  init = Controller(cnn.space(), config).init
  params = jax.jit(init)(jax.random.key(0))
  lstm_kernel = params["decoder"]["lstm"]["recurrent_kernel"]
  dense_kernel = params["predictor"]["Dense_1"]["kernel"]
  np.testing.assert_allclose(np.ptp(lstm_kernel), 2 / 8, rtol=0.01)
  np.testing.assert_allclose(np.ptp(dense_kernel), 2 / 10, rtol=0.01)
  np.testing.assert_allclose(
    np.std(params["decoder"]["embedding"]), 1, rtol=0.1
  )


def test_the_encoder_is_an_lstm_over_folded_embeddings(
  controller, params, tokens, encoded
):
  weights = jax.tree.map(np.asarray, params["encoder"])
  (weights_of_lstm,) = (w for w in weights.values() if isinstance(w, dict))
  for row, outputs, embedding in zip(tokens, *encoded, strict=True):
    inputs = weights["embedding"][row].reshape(8, 2 * TINY.embedding)
    zeros = np.zeros(TINY.hidden)
    expected = unit(lstm(weights_of_lstm, inputs, zeros, zeros))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(embedding, unit(expected.mean(0)), atol=1e-5)


def test_the_predictor_is_a_perceptron_with_a_sigmoid(
  controller, params, encoded
):
  weights = jax.tree.map(np.asarray, params["predictor"])
  hidden, last = weights["Dense_0"], weights["Dense_1"]
  units = np.maximum(encoded[1] @ hidden["kernel"] + hidden["bias"], 0)
  expected = sigmoid(units @ last["kernel"] + last["bias"])[:, 0]
  predictions = controller.predict(params, encoded[1])
  np.testing.assert_allclose(predictions, expected, atol=1e-6)


def test_the_decoder_attends_to_the_outputs_at_every_token(
  params, tokens, encoded, decode
):
  weights = jax.tree.map(np.asarray, params["decoder"])
  log_probs = decode(tokens, *encoded)
  rows = zip(np.asarray(tokens), *map(np.asarray, encoded), strict=True)
  for (row, memory, embedding), ours in zip(rows, log_probs, strict=True):
    inputs = weights["embedding"][[SOS, *row[:-1]]]
    queries = lstm(weights["lstm"], inputs, embedding, embedding)
    for query, at in zip(queries, ours, strict=True):
      mix = softmax(memory @ (query @ weights["query_kernel"])) @ memory
      both = np.concatenate([mix, query]) @ weights["attention_kernel"]
      logits = np.tanh(both) @ weights["output_kernel"]
      expected = np.log(softmax(logits + weights["output_bias"]))
      np.testing.assert_allclose(at, expected, atol=1e-5)


def test_a_token_is_decoded_from_the_tokens_before_it_alone(
  controller, tokens, encoded, decode
):
  length = controller.space.length
  truth = np.tile(np.asarray(tokens[:1]), (length, 1))
  # Row t is the truth before t and something else from t on.
  changed = np.where(np.tri(length, k=-1, dtype=bool), truth, truth % 5 + 1)
  memory = [np.repeat(x[:1], length, axis=0) for x in encoded]
  one, other = decode(truth, *memory), decode(changed, *memory)
  differs = np.abs(one - other).max(axis=-1) > 0
  np.testing.assert_array_equal(differs, ~np.tri(length, dtype=bool))


def test_greedy_decoding_takes_the_most_probable_legal_token(
  controller, params, encoded, decode
):
  greedy = jax.jit(controller.greedy_decode)(params, *encoded)
  log_probs = decode(greedy, *encoded)
  best = np.where(controller.space.legal, log_probs, -np.inf).argmax(-1)
  np.testing.assert_array_equal(greedy, best)


def test_greedy_decoding_asks_what_may_follow_the_decoded_token():
  controller = Controller(TRIPLES, TINY)
  params = random_params(controller, scale=2.0)
  tokens = TRIPLES.sample(jax.random.key(0), 40)
  encoded = jax.jit(controller.encode)(params, tokens)
  greedy = jax.jit(controller.greedy_decode)(params, *encoded)
  log_probs = jax.jit(controller.decode)(params, greedy, *encoded)
  before = np.pad(greedy[:, :-1], ((0, 0), (1, 0)), constant_values=SOS)
  unrestricted = np.where(TRIPLES.legal, log_probs, -np.inf)
  best = np.where(TRIPLES.may_follow[before], unrestricted, -np.inf)
  np.testing.assert_array_equal(greedy, best.argmax(-1))
  assert (greedy != unrestricted.argmax(-1)).any()  # The question mattered.


def test_no_bias_makes_an_op_that_does_not_exist():
  # Every type with every kernel, both far more probable than all others.
  controller = Controller(TRIPLES, TINY)
  params = random_params(controller)
  first_type = TRIPLES.choices[1][0]
  wanted = np.array([*np.ndindex(7, 7)])
  wanted += np.array([first_type, first_type + 7])
  biases = np.zeros((49, TRIPLES.vocabulary), np.float32)
  np.put_along_axis(biases, wanted, 100.0, axis=1)

  def decode(bias):
    decoder = params["decoder"] | {"output_bias": bias}
    outputs = normalise(jnp.ones((1, 8, TINY.hidden)))
    return controller.greedy_decode(
      params | {"decoder": decoder}, outputs, outputs[:, 0]
    )[0]

  decoded = np.asarray(jax.jit(jax.vmap(decode))(biases))
  assert all(map(TRIPLES.accepts, decoded.tolist()))
  exists = [k in dict(TRIPLES.follows).get(t, ()) for t, k in wanted]
  assert sum(exists) == 11
  branches = decoded.reshape(49, 8, 3)[..., 1:]
  reached = (branches == wanted[:, None]).all(axis=(1, 2))
  np.testing.assert_array_equal(reached, exists)


@pytest.mark.parametrize(
  "space",
  [
    CHAIN,
    *(cnn.space(nodes) for nodes in range(2, 8)),
    cnn.space(3, "middle"),
    cnn.space(4, "large"),
    TRIPLES,
    cnn.space(5, "large", "triples"),
  ],
  ids=lambda space: space.name,
)
def test_every_decoded_sequence_is_legal(space):
  controller = Controller(space, TINY)
  decode = jax.jit(controller.greedy_decode)
  params = random_params(controller)
  shape = (30, space.length // space.tokens_per_step, TINY.hidden)
  outputs = np.random.default_rng(1).standard_normal(shape)
  outputs = unit(outputs).astype(np.float32)
  # Also with parameters that a fit has ruined.
  for scale in (1.0, 30.0, np.inf, -np.inf, np.nan):
    scaled = jax.tree.map(lambda x, scale=scale: scale * x, params)
    decoded = np.asarray(decode(scaled, outputs, unit(outputs.mean(1))))
    assert decoded.dtype == np.int32
    assert all(map(space.accepts, decoded.tolist()))


def test_logits_that_overflow_do_not_let_illegal_tokens_through():
  controller = Controller(TRIPLES, TINY)
  params = random_params(controller)
  outputs = normalise(jnp.ones((1, 8, TINY.hidden)))
  decode = jax.jit(controller.greedy_decode)
  for bias in (-np.inf, np.inf):
    decoder = params["decoder"] | {
      "output_bias": jnp.full(TRIPLES.vocabulary, bias)
    }
    decoded = decode(params | {"decoder": decoder}, outputs, outputs[:, 0])
    assert TRIPLES.accepts(decoded[0].tolist())


def test_sixty_tokens_fold_into_twenty_steps():
  space = cnn.space(5, "large", "triples")
  config = ControllerConfig(embedding=32)
  controller = Controller(space, config)
  params = jax.eval_shape(controller.init, jax.random.key(0))
  kernel = params["encoder"]["Lstm_0"]["input_kernel"]
  assert kernel.shape == (3 * 32, 4 * 96)
  tokens = jax.ShapeDtypeStruct((7, 60), jnp.int32)
  outputs, _ = jax.eval_shape(controller.encode, params, tokens)
  assert outputs.shape == (7, 20, 96)


def test_dropout_needs_a_key(tokens):
  config = ControllerConfig(6, 8, 1, 10, 0.5, embedding_dropout=0.5)
  controller = Controller(cnn.space(2), config)
  params = random_params(controller)
  encode, predict = jax.jit(controller.encode), jax.jit(controller.predict)
  key, other_key = jax.random.split(jax.random.key(3))
  plain, embedding = encode(params, tokens)
  dropped = encode(params, tokens, key)[0]
  assert not np.allclose(plain, dropped)
  assert not np.allclose(dropped, encode(params, tokens, other_key)[0])
  score = predict(params, embedding)
  assert not np.allclose(score, predict(params, embedding, key))
  np.testing.assert_array_equal(score, predict(params, embedding))


def test_dropped_outputs_of_the_encoder_are_zero_before_they_are_normalised(
  tokens,
):
  config = dataclasses.replace(TINY, output_dropout=0.5)
  controller = Controller(cnn.space(2), config)
  params = random_params(controller)
  encode = jax.jit(controller.encode)
  plain, _ = encode(params, tokens)
  dropped, embedding = encode(params, tokens, jax.random.key(0))
  kept = dropped != 0
  assert 0.4 < kept.mean() < 0.6
  expected = unit(np.where(kept, plain, 0))
  np.testing.assert_allclose(dropped, expected, atol=1e-6)
  np.testing.assert_allclose(embedding, unit(expected.mean(1)), atol=1e-6)


def test_normalising_zero_gives_zero_and_no_nan():
  zeros = jnp.zeros((2, 3))
  value, vjp = jax.vjp(normalise, zeros)
  np.testing.assert_array_equal(value, zeros)
  assert np.isfinite(vjp(jnp.ones((2, 3)))[0]).all()
