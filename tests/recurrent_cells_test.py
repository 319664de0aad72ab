"""The benchmark of a search for recurrent cells, and its LSTM.

Shapes: T steps of text, B streams, H width, V words.
"""

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import language_models, lstm, recurrent_cells, results
from nao_jax.errors import UserError
from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.search.config import SearchConfig
from nao_jax.tasks.text_presets import FinalConfig, SearchRnnConfig
from nao_jax.training import language
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.recurrent import State, Trainer
from tests import drivers, running, trees

T, B, H, V = 7, 3, 5, 11
MODEL = LanguageModelConfig(
  nodes=2,
  width=H,
  vocabulary=V,
  output_dropout=0.2,
  hidden_dropout=0.3,
  input_dropout=0.2,
  embedding_dropout=0.2,
  word_dropout=0.2,
)
TRAIN = TextTrainConfig(
  epochs=2, batch=4, bptt=6, learning_rate=2.0, clip=0.5, weight_decay=1e-3
)
TRAINER = Trainer(MODEL, TRAIN)


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _by_hand(weights, tokens, h, c, masks):
  """Outputs [T, B, H], and h and c at the end: an LSTM word by word."""
  outputs = []
  for row in tokens:
    x = weights.embedding[row] * masks.words[row][:, None]
    x = x * masks.embedding * masks.input
    blocks = [
      x @ weights.input[:, columns]
      + (h * masks.hidden) @ weights.state[:, columns]
      + weights.gates[columns]
      for columns in np.split(np.arange(4 * H), 4)
    ]
    c = _sigmoid(blocks[1]) * c + _sigmoid(blocks[0]) * np.tanh(blocks[3])
    h = _sigmoid(blocks[2]) * np.tanh(c)
    outputs.append(h)
  return np.array(outputs), h, c


def test_the_lstm_is_that_of_a_plain_loop():
  rng = np.random.default_rng(0)
  shapes = lstm.Weights((V, H), (V,), (H, 4 * H), (H, 4 * H), (4 * H,))
  weights = lstm.Weights(*(rng.normal(size=shape) for shape in shapes))
  tokens = rng.integers(0, V, (T, B))
  h, c = rng.normal(size=(2, B, H))
  with jax.enable_x64(True):
    masks = recurrent.draw_masks(jax.random.key(0), MODEL, B)
    found = jax.jit(lstm.apply)(
      jax.tree.map(jnp.asarray, weights),
      None,
      tokens,
      np.concatenate([h, c], 1),
      masks,
      T - 2,
    )
  masks = jax.tree.map(np.asarray, masks)
  raw, h, c = _by_hand(weights, tokens[: T - 2], h, c, masks)
  assert found.raw.dtype == np.float64
  for a, b in (
    (found.raw[: T - 2], raw),
    (found.dropped[: T - 2], raw * masks.output),
    (found.hidden, np.concatenate([h, c], 1)),
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_a_step_of_the_lstm_is_clipped_gradient_descent():
  weights = lstm.init(jax.random.key(0), MODEL)
  key, hidden = jax.random.key(2), jnp.full((B, 2 * H), 0.1)
  tokens = jax.random.randint(jax.random.key(1), (11, B), 0, V)

  def objective(weights):
    masks = recurrent.draw_masks(jax.random.fold_in(key, 7), MODEL, B)
    outputs = lstm.apply(weights, None, tokens[:8], hidden, masks)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      recurrent.logits(weights, outputs.dropped), tokens[1:9]
    )
    changes = jnp.square(jnp.diff(outputs.raw, axis=0)).mean()
    return losses.mean() + TRAIN.slowness * changes

  optimiser = optax.chain(
    optax.clip_by_global_norm(TRAIN.clip),
    optax.add_decayed_weights(TRAIN.weight_decay),
    optax.sgd(TRAIN.learning_rate * 8 / TRAIN.bptt),
  )
  changes, _ = optimiser.update(
    jax.jit(jax.grad(objective))(weights), optimiser.init(weights), weights
  )
  (new, _), _ = jax.jit(lstm.update, static_argnames="trainer")(
    State(weights, hidden), key, 7, language.Batch(tokens, 8), trainer=TRAINER
  )
  trees.assert_close(new, optax.apply_updates(weights, changes), atol=1e-6)


def test_the_lstm_learns_a_text_that_repeats():
  streams = np.arange(60)[:, None] % V + np.zeros((1, 4), np.int64)
  network = dataclasses.replace(
    MODEL,
    width=8,
    **{
      f"{name}_dropout": 0.0
      for name in ("output", "hidden", "input", "embedding", "word")
    },
  )
  trainer = Trainer(network, dataclasses.replace(TRAIN, weight_decay=0.0))
  update = jax.jit(lstm.update, static_argnames="trainer")
  weights, losses = lstm.init(jax.random.key(0), network), []
  for number in range(150):
    (weights, _), loss = update(
      State(weights, np.zeros((4, 16), np.float32)),
      jax.random.key(1),
      number,
      language.Batch(streams[:21], 20),
      trainer=trainer,
    )
    losses.append(float(loss))
  assert losses[0] == pytest.approx(np.log(V), abs=0.1)
  assert losses[-1] < 0.2 * losses[0]
  # Measured from the same zero state, without a further step.
  measured = lstm.measure(weights, language.windows(streams[:21], 7))
  assert float(measured) < losses[-1] + 0.01


