"""Searches for recurrent cells, with and without weight sharing."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nao_jax import settings
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.data import text
from nao_jax.errors import UserError
from nao_jax.evaluators.shared_language import SharedLanguage
from nao_jax.evaluators.text_candidates import TextCandidates
from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.search import finals
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import rnn
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.tasks.text_presets import (
  PRESETS,
  FinalConfig,
  FinalistConfig,
  SearchRnnConfig,
)
from nao_jax.training import language
from nao_jax.training import recurrent as training_recurrent
from nao_jax.training.language import Batch, TextTrainConfig
from nao_jax.training.recurrent import State, Trainer, programs, update
from tests import drivers, running, tracing, trees
from tests.stand_ins import Killed, nothing

WORDS = 12
MODEL = LanguageModelConfig(
  nodes=3,
  width=6,
  vocabulary=WORDS + 1,
  output_dropout=0.2,
  hidden_dropout=0.2,
  input_dropout=0.2,
  embedding_dropout=0.2,
)
TRAIN = TextTrainConfig(
  epochs=2, batch=4, bptt=6, learning_rate=2.0, clip=1.0, weight_decay=1e-3
)
SPACE = rnn.space(MODEL.nodes)
ROWS = np.asarray(SPACE.sample(jax.random.key(3), 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Texts in which a word nearly decides the next one."""
  path = tmp_path_factory.mktemp("texts")
  for seed, (part, count) in enumerate(
    {"train": 400, "valid": 120, "test": 100}.items()
  ):
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 1, 1, 5], count)
    words = np.cumsum(steps) % WORDS
    lines = [
      " ".join(f"w{word}" for word in words[i : i + 9])
      for i in range(0, count, 9)
    ]
    (path / f"tiny.{part}.txt").write_text("\n".join(lines) + "\n")
  return path


@pytest.fixture(scope="module")
def config(folder):
  return SearchRnnConfig(
    text=str(folder),
    seed=1,
    strategy="nao",
    network=MODEL,
    train=dataclasses.replace(TRAIN, learning_rate=10.0, clip=0.5),
    search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
    nao=NaoConfig(top_k=3, max_step_size=4, held_out=0.0),
    controller=ControllerConfig(embedding=4, hidden=8, mlp_layers=0),
    fit=FitConfig(epochs=3, batch=4),
    finalists=2,
    finalist=FinalistConfig(epochs=1),
    final=FinalConfig(cells=1, repeats=1, epochs=1),
  )


@pytest.fixture(scope="module")
def corpus(folder):
  return text.load(str(folder))


def test_a_step_that_is_not_finite_changes_nothing_and_ends_the_text():
  trainer = Trainer(MODEL, TRAIN)
  weights = trainer.init(jax.random.key(0))
  cell = jnp.asarray(rnn.to_cells(ROWS[0]))
  tokens = jnp.ones((11, 4), jnp.int32)
  hidden = jnp.full((4, MODEL.width), jnp.nan)
  key = jax.random.key(2)
  (new, after), loss = update(
    State(weights, hidden), key, 7, cell, Batch(tokens, 8), trainer=trainer
  )
  assert np.isnan(loss)
  assert not np.asarray(after).any()  # NaN is true.
  jax.tree.map(np.testing.assert_array_equal, new, weights)


def test_a_shared_step_is_dense_gradient_descent_on_the_bank():
  trainer = Trainer(MODEL, TRAIN, shared=True)
  weights = jax.tree.map(lambda x: 10 * x, trainer.init(jax.random.key(0)))
  cell = jnp.asarray(rnn.to_cells(ROWS[0]))
  tokens = jax.random.randint(jax.random.key(1), (11, 4), 0, WORDS)
  hidden = jnp.full((4, MODEL.width), 0.1)
  key = jax.random.key(2)
  (new, _), loss = update(
    State(weights, hidden), key, 7, cell, Batch(tokens, 8), trainer=trainer
  )

  def objective(weights):
    masks = recurrent.draw_masks(jax.random.fold_in(key, 7), MODEL, 4)
    chosen = recurrent.choose(weights, cell)
    outputs = recurrent.apply(chosen, cell, tokens[:8], hidden, masks)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      recurrent.logits(chosen, outputs.dropped), tokens[1:9]
    )
    changes = jnp.square(jnp.diff(outputs.raw, axis=0)).mean()
    return losses.mean() + TRAIN.slowness * changes

  optimiser = optax.chain(
    optax.clip_by_global_norm(TRAIN.clip),
    optax.add_decayed_weights(TRAIN.weight_decay),
    optax.sgd(TRAIN.learning_rate * 8 / TRAIN.bptt),
  )
  changes, _ = optimiser.update(
    jax.grad(objective)(weights), optimiser.init(weights), weights
  )
  expected = optax.apply_updates(weights, changes)
  trees.assert_close(new, expected, atol=1e-6)
  assert loss == pytest.approx(float(objective(weights)), abs=1e-3)


