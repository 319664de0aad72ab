"""Properties of final trainings, whatever the task."""

import collections
import dataclasses
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from nao_jax import final_training
from nao_jax.data.stream import StreamConfig
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.tasks.images import Images
from nao_jax.tasks.task import RunOptions
from nao_jax.tasks.texts import Texts
from nao_jax.tasks.training import restore
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig
from tests import small_trainings, tracing
from tests.small_trainings import IMAGES, TEXTS, history
from tests.stand_ins import Killed


class Subject(NamedTuple):
  """A training to test.

  Attributes:
    task: the task.
    config: the settings.
    rewired: an architecture whose arrays have the same shapes.
    unit: name of the work unit.
  """

  task: Any
  config: Any
  rewired: str
  unit: str

  def run(self, workdir, *, devices=1, checkpoints=0, **changes):
    """Trains, with changed settings and checkpoints after so many steps."""
    return final_training.run(
      self.task,
      dataclasses.replace(self.config, **changes),
      workdir=workdir,
      options=RunOptions(devices, CheckpointConfig(steps=checkpoints)),
    )

  def opened(self, **changes):
    """Returns the training and its feed."""
    config = dataclasses.replace(self.config, **changes)
    return self.task.open_training(config, 1)


@pytest.fixture(scope="module", autouse=True)
def quick():
  with small_trainings.quick():
    yield


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
  """A training of each task, by name."""
  folder = tmp_path_factory.mktemp("data")
  small_trainings.write_text(folder)
  texts = dataclasses.replace(TEXTS, text=str(folder))
  rewired = IMAGES.arch.replace("0 4 1 2 2 3", "1 4 0 2 2 3")
  return {
    "images": Subject(Images(folder), IMAGES, rewired, "images"),
    "texts": Subject(Texts(), texts, "0 0 1 1 1 3", "words"),
  }