widths, vocabularies = st.integers(1, 400), st.integers(2, 20_000)


def test_the_lstm_has_as_many_parameters_as_it_says():
  shapes = jax.eval_shape(lambda key: lstm.init(key, MODEL), jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert count == lstm.parameters(H, V)


@given(widths, widths, vocabularies)
def test_the_width_of_the_lstm_is_the_nearest(nodes, width, vocabulary):
  network = LanguageModelConfig(nodes, width, vocabulary)
  found = lstm.width_for(network.parameters, vocabulary)
  away = [
    abs(lstm.parameters(other, vocabulary) - network.parameters)
    for other in range(1, 2 * found + 2)
  ]
  assert away[found - 1] == min(away)


def test_the_same_order_agrees_and_the_opposite_one_does_not():
  scores = np.linspace(-5, -4, 20)
  for sign in (1, -1):
    found = recurrent_cells.agreement(scores, sign * scores**3, 50)
    assert list(found) == ["spearman", "kendall"]
    np.testing.assert_allclose(list(found.values()), sign)


def test_an_interval_covers_what_is_measured_and_is_wide_for_chance():
  first, second = np.random.default_rng(0).normal(size=(2, 20))
  found = recurrent_cells.agreement(first, second, 200)
  for value, low, high in found.values():
    assert low < value < high
    assert high - low > 0.4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A tiny search that is finished."""
  folder = tmp_path_factory.mktemp("run")
  for seed, (part, count) in enumerate(
    {"train": 400, "valid": 120, "test": 100}.items()
  ):
    words = np.random.default_rng(seed).choice([1, 1, 5], count).cumsum() % V
    (folder / f"tiny.{part}.txt").write_text(
      " ".join(f"w{word}" for word in words) + "\n"
    )
  config = SearchRnnConfig(
    text=str(folder),
    strategy="random",
    network=MODEL,
    train=dataclasses.replace(TRAIN, learning_rate=10.0),
    search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
    finalists=0,
    final=FinalConfig(cells=0),
  )
  running.search_texts(config, workdir=folder / "search", devices=1)
  return folder / "search"


def _measure(run):
  return drivers.run(
    "benchmarks.recurrent_cells", f"--workdir={run}",
    "--candidates=3", "--candidate_epochs=1", "--random_cells=1", "--seeds=2",
    "--epochs=1",
  )  # fmt: skip


def _perplexities(results):
  return {
    name: [
      (seed, training["test perplexity"])
      for seed, training in model["trainings"].items()
    ]
    for name, model in results["finals"].items()
  }


def test_a_measurement_that_goes_on_ends_with_the_same_numbers(run):
  ran = _measure(run)
  assert ran.returncode == 0, ran.stderr
  for shown in ("kendall", "NAO-RNN", "LSTM"):
    assert shown in ran.stdout
  file = run / "recurrent_cells.json"
  whole = json.loads(file.read_text())
  found = _perplexities(whole)
  assert list(found) == ["found", "NAO-RNN", "random 1", "LSTM"]
  for trainings in found.values():
    assert [seed for seed, _ in trainings] == ["1000", "1001"]
    # Of 13 words, and two seeds differ.
    assert all(1 < perplexity < 20 for _, perplexity in trainings)
    assert trainings[0][1] != trainings[1][1]
  stopped = json.loads(file.read_text())
  del stopped["ranks"], stopped["finals"]["found"]["trainings"]["1001"]
  del stopped["finals"]["LSTM"]
  file.write_text(json.dumps(stopped))
  ran = _measure(run)
  assert ran.returncode == 0, ran.stderr
  assert "3 of 3 candidates were trained before" in ran.stderr
  again = json.loads(file.read_text())
  assert again["ranks"] == whole["ranks"]
  assert {k: sorted(v) for k, v in _perplexities(again).items()} == found


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ('{"settings": {"width": 5}}', "holds results of other settings"),
    ("[]", "not results"),
    ("{", "not results"),
  ],
)
def test_results_of_something_else_are_refused(content, message, tmp_path):
  file = tmp_path / "results.json"
  file.write_text(content)
  with pytest.raises(UserError, match=f"^--json={file}: {message}"):
    results.read(str(file), {"settings": {"width": 6}})


def test_the_lstm_beside_a_cell_is_about_as_large():
  network = dataclasses.replace(MODEL, width=40, vocabulary=500)
  cell = language_models.of_cell(
    np.int32([1, 3, 2, 4]), Trainer(network, TRAIN)
  )
  other = language_models.of_lstm(cell.parameters, Trainer(network, TRAIN))
  assert other.parameters == pytest.approx(cell.parameters, rel=0.02)
  weights = other.init(jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(weights))
  assert count == other.parameters