def _shared(corpus, devices):
  return SharedLanguage(
    Trainer(MODEL, TRAIN, shared=True), corpus, 1, 2, 60, devices
  )


def test_a_step_of_four_cells_averages_their_gradients_on_any_devices():
  trainer = Trainer(MODEL, TRAIN, shared=True)
  weights = jax.tree.map(lambda x: 10 * x, trainer.init(jax.random.key(0)))
  cells = rnn.to_cells(ROWS[:4])
  tokens = jax.random.randint(jax.random.key(1), (11, 4), 0, WORDS)
  hidden = np.linspace(-1, 1, 4 * MODEL.width, dtype=np.float32)
  hidden = hidden.reshape(4, MODEL.width)
  key = jax.random.key(2)

  def average(weights):
    step_key = jax.random.fold_in(key, 7)
    steps = [
      language.gradients(
        trainer.of_cell(weights, cell),
        cell,
        Batch(
          tokens[:, i : i + 1],
          8,
          language.masks(jax.random.fold_in(step_key, i), MODEL, 1, None),
        ),
        hidden[i : i + 1],
        slowness=TRAIN.slowness,
      )
      for i, cell in enumerate(cells)
    ]
    total = jax.tree.map(jnp.zeros_like, weights)
    for cell, step in zip(cells, steps, strict=True):
      rows = recurrent.bank_rows(cell)
      nodes = jnp.zeros_like(weights.nodes).at[rows].add(step.gradients.nodes)
      found = step.gradients._replace(nodes=nodes)
      total = jax.tree.map(lambda x, y: x + y / 4, total, found)
    return total, jnp.concatenate([step.hidden for step in steps])

  mean, after = jax.jit(average)(weights)
  factor = min(1, TRAIN.clip / optax.tree.norm(mean))
  rate = TRAIN.learning_rate * 8 / TRAIN.bptt
  expected = jax.tree.map(
    lambda x, y: x * (1 - rate * TRAIN.weight_decay) - rate * factor * y,
    weights,
    mean,
  )
  for devices in (1, 4):
    step, _ = programs(trainer, devices)
    (new, states), _ = step(
      State(
        jax.tree.map(jnp.copy, weights),
        hidden.reshape(devices, -1, MODEL.width),
      ),
      key,
      np.int32(7),
      cells,
      Batch(language.by_device(tokens, devices), np.int32(8)),
    )
    np.testing.assert_allclose(
      np.reshape(states, after.shape), after, atol=1e-6
    )
    trees.assert_close(new, expected, atol=1e-6)


def test_shared_scores_of_four_devices_are_those_of_one(corpus):
  results = []
  for devices in (1, 4):
    evaluator = _shared(corpus, devices)
    # Far from zero, where the architecture makes a difference.
    state = evaluator.replicate(
      jax.tree.map(lambda x: 20 * x, evaluator.init(jax.random.key(0)))
    )
    for round_ in range(2):
      with tracing.programs() as found:
        state, scores = evaluator.score(
          state, jax.random.key(1), ROWS, round_, nothing
        )
    # The number of windows differs, and with it that of members drawn.
    assert {name.split()[-1] for name in found} <= {"_randint", "jit(_randint)"}
    # Each device has the hidden states of its own streams.
    state = state._replace(hidden=np.concatenate(state.hidden))
    results.append((jax.device_get(state), scores))
  (one, scores), (four, scores_of_four) = results
  trees.assert_close(one, four, atol=2e-5)
  np.testing.assert_allclose(scores, scores_of_four, atol=1e-5)
  assert len(set(scores.tolist())) == len(ROWS)