@pytest.fixture(scope="module", params=["images", "texts"])
def subject(request, subjects):
  return subjects[request.param]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, subject):
  """A training that has run to its end: its workdir and its result."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  feed, later = type(subject.opened()[1]), collections.Counter()
  train, ended = feed.train, []

  def watched(*arguments):
    for call in train(*arguments):
      yield call
      if not ended:
        found.clear()
      ended.extend([True] * call.ends_epoch)
      later.update(found)

  with pytest.MonkeyPatch.context() as patch, tracing.programs() as found:
    patch.setattr(feed, "train", watched)
    result = subject.run(workdir)
  assert not later, "the second epoch traces or compiles something anew"
  return workdir, result


def _run_until(calls, subject, workdir, monkeypatch, **settings):
  """Runs a training that ends abruptly in a call."""
  feed = type(subject.opened()[1])
  train = feed.train

  def mortal(*arguments):
    for call in train(*arguments):
      counted.append(call)
      if len(counted) == calls:
        raise Killed
      yield call

  counted = []
  with monkeypatch.context() as patch:
    patch.setattr(feed, "train", mortal)
    with pytest.raises(Killed):
      subject.run(workdir, **settings)


def test_the_result_says_what_was_trained(finished, subject):
  workdir, result = finished
  assert json.loads((workdir / "result.json").read_text()) == result
  training, _ = subject.opened()
  assert result["text"] == subject.config.arch
  assert result["tokens"] == list(training.tokens)
  state = restore(training, workdir / "checkpoints")
  weights = state.params if subject.unit == "images" else state.model.weights
  assert result["parameters"] == sum(x.size for x in jax.tree.leaves(weights))


def test_the_status_ends_with_all_work(finished, subject):
  status = json.loads((finished[0] / "status.json").read_text())
  total = subject.opened()[0].total
  assert status["state"] == "finished"
  assert (status["done"], status["total"]) == (total, total)
  assert status["rate"].endswith(f"{subject.unit}/s")


def test_history_has_a_line_an_epoch(finished, subject):
  reports = history(finished[0])
  epochs = subject.config.train.epochs
  assert [report["epoch"] for report in reports] == list(range(epochs))
  assert reports[1]["loss"] < reports[0]["loss"]
  assert reports[1][f"{subject.unit}_per_second"] > 0


def test_a_stopped_training_ends_with_the_same_bits(
  finished, subject, tmp_path, monkeypatch
):
  """After any step: it is stopped after one, goes on, and is stopped again."""
  # One step a call, so that it can stop after any of them.
  monkeypatch.setattr("nao_jax.training.feeds.STEPS_A_CALL", 1)
  monkeypatch.setattr("nao_jax.training.stand_alone_language.WINDOWS_A_CALL", 1)
  workdir = tmp_path / "run"
  for calls in (2, 5, 12, 1, 4):
    _run_until(calls, subject, workdir, monkeypatch, checkpoints=2)
  assert subject.run(workdir, checkpoints=2) == finished[1]
  small_trainings.assert_same_bits(subject.opened()[0], workdir, finished[0])
  epochs = subject.config.train.epochs
  assert [report["epoch"] for report in history(workdir)] == [*range(epochs)]


def test_a_finished_training_is_left_as_it_is(finished, subject):
  workdir, result = finished
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*")}
  assert subject.run(workdir) == result
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("[!.]*")} == before


def test_another_architecture_is_refused_in_the_same_workdir(finished, subject):
  with pytest.raises(UserError, match=r"holds another run \(config.arch is"):
    subject.run(finished[0], arch=subject.rewired)


def test_a_checkpoint_of_a_rewired_cell_is_refused(finished, subject):
  training, _ = subject.opened(arch=subject.rewired)
  with pytest.raises(UserError, match="holds another architecture, "):
    restore(training, finished[0] / "checkpoints")


def test_a_checkpoint_of_other_sizes_is_refused(finished, subject):
  size = {"images": "channels", "words": "width"}[subject.unit]
  network = dataclasses.replace(subject.config.network, **{size: 6})
  training, _ = subject.opened(network=network)
  with pytest.raises(UserError, match=r"array \d+ is \[.*another architecture"):
    restore(training, finished[0] / "checkpoints")


def test_four_devices_train_like_one(finished, subject, tmp_path):
  result = subject.run(tmp_path / "run", devices=4)
  # Sums are taken in another order; a missed average is off by far more.
  within = {"images": 2e-2, "words": 1e-4}[subject.unit]
  one, four = (
    [
      report[name]
      for report in history(path)
      for name in ("loss", "validation_loss")
      if name in report
    ]
    + [outcome["test"]["loss"]]
    for path, outcome in (finished, (tmp_path / "run", result))
  )
  np.testing.assert_allclose(one, four, rtol=within)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("images", r"diverged at .* `sgd.learning_rate`"),
    ("texts", r"diverged 6 times, now in epoch 0, .*`train.learning_rate`"),
  ],
)
def test_a_training_that_diverges_for_good_stops_and_says_so(
  name, message, subjects, tmp_path
):
  subject, workdir = subjects[name], tmp_path / "run"
  group = "sgd" if name == "images" else "train"
  settings = getattr(subject.config, group)
  changes = {group: dataclasses.replace(settings, learning_rate=1e30)}
  with pytest.raises(UserError, match=message):
    subject.run(workdir, **changes)
  assert not list(workdir.glob("checkpoints/*"))


_REFUSED = {
  "images": [
    ({"arch": "NAONet-C"}, "`arch=NAONet-C`: "),
    ({"input": "disk"}, "`input=disk`: allowed: memory, stream"),
    ({"accumulate": 0}, "`accumulate=0`: allowed: 1 or more"),
    ({"accumulate": 3}, "`accumulate=3`: `train.batch=128` is cut"),
    ({"dataset": "cifar11"}, "`dataset=cifar11`: not in"),
    ({"train": TrainConfig(epochs=0)}, "`train.epochs=0`: allowed: 1"),
    ({"sgd": SgdConfig(schedule="flat")}, "`sgd.schedule=flat`: allowed:"),
    ({"network": NetworkConfig(auxiliary=True)}, "`network.auxiliary=True`: "),
    ({"test_split": "dev"}, "no split `dev`"),
    ({"input": "stream", "seed": -1}, "`seed=-1`: allowed: 0"),
    ({"validation_fraction": 1e-4}, "holds out none of 1437 examples"),
    (
      {"input": "stream", "stream": StreamConfig(size=10)},
      "`stream.size=10`, `network.stem=cifar`: images are 10 pixels wide",
    ),
    ({"devices": 5}, "`devices=5`: allowed: 1 to 4"),
  ],
  "texts": [
    ({"arch": "NAO-LSTM"}, "`arch=NAO-LSTM`: "),
    ({"text": "nowhere"}, "`text=nowhere`: no such file"),
    ({"vocab_size": 1}, "`vocab_size=1`: allowed: "),
    ({"seed": -1}, "`seed=-1`: allowed: 0 to 4294967295"),
    ({"patience": -1}, "`patience=-1`: allowed: 0 or more"),
    ({"eval_batch": 0}, "`eval_batch=0`: allowed: 1 or more"),
    ({"eval_batch": 41}, "`eval_batch=41`: too many streams for a text of 80"),
    ({"train": TextTrainConfig(epochs=0)}, "`train.epochs=0`: allowed: 1"),
    ({"train": TextTrainConfig(batch=224)}, "`train.batch=224`: too many"),
    ({"train": TextTrainConfig(bptt=4)}, "`train.bptt=4`: allowed: 5 or more"),
    (
      {"train": TextTrainConfig(batch=7), "devices": None},
      "`train.batch=7`: 4 devices share",
    ),
    ({"network": LanguageModelConfig(width=0)}, "`network.width=0`: allowed:"),
    (
      {"network": LanguageModelConfig(word_dropout=1.0)},
      "`network.word_dropout=1.0`: allowed: from 0 to below 1",
    ),
    ({"devices": 5}, "`devices=5`: allowed: 1 to 4"),
  ],
}


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [(name, *case) for name, cases in _REFUSED.items() for case in cases],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
  name, changes, message, subjects, tmp_path
):
  workdir = tmp_path / "run"
  with pytest.raises(UserError) as caught:
    subjects[name].run(workdir, **changes)
  assert message in str(caught.value)
  assert not workdir.exists()
