import dataclasses
import json
import math
import shutil

from hypothesis import given
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from nao_jax.data import text
from nao_jax.errors import UserError
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.spaces import rnn
from nao_jax.tasks import text_training
from nao_jax.tasks.text_training import RECIPES, TrainRnnConfig
from nao_jax.training import language, recurrent, stand_alone_language
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.recurrent import averages_from_now_on
from nao_jax.training.stand_alone_language import Reader, end_epoch

ARCH = "0 0 1 1 0 3"
EPOCHS, BATCH = 4, 8
CONFIG = TrainRnnConfig(
  arch=ARCH,
  seed=5,
  network=LanguageModelConfig(
    width=8,
    output_dropout=0.2,
    hidden_dropout=0.1,
    input_dropout=0.2,
    embedding_dropout=0.1,
    word_dropout=0.1,
  ),
  train=TextTrainConfig(
    epochs=EPOCHS, batch=BATCH, bptt=5, learning_rate=5.0, clip=0.25
  ),
  # Averages as soon as a loss is worse than all before.
  patience=0,
  eval_batch=4,
)


@pytest.fixture(scope="module", autouse=True)
def fast_compilation():
  jax.config.update("jax_disable_most_optimizations", True)
  # Short windows are of one length, so that one program is compiled.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(language, "PADDED_TO", 30)
    yield
  jax.config.update("jax_disable_most_optimizations", False)


def _sentence(rng):
  """Nouns are followed by verbs, and a few of both are frequent."""
  noun, verb = (int(rng.zipf(1.5)) % 9 for _ in range(2))
  return f"the n{noun} v{verb}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A text of 150 lines of four words, 20 different ones."""
  rng = np.random.default_rng(0)
  folder = tmp_path_factory.mktemp("text")
  for part, lines in (("train", 110), ("valid", 20), ("test", 20)):
    sentences = "\n".join(_sentence(rng) for _ in range(lines))
    (folder / f"tiny.{part}.txt").write_text(sentences)
  return str(folder)