def test_all_architectures_are_scored_with_the_first_words(corpus):
  evaluator = _shared(corpus, 1)
  state = evaluator.init(jax.random.key(0))
  state = evaluator.replicate(jax.tree.map(lambda x: 20 * x, state))
  weights = jax.tree.map(jnp.asarray, jax.device_get(state.weights))
  # Trained to the end, so that it only scores.
  state = state._replace(epoch=np.int32(evaluator.trainer.train.epochs))
  _, scores = evaluator.score(state, jax.random.key(1), ROWS, 0, nothing)
  streams = corpus.validation[:60].reshape(4, 15).T
  for row, score in zip(ROWS, scores, strict=True):
    cell = rnn.to_cells(row)
    own = recurrent.choose(weights, cell)
    loss = language.measure(own, cell, streams[None])
    assert score == pytest.approx(-float(loss), abs=1e-5)


def test_a_candidate_learns_what_follows_what(corpus):
  train = dataclasses.replace(TRAIN, learning_rate=5.0, weight_decay=0.0)
  candidates = TextCandidates(
    Trainer(dataclasses.replace(MODEL, width=12), train),
    corpus.train,
    corpus.validation,
    1,
    1,
  )
  state = candidates.start(ROWS[0])
  for epoch in range(40):
    with tracing.programs() as found:
      ((state, _, score),) = candidates.epoch([ROWS[0]], [state], [epoch])
    assert not (epoch and found), "a later epoch traces or compiles anew"
  assert np.exp(-score) < 8  # Of 13 words.


def test_a_candidate_does_not_depend_on_those_beside_it(corpus):
  candidates = TextCandidates(
    Trainer(MODEL, TRAIN), corpus.train, corpus.validation, 1, 4
  )
  rows = list(ROWS[:4])
  start = [candidates.start(row) for row in rows]
  four = candidates.epoch(rows, start, [0, 0, 1, 0])
  alone = dataclasses.replace(candidates, devices=1)
  for at, epoch in enumerate([0, 0, 1, 0]):
    ((state, loss, score),) = alone.epoch([rows[at]], [start[at]], [epoch])
    assert score == pytest.approx(four[at][2], abs=1e-5)
    assert loss == pytest.approx(four[at][1], abs=1e-5)
    trees.assert_close(state, four[at][0], atol=1e-5)


def test_an_averaged_candidate_is_scored_by_the_mean_of_its_weights(
  corpus, monkeypatch
):
  """Averaging begins after two epochs, of the candidate that has had two."""
  monkeypatch.setattr(
    training_recurrent,
    "averages_from_now_on",
    lambda losses, patience: len(losses) == 2,
  )
  trainer = Trainer(MODEL, dataclasses.replace(TRAIN, epochs=4))
  texts = corpus.train[:97], corpus.validation
  plain, averaged = (
    TextCandidates(trainer, *texts, 0, 1, averaged=mean)
    for mean in (False, True)
  )
  weights, state = plain.start(ROWS[0]), averaged.start(ROWS[0])
  steps = len(plain._windows)
  assert steps > 1
  for epoch in range(4):
    ((weights, loss, score),) = plain.epoch([ROWS[0]], [weights], [epoch])
    ((state, same_loss, mean_score),) = averaged.epoch(
      [ROWS[0]], [state], [epoch]
    )
    # The training is that of one that is not averaged.
    assert loss == same_loss
    jax.tree.map(np.testing.assert_array_equal, weights, state.model.weights)
    assert (score == mean_score) == (epoch < 2)
    assert state.losses[epoch] == -mean_score
    assert state.model.averaged == [1, 0, steps, 2 * steps][epoch]


