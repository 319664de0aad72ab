import dataclasses
import math
import shutil

from hypothesis import given
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from nao_jax.data import text
from nao_jax.errors import UserError
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.tasks import text_training
from nao_jax.tasks.text_recipes import RECIPES
from nao_jax.tasks.training import keys, restore
from nao_jax.training import language, recurrent, stand_alone_language
from nao_jax.training.recurrent import averages_from_now_on
from nao_jax.training.stand_alone_language import Reader, end_epoch
from tests import running, small_trainings
from tests.small_trainings import TEXTS as CONFIG
from tests.small_trainings import history
from tests.stand_ins import Killed

EPOCHS, BATCH = CONFIG.train.epochs, CONFIG.train.batch


@pytest.fixture(scope="module", autouse=True)
def quick():
  with small_trainings.quick():
    yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("text")
  small_trainings.write_text(folder)
  return dataclasses.replace(CONFIG, text=str(folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
  """A training that has run to its end: its workdir and its result."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  return workdir, running.train_texts(config, workdir=workdir, devices=1)


def _training(config):
  corpus = text.load(config.text, vocab_size=config.vocab_size)
  return text_training.fit_to_text(config, corpus), corpus


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
      running.train_texts(config, workdir=workdir, devices=1, **settings)


def test_the_result_says_how_good_the_best_model_is(finished):
  workdir, result = finished
  assert result["test"]["words"] == 20 * 4 - 1
  assert result["validation"]["words"] == 20 * 4 - 4
  # Of 20 words; a line is mostly its structure.
  assert result["test"]["perplexity"] < 12
  assert result["test"]["perplexity"] == math.exp(result["test"]["loss"])
  losses = [report["validation_loss"] for report in history(workdir)]
  assert result["best_epoch"] == np.argmin(losses)
  assert result["validation"]["loss"] == min(losses)


def test_every_word_is_trained_on_in_every_epoch(config):
  training, corpus = _training(config)
  reader = training.reader(corpus, 1)
  state = training.init()
  calls = list(reader.train(state, keys(config.seed)[1]))
  rows = len(corpus.train) // BATCH
  words = (rows - 1) * BATCH
  assert sum(call.work for call in calls) == words == training.words
  assert training.done(state) == 0
  assert training.done(calls[-1].state) == words
  later = state._replace(epoch=np.int32(2))
  assert training.done(later) == 2 * words


def test_a_training_stopped_while_it_averages_ends_with_the_same_bits(
  config, tmp_path, monkeypatch
):
  monkeypatch.setattr(stand_alone_language, "WINDOWS_A_CALL", 1)
  monkeypatch.setattr(
    recurrent, "averages_from_now_on", lambda losses, patience: len(losses) == 2
  )
  every = {"checkpoints": CheckpointConfig(steps=1)}
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  result = running.train_texts(config, workdir=whole, devices=1)
  assert [r["averaging"] for r in history(whole)] == [False] * 2 + [True] * 2
  for step in (1, 3):
    _run_until(2, step, config, stopped, **every)
  again = running.train_texts(config, workdir=stopped, devices=1, **every)
  assert again == result
  small_trainings.assert_same_bits(_training(config)[0], whole, stopped)
  state = restore(_training(config)[0], whole / "checkpoints")
  windows = sum(report["steps"] for report in history(whole)[2:])
  assert state.model.averaging
  assert state.model.averaged == windows


def test_the_mean_is_that_of_the_weights_since_averaging_began(
  config, monkeypatch
):
  monkeypatch.setattr(stand_alone_language, "WINDOWS_A_CALL", 1)
  training, corpus = _training(config)
  reader, key = training.reader(corpus, 1), keys(config.seed)[1]
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
  monkeypatch.setattr(stand_alone_language, "WINDOWS_A_CALL", 1)
  _change_calls(monkeypatch, _with_nan(2, 3, times=2))
  every = {"checkpoints": CheckpointConfig(steps=1)}
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  result = running.train_texts(config, workdir=whole, devices=1)
  assert result["roll_backs"] == 2
  reports, before = history(whole), history(finished[0])
  assert [report["epoch"] for report in reports] == list(range(EPOCHS))
  best = int(np.argmin([r["validation_loss"] for r in before[:2]]))
  for report, other in zip(reports, before, strict=True):
    same = report["loss"] == other["loss"]
    assert same == (report["epoch"] <= best)
  # What was rolled back is stopped and goes on like anything else.
  _run_until(2, 5, config, stopped, **every)
  assert (
    running.train_texts(config, workdir=stopped, devices=1, **every) == result
  )
  small_trainings.assert_same_bits(_training(config)[0], whole, stopped)


@pytest.mark.parametrize("found_by", ["losses", "validation"])
def test_a_training_that_diverges_at_once_starts_again(
  found_by, finished, config, tmp_path, monkeypatch
):
  if found_by == "losses":
    _change_calls(monkeypatch, _with_nan(0, None, times=1))
  else:
    measure, infinite = Reader.measure, iter([{"loss": np.inf}])
    monkeypatch.setattr(
      Reader, "measure", lambda *given: measure(*given) | next(infinite, {})
    )
  result = running.train_texts(config, workdir=tmp_path / "run", devices=1)
  assert result["roll_backs"] == 1
  reports, before = history(tmp_path / "run"), history(finished[0])
  assert [report["epoch"] for report in reports] == list(range(EPOCHS))
  assert reports[0]["loss"] != before[0]["loss"]


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
    running.train_texts(config, workdir=finished[0], devices=1)


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