@pytest.fixture(scope="module")
def config(folder):
  return dataclasses.replace(CONFIG, text=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
  """A training that has run to its end: its workdir and its result."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  return workdir, text_training.run(config, workdir=workdir, devices=1)


class Killed(Exception):
  pass


def _training(config):
  corpus = text.load(config.text, vocab_size=config.vocab_size)
  return text_training.fit_to_text(config, corpus), corpus


def _state(workdir, config):
  return _training(config)[0].restore(workdir / "checkpoints")


def _assert_same_bits(workdir, other, config):
  leaves = (jax.tree.leaves(_state(path, config)) for path in (workdir, other))
  for a, b in zip(*leaves, strict=True):
    np.testing.assert_array_equal(a, b)


def _history(workdir):
  lines = (workdir / "history.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def _change_calls(patch, change):
  """Has `change(call)` take the place of what a call leads to."""
  train = Reader.train
  patch.setattr(
    Reader, "train", lambda *arguments: map(change, train(*arguments))
  )


def _run_until(epoch, step, config, workdir, **settings):
  """Runs a training that ends abruptly after a step."""

  def mortal(call):
    if (call.state.epoch, call.state.step) == (epoch, step):
      raise Killed
    return call

  with pytest.MonkeyPatch.context() as patch:
    _change_calls(patch, mortal)
    with pytest.raises(Killed):
      text_training.run(config, workdir=workdir, devices=1, **settings)


def test_the_result_says_what_was_trained_and_how_good_it_is(finished, config):
  workdir, result = finished
  assert json.loads((workdir / "result.json").read_text()) == result
  assert result["text"] == ARCH
  assert result["tokens"] == rnn.resolve(ARCH).tolist()
  weights = _state(workdir, config).model.weights
  assert result["parameters"] == sum(x.size for x in weights)
  assert result["test"]["words"] == 20 * 4 - 1
  assert result["validation"]["words"] == 20 * 4 - 4
  # Of 20 words; a line is mostly its structure.
  assert result["test"]["perplexity"] < 12
  assert result["test"]["perplexity"] == math.exp(result["test"]["loss"])


def test_history_has_a_line_an_epoch_and_the_best_one_is_kept(finished):
  workdir, result = finished
  reports = _history(workdir)
  assert [report["epoch"] for report in reports] == list(range(EPOCHS))
  assert reports[1]["loss"] < reports[0]["loss"]
  losses = [report["validation_loss"] for report in reports]
  assert result["best_epoch"] == np.argmin(losses)
  assert result["validation"]["loss"] == min(losses)


def test_every_word_is_trained_on_in_every_epoch(config):
  training, corpus = _training(config)
  reader = training.reader(corpus, 1)
  state = training.init()
  calls = list(reader.train(state, training.keys()[1]))
  rows = len(corpus.train) // BATCH
  assert sum(call.words for call in calls) == (rows - 1) * BATCH == reader.words
  assert reader.words_read(state) == 0
  assert reader.words_read(calls[-1].state) == reader.words
  later = state._replace(epoch=np.int32(2))
  assert reader.words_read(later) == 2 * reader.words


def test_a_stopped_training_ends_with_the_same_bits(
  finished, config, tmp_path, monkeypatch
):
  """After any step: it is stopped after one, goes on, and is stopped again."""
  # One step a call, so that it can stop after any of them.
  monkeypatch.setattr(stand_alone_language, "STRETCHES_A_CALL", 1)
  every = {"checkpoints": CheckpointConfig(steps=2)}
  workdir = tmp_path / "run"
  for epoch, step in ((0, 1), (0, 4), (1, 3), (2, 1), (2, 2), (3, 5)):
    _run_until(epoch, step, config, workdir, **every)
  result = text_training.run(config, workdir=workdir, devices=1, **every)
  assert result == finished[1]
  _assert_same_bits(workdir, finished[0], config)
  assert [report["epoch"] for report in _history(workdir)] == [*range(EPOCHS)]


def test_a_training_stopped_while_it_averages_ends_with_the_same_bits(
  config, tmp_path, monkeypatch
):
  monkeypatch.setattr(stand_alone_language, "STRETCHES_A_CALL", 1)
  monkeypatch.setattr(
    recurrent,
    "averages_from_now_on",
    lambda losses, patience: len(losses) == 2,
  )
  every = {"checkpoints": CheckpointConfig(steps=1)}
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  result = text_training.run(config, workdir=whole, devices=1)
  assert [r["averaging"] for r in _history(whole)] == [False] * 2 + [True] * 2
  for step in (1, 3):
    _run_until(2, step, config, stopped, **every)
  again = text_training.run(config, workdir=stopped, devices=1, **every)
  assert again == result
  _assert_same_bits(whole, stopped, config)
  state = _state(whole, config)
  windows = sum(report["steps"] for report in _history(whole)[2:])
  assert state.model.averaging
  assert state.model.averaged == windows


def test_the_mean_is_that_of_the_weights_since_averaging_began(
  config, monkeypatch
):
  monkeypatch.setattr(stand_alone_language, "STRETCHES_A_CALL", 1)
  training, corpus = _training(config)
  reader, key = training.reader(corpus, 1), training.keys()[1]
  calls = list(reader.train(training.init(), key))
  for weights, mean in zip(*calls[-1].state.model[:2], strict=True):
    np.testing.assert_array_equal(weights, mean)
  state = calls[-1].state
  for loss in (1.0, 2.0):
    state = end_epoch(state, loss, trainer=training.trainer, patience=0)
  assert state.model.averaging
  models = [call.state.model for call in reader.train(state, key)]
  assert len(models) > 5
  assert models[-1].averaged == len(models)
  expected = jax.tree.map(
    lambda *x: np.mean(x, 0), *(model.weights for model in models)
  )
  for mean, plain in zip(models[-1].mean, expected, strict=True):
    np.testing.assert_allclose(mean, plain, atol=1e-6)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_mean_of_the_weights_is_what_is_measured(part, config):
  """The last weights are not measured, nor another part of the text."""
  training, corpus = _training(config)
  model = training.init().model
  larger = jax.tree.map(lambda x: 20 * x, model.weights)
  model = model._replace(mean=larger)
  found = training.reader(corpus, 1).measure(model, part)

  def expected(weights, part, streams):
    rows = text.streams(getattr(corpus, part), streams)
    # In one piece, not in windows.
    whole = language.windows(rows, len(rows) - 1)
    return float(language.measure(weights, training.trainer.cell, whole))

  streams = {"validation": config.eval_batch, "test": 1}
  losses = {
    (name, other): expected(weights, other, streams[other])
    for name, weights in (("mean", larger), ("last", model.weights))
    for other in streams
  }
  assert found["loss"] == pytest.approx(losses["mean", part], rel=1e-5)
  others = [loss for key, loss in losses.items() if key != ("mean", part)]
  assert min(abs(loss - found["loss"]) for loss in others) > 1e-3


def _reference(losses, patience):
  """The epoch from which Merity et al. 2018, algorithm 1, average, or None."""
  logs = []
  for t, loss in enumerate(losses):
    if t > patience and any(loss > logs[i] for i in range(t - patience)):
      return t
    logs.append(loss)
  return None


@given(
  losses=st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0, 5.0]), max_size=12),
  patience=st.integers(0, 5),
)
def test_averaging_begins_when_the_paper_says(losses, patience):
  begun = [
    epoch
    for epoch in range(len(losses))
    if averages_from_now_on(losses[: epoch + 1], patience)
  ]
  expected = _reference(losses, patience)
  assert (begun[0] if begun else None) == expected


def _with_nan(epoch, step, times):
  """Makes a loss no number until the training went back so often.

  Args:
    epoch: of the loss.
    step: of the loss; None for all of the epoch.
    times: how often.
  """

  def change(call):
    state = call.state
    here = state.epoch == epoch and step in (None, state.step)
    if not here or state.roll_backs >= times:
      return call
    return call._replace(losses=np.full_like(call.losses, np.nan))

  return change


def test_a_training_that_diverges_goes_on_from_the_best_epoch(
  finished, config, tmp_path, monkeypatch
):
  monkeypatch.setattr(stand_alone_language, "STRETCHES_A_CALL", 1)
  _change_calls(monkeypatch, _with_nan(2, 3, times=2))
  every = {"checkpoints": CheckpointConfig(steps=1)}
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  result = text_training.run(config, workdir=whole, devices=1)
  assert result["roll_backs"] == 2
  reports, before = _history(whole), _history(finished[0])
  assert [report["epoch"] for report in reports] == list(range(EPOCHS))
  best = int(np.argmin([r["validation_loss"] for r in before[:2]]))
  for report, other in zip(reports, before, strict=True):
    same = report["loss"] == other["loss"]
    assert same == (report["epoch"] <= best)
  # What was rolled back is stopped and goes on like anything else.
  _run_until(2, 5, config, stopped, **every)
  assert (
    text_training.run(config, workdir=stopped, devices=1, **every) == result
  )
  _assert_same_bits(whole, stopped, config)


def test_a_training_that_diverges_at_once_starts_again(
  finished, config, tmp_path, monkeypatch
):
  _change_calls(monkeypatch, _with_nan(0, None, times=1))
  result = text_training.run(config, workdir=tmp_path / "run", devices=1)
  assert result["roll_backs"] == 1
  reports, before = _history(tmp_path / "run"), _history(finished[0])
  assert [report["epoch"] for report in reports] == list(range(EPOCHS))
  assert reports[0]["loss"] != before[0]["loss"]


def test_a_training_that_keeps_diverging_stops_and_says_so(config, tmp_path):
  train = dataclasses.replace(config.train, learning_rate=1e30)
  config = dataclasses.replace(config, train=train)
  workdir = tmp_path / "run"
  with pytest.raises(
    UserError,
    match=r"diverged 6 times, now in epoch 0, .*learning_rate`",
  ):
    text_training.run(config, workdir=workdir, devices=1)
  assert not list(workdir.glob("checkpoints/*"))


def test_a_finished_training_is_left_as_it_is(finished, config):
  workdir, result = finished
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*")}
  assert text_training.run(config, workdir=workdir, devices=1) == result
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*")} == before


def test_another_architecture_is_refused_in_the_same_workdir(finished, config):
  other = dataclasses.replace(config, arch="0 0 1 1 1 3")
  with pytest.raises(UserError, match=r"holds another run \(config.arch is"):
    text_training.run(other, workdir=finished[0], devices=1)
  with pytest.raises(UserError, match="holds another architecture, 1 4"):
    _state(finished[0], other)


def test_another_text_is_refused_in_the_same_workdir(
  finished, config, tmp_path, monkeypatch
):
  shutil.copytree(config.text, tmp_path / "text")
  with (tmp_path / "text" / "tiny.train.txt").open("a") as file:
    file.write("\nthe n1 v1")
  load = text.load
  monkeypatch.setattr(
    text, "load", lambda _, **options: load(str(tmp_path / "text"), **options)
  )
  with pytest.raises(UserError, match="train_words is 440 there and 444 here"):
    text_training.run(config, workdir=finished[0], devices=1)


def test_four_devices_train_like_one(finished, config, tmp_path):
  result = text_training.run(config, workdir=tmp_path / "run", devices=4)
  for name in ("loss", "validation_loss"):
    one, four = (
      [report[name] for report in _history(path)]
      for path in (finished[0], tmp_path / "run")
    )
    # Sums are taken in another order; a missed average is off by far more.
    np.testing.assert_allclose(one, four, rtol=1e-4)
  assert result["test"]["loss"] == pytest.approx(
    finished[1]["test"]["loss"], rel=1e-4
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"arch": "NAO-LSTM"}, "`arch=NAO-LSTM`: "),
    ({"text": "nowhere"}, "`text=nowhere`: no such file"),
    ({"vocab_size": 1}, "`vocab_size=1`: allowed: "),
    ({"seed": -1}, "`seed=-1`: allowed: 0 to 4294967295"),
    ({"patience": -1}, "`patience=-1`: allowed: 0 or more"),
    ({"eval_batch": 0}, "`eval_batch=0`: allowed: 1 or more"),
    ({"eval_batch": 41}, "`eval_batch=41`: too many streams for a text of 80"),
    ({"train": TextTrainConfig(epochs=0)}, "`train.epochs=0`: allowed: 1"),
    (
      {"train": TextTrainConfig(batch=224)},
      "`train.batch=224`: too many",
    ),
    ({"train": TextTrainConfig(bptt=4)}, "`train.bptt=4`: allowed: 5 or more"),
    ({"train": TextTrainConfig(batch=7)}, "`train.batch=7`: 4 devices share"),
    (
      {"network": LanguageModelConfig(width=0)},
      "`network.width=0`: allowed:",
    ),
    (
      {"network": LanguageModelConfig(word_dropout=1.0)},
      "`network.word_dropout=1.0`: allowed: from 0 to below 1",
    ),
  ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
  changes, message, config, tmp_path
):
  workdir = tmp_path / "run"
  with pytest.raises(UserError) as caught:
    text_training.run(dataclasses.replace(config, **changes), workdir=workdir)
  assert message in str(caught.value)
  assert not workdir.exists()


def test_more_devices_than_there_are_are_refused(config, tmp_path):
  with pytest.raises(UserError, match="`devices=5`: allowed: 1 to 4"):
    text_training.run(config, workdir=tmp_path / "run", devices=5)


# (width, epochs, weight decay, hidden dropout).
PUBLISHED = {
  "ptb": (850, 4000, 8e-7, 0.25),
  "wikitext2": (700, 2000, 5e-7, 0.15),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_the_published_ones(name):
  config = RECIPES[name]
  network, train = config.network, config.train
  assert PUBLISHED[name] == (
    network.width,
    train.epochs,
    train.weight_decay,
    network.hidden_dropout,
  )
  assert (train.batch, train.bptt, train.clip) == (64, 35, 0.25)
  assert (train.learning_rate, train.slowness) == (20.0, 1e-3)
  assert (network.output_dropout, network.input_dropout) == (0.75, 0.75)
  assert (network.embedding_dropout, network.word_dropout) == (0.2, 0.0)
  assert (config.patience, config.eval_batch) == (5, 10)