@pytest.mark.parametrize("evaluator", ["shared", "scratch"])
def test_a_stopped_search_ends_as_one_that_was_not(
  evaluator, config, tmp_path, monkeypatch, caplog, capsys
):
  caplog.set_level("INFO", logger="absl")
  config = dataclasses.replace(config, evaluator=evaluator)
  best = running.search_texts(config, workdir=tmp_path / "whole", devices=1)
  assert rnn.space(3).accepts(best["tokens"])
  name = {"shared": "with_shared_weights", "scratch": "from_scratch"}
  # Near that of 13 equally likely words.
  perplexity = best[f"validation_perplexity_{name[evaluator]}"]
  assert 1 < perplexity < 16
  rounds = capsys.readouterr().out
  assert "perplexity" in rounds
  assert f" {perplexity:.2f} " in rounds
  if evaluator == "scratch":
    assert f"0 waiting, best perplexity {perplexity:.2f}" in caplog.text
  assert np.shape(best["test_perplexity"]["random"]) == (1, 1)
  tell = Nao.tell

  def killed(*_):
    raise Killed

  with monkeypatch.context() as patch:
    # The second round never begins: nothing of the first was saved.
    patch.setattr(Nao, "tell", killed)
    with pytest.raises(Killed):
      running.search_texts(config, workdir=tmp_path / "stopped", devices=1)
  assert Nao.tell is tell
  with monkeypatch.context() as patch:
    patch.setattr(finals, "run", killed)
    with pytest.raises(Killed):
      running.search_texts(config, workdir=tmp_path / "stopped", devices=1)
  assert (
    running.search_texts(config, workdir=tmp_path / "stopped", devices=1)
    == best
  )


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("train.batch", 6, "4 dev"),
    ("train.epochs", 3, "the"),
    ("train.batch", 400, "too many streams"),
    ("score_tokens", 4, "each of 4 streams"),
    ("text", "/nowhere", "no such"),
    ("seed", -1, "allowed"),
    ("network.nodes", 21, "allowed"),
    ("network.output_dropout", 1.0, "allowed"),
  ],
)
def test_what_cannot_work_is_refused(name, value, message, config, tmp_path):
  with pytest.raises(UserError, match=f"`{name}={value}`: {message}"):
    running.search_texts(
      settings.replace(config, {name: value}), workdir=tmp_path / "run"
    )
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("arch", "message"),
  [
    ("0 1 2 1 0 1", "token 2 at position 2"),
    ("NAO-RNN", "`architectures=NAO-RNN`: 11 nodes; the search has 3"),
    ("NAONet", "those are NAO-RNN, NAO-WS-RNN"),
  ],
)
def test_an_architecture_that_does_not_fit_is_refused(
  arch, message, config, tmp_path
):
  with pytest.raises(UserError, match=message):
    running.search_texts(config, workdir=tmp_path / "run", architectures=[arch])


def test_the_driver_searches_and_says_what_is_wrong(folder, tmp_path):
  command = [
    "experiments.search_rnn", "--preset=demo",
    f"--text={folder}", f"--workdir={tmp_path / 'run'}", "--nodes=2",
    "--width=4", "--batch=4", "--pool_size=4", "--rounds=0",
    "--epochs=1", "--new_per_round=1", "--finalists=0",
    "--final_cells=0", "--score_tokens=40", "--arch=0 1 1 2",
    "--log=plain",
  ]  # fmt: skip
  ran = drivers.run(*command)
  assert ran.returncode == 0, ran.stderr
  best = json.loads((tmp_path / "run" / "best.json").read_text())
  assert best["text"] in ran.stdout
  perplexity = best["validation_perplexity_with_shared_weights"]
  assert f" {perplexity:.2f} " in ran.stdout
  picture = tmp_path / "run" / "best.png"
  assert f"drawn in {picture}" in ran.stdout.replace("\n", "")
  assert picture.read_bytes().startswith(b"\x89PNG")
  assert "<svg" in picture.with_suffix(".svg").read_text()
  assert picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
  ran = drivers.run(*command, "--bptt=1")
  assert ran.returncode == 2
  assert "--bptt=1: allowed: 5 or more" in ran.stderr


def test_the_official_preset_has_the_official_sizes():
  config = PRESETS["ptb"]
  shapes = jax.eval_shape(
    lambda key: recurrent.init(key, config.network, shared=True),
    jax.random.key(0),
  )
  # 50.9 million weights, most of them in the bank.
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert count == 10_000 * 301 + 600 * 600 + 264 * 300 * 600
