"""Searches without weight sharing."""

import dataclasses
import itertools
import types

import jax
import numpy as np
import pytest

from nao_jax import settings
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import Examples, ImageData
from nao_jax.errors import UserError
from nao_jax.evaluators import image_candidates, scratch
from nao_jax.evaluators.image_candidates import ImageCandidates
from nao_jax.evaluators.local import Local
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.runs.trials import Trial, Trials
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import cnn
from nao_jax.strategies.nao import NaoConfig
from nao_jax.tasks import images as image_task
from nao_jax.tasks.image_config import SearchCnnConfig
from nao_jax.tasks.image_finals import ImageFinalConfig
from nao_jax.training.candidate import Trainer
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig
from tests import running, tracing
from tests.short_networks import ShortConfig
from tests.stand_ins import Killed, nothing

NETWORK = ShortConfig(nodes=2, channels=4, kinds="RN")
TRAIN = TrainConfig(epochs=3, batch=16, drop_path_keep=0.9)
SGD = SgdConfig(learning_rate=0.1)
AUGMENT = AugmentConfig(padding=1, flip=False)
SPACE = cnn.space(nodes=2)
# Pools and identities; the last is the first with two branches exchanged.
ROWS = np.stack(
  [
    cnn.parse(SPACE, text)
    for text in (
      "0 2 1 4 2 4 0 3 | 0 4 1 2 2 3 1 4",
      "1 4 1 2 0 4 0 3 | 0 2 0 2 2 4 1 3",
      "0 3 0 3 1 4 2 4 | 1 3 1 3 0 4 2 4",
      "1 4 0 2 0 3 2 4 | 0 4 1 2 2 3 1 4",
    )
  ]
)


@pytest.fixture(scope="module")
def data():
  def part(count, seed):
    """A bright quarter on noise; which one is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count).astype(np.int32)
    images = rng.integers(0, 100, (count, 8, 8, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
      row, column = 4 * (label // 2), 4 * (label % 2)
      image[row : row + 4, column : column + 4] += 100
    return Examples(images, labels)

  mean, std = np.float32([0.3]), np.float32([0.2])
  return ImageData(
    "quarters", 4, part(48, 0), part(20, 1), part(8, 2), mean, std
  )


def _evaluator(data, file, *, devices=1, sgd=SGD, **changes):
  trainer = Trainer(
    network=dataclasses.replace(NETWORK, classes=4),
    train=TRAIN,
    sgd=sgd,
    augment=AUGMENT,
    examples=len(data.train.labels),
  )
  return FromScratch(
    SPACE,
    Local(ImageCandidates(trainer, data, seed=3, devices=devices)),
    Trials(file, SPACE.name, {"rate": sgd.learning_rate}),
    **changes,
  )


def _scores(evaluator, rows=ROWS, progress=nothing):
  state = evaluator.init(jax.random.key(0))
  return evaluator.score(state, jax.random.key(0), rows, 0, progress)[1]


def test_each_epoch_of_a_candidate_has_an_order_of_its_own(
  data, tmp_path, monkeypatch
):
  orders = []

  def program(function, trainer, devices, in_axes, out_axes):
    """Trains nothing, and notes which images each step was given."""

    def steps(state, key, images, batches, architecture):
      rows, count = batches
      orders.append(np.array(rows[0, :count]))
      return state, np.zeros((1, rows.shape[1]), np.float32)

    def measure(*arguments):
      return types.SimpleNamespace(right=np.zeros(1), examples=np.ones(1))

    return {"train_steps": steps, "measure_batches": measure}[function.__name__]

  monkeypatch.setattr(image_candidates, "program", program)
  _scores(_evaluator(data, tmp_path / "trials.sqlite"), ROWS[:2])
  first, second = np.concatenate(orders).reshape(2, TRAIN.epochs, 48)
  for order in first:
    np.testing.assert_array_equal(np.sort(order), np.arange(48))
  for one, other in itertools.combinations(first, 2):
    assert (one != other).mean() > 0.8
  # The same for every candidate, whose scores are compared.
  np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def scored(data, tmp_path_factory):
  """An evaluator that has scored the rows, the scores, and its progress."""
  file = tmp_path_factory.mktemp("scored") / "trials.sqlite"
  evaluator = _evaluator(data, file)
  seen = []
  return (
    evaluator,
    _scores(evaluator, progress=lambda *told: seen.append(told)),
    seen,
  )


def test_scores_are_the_best_accuracies_of_the_curves(scored):
  evaluator, scores, _ = scored
  for row, score in zip(SPACE.canonical(ROWS), scores, strict=True):
    trial = evaluator.trials.get(row)
    assert len(trial.curve) == TRAIN.epochs
    assert trial.score == max(trial.curve) == pytest.approx(score)
  assert scores.max() > 0.5  # Chance is a quarter.


def test_further_candidates_trace_nothing_anew(scored, data):
  evaluator = scored[0]
  fresh = dataclasses.replace(
    evaluator,
    trials=Trials(evaluator.trials.path, SPACE.name, {"another": "protocol"}),
  )
  _scores(fresh, ROWS[:1])
  with tracing.programs() as found:
    _scores(fresh)
  assert not found


def test_swap_equal_candidates_are_one_trial(scored):
  _, scores, seen = scored
  assert scores[0] == scores[3]
  assert {total for _, _, total, *_ in seen} == {3}


def test_progress_counts_candidates_done_running_and_waiting(scored):
  # The same is told again and again while a candidate trains.
  told = [told for told, _ in itertools.groupby(scored[2])]
  phases, done, _, notes, each = zip(*told, strict=True)
  assert {*each} == {(TRAIN.epochs * 48, "images")}
  assert set(phases) == {"train candidates"}
  assert done == (0, 0, 1, 1, 2, 2, 3)
  assert [note.partition(", best")[0] for note in notes] == [
    "",
    "1 running, 2 waiting",
    "0 running, 2 waiting",
    "1 running, 1 waiting",
    "0 running, 1 waiting",
    "1 running, 0 waiting",
    "0 running, 0 waiting",
  ]
  assert notes[-1].endswith(f"best accuracy {scored[1].max():.4f}")
  assert "best" not in notes[1]


def test_a_known_trial_is_not_run_again(scored, data, monkeypatch):
  evaluator, scores, _ = scored
  monkeypatch.setattr(ImageCandidates, "epoch", None)
  again = _evaluator(data, evaluator.trials.path)
  np.testing.assert_array_equal(_scores(again), scores)


def test_scores_do_not_depend_on_the_number_of_devices(scored, data, tmp_path):
  four = _evaluator(data, tmp_path / "trials.sqlite", devices=4)
  np.testing.assert_array_equal(_scores(four), scored[1])


def test_two_and_four_devices_train_to_the_same_bits(data, tmp_path):
  """One device has a program that is not partitioned, and rounds otherwise."""
  rows = [*SPACE.canonical(ROWS[:2])]

  def trained(devices):
    evaluator = _evaluator(data, tmp_path / "trials.sqlite", devices=devices)
    candidates, times = evaluator.executor.candidates, devices // len(rows)
    states = [candidates.start(row) for row in rows]
    return candidates.epoch(times * rows, times * states, devices * [0])

  two, four = trained(2), trained(4)
  for at, found in enumerate(four):
    jax.tree.map(np.testing.assert_array_equal, found, two[at % len(two)])


def test_a_diverged_candidate_scores_worst_and_is_marked(
  data, tmp_path, monkeypatch
):
  evaluator = _evaluator(data, tmp_path / "trials.sqlite")
  epoch = ImageCandidates.epoch
  broken = SPACE.canonical(ROWS[1])

  def breaks(self, tokens, *arguments):
    return [
      (state, np.nan if (row == broken).all() else loss, score)
      for row, (state, loss, score) in zip(
        tokens, epoch(self, tokens, *arguments), strict=True
      )
    ]

  monkeypatch.setattr(ImageCandidates, "epoch", breaks)
  scores = _scores(evaluator)
  assert evaluator.trials.get(broken).score is None
  assert scores[1] == scores.min() == min(scores[0], scores[2])


def test_pruning_stops_what_is_worse_than_half_of_the_pool_before(
  data, tmp_path
):
  evaluator = _evaluator(data, tmp_path / "trials.sqlite", prune=True)
  state = evaluator.init(jax.random.key(0))
  state, _ = evaluator.score(state, None, ROWS[:1], 0, nothing)
  curve = evaluator.trials.get(SPACE.canonical(ROWS[0])).curve
  np.testing.assert_allclose(state.limits, curve)
  state = state._replace(limits=np.float32([1.1, 1.1, 1.1]))
  evaluator.score(state, None, ROWS[1:2], 1, nothing)
  pruned = evaluator.trials.get(SPACE.canonical(ROWS[1]))
  assert len(pruned.curve) == 1
  assert pruned.score == pruned.curve[0]


def test_who_ended_early_is_in_the_worse_half():
  found = scratch.middle([(1, 2, 3), (2, 3, 4), (9,), (3, np.nan)], 3)
  assert found.tolist() == [2.5, -np.inf, -np.inf]
  assert scratch.middle([(1, 2), (3, 4), (5, 6)], 2).tolist() == [3, 4]


def test_what_was_trained_meanwhile_is_not_trained_again(
  data, tmp_path, monkeypatch
):
  evaluator = _evaluator(data, tmp_path / "trials.sqlite")
  other = Trial(0.25, (0.25, 0.25, 0.25))
  epoch = ImageCandidates.epoch

  def train(self, *arguments):
    # Another search finishes the last candidate while the first one trains.
    evaluator.trials.add(SPACE.canonical(ROWS[2]), other)
    return epoch(self, *arguments)

  monkeypatch.setattr(ImageCandidates, "epoch", train)
  assert _scores(evaluator)[2] == 0.25
  assert evaluator.trials.get(SPACE.canonical(ROWS[2])) == other


# Whole searches.

CONFIG = SearchCnnConfig(
  seed=1,
  standardize=True,
  strategy="nao",
  evaluator="scratch",
  network=NETWORK,
  train=TRAIN,
  sgd=SGD,
  augment=AUGMENT,
  search=SearchConfig(pool_size=6, rounds=2, new_per_round=3, extend=True),
  nao=NaoConfig(top_k=3, max_step_size=4, held_out=0.0),
  controller=ControllerConfig(embedding=4, hidden=8, mlp_layers=0),
  fit=FitConfig(epochs=3, batch=4),
  finalists=0,
  final=ImageFinalConfig(cells=0, batch=16),
)


def test_a_stopped_search_ends_as_one_that_was_not(data, tmp_path, monkeypatch):
  monkeypatch.setattr(image_task, "open_data", lambda *_: data)
  arguments = {"data_dir": tmp_path / "data", "devices": 1}
  best = running.search_images(CONFIG, workdir=tmp_path / "whole", **arguments)
  assert "validation_accuracy_from_scratch" in best
  epoch = ImageCandidates.epoch
  started = []

  def counted(self, tokens, states, epochs, between):
    started.extend(row.tobytes() for row in tokens if epochs[0] == 0)
    return epoch(self, tokens, states, epochs, between)

  def killed(self, *arguments):
    if len(started) == 4:
      raise Killed
    return counted(self, *arguments)

  stopped = tmp_path / "stopped"
  with monkeypatch.context() as patch:
    patch.setattr(ImageCandidates, "epoch", killed)
    with pytest.raises(Killed):
      running.search_images(CONFIG, workdir=stopped, **arguments)
    patch.setattr(ImageCandidates, "epoch", counted)
    assert running.search_images(CONFIG, workdir=stopped, **arguments) == best
  # Only the one that was in training was begun twice.
  assert len(started) == len(set(started)) + 1
  # Another search finds every trial in the first one's file.
  monkeypatch.setattr(ImageCandidates, "epoch", None)
  shared = running.search_images(
    CONFIG,
    workdir=tmp_path / "shared",
    trials=str(tmp_path / "whole" / "trials.sqlite"),
    **arguments,
  )
  assert shared == best


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"evaluator": "table"}, "`evaluator=table`: allowed: shared"),
    ({"strategy": "best"}, "`strategy=best`: allowed: nao, nao"),
    ({"nao.step_size": 60}, "`nao.step_size=60`: allowed: 1 to 4"),
    (
      {"evaluator": "shared", "prune": True},
      "`prune=True`: allowed only with `evaluator=scratch`",
    ),
    ({"prune": True}, "`prune=True` `trials=t.sqlite`"),
    (
      {"strategy": "local", "search.extend": False, "search.new_per_round": 2},
      "`strategy=local`: .* add `search.extend=True`",
    ),
  ],
)
def test_what_cannot_work_is_refused(changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    running.search_images(
      settings.replace(CONFIG, changes),
      workdir=tmp_path / "run",
      data_dir=tmp_path,
      trials="t.sqlite",
    )


@pytest.mark.parametrize(
  ("ops", "encoding", "strategy"),
  [("middle", "pairs", "random"), ("large", "triples", "nao")],
)
def test_the_other_op_sets_are_searched_and_end_in_pairs(
  ops, encoding, strategy, data, tmp_path, monkeypatch
):
  monkeypatch.setattr(image_task, "open_data", lambda *_: data)
  space = cnn.space(2, ops)
  trained = []

  def start(self, tokens):
    assert space.accepts(tokens)
    return ()

  def epoch(self, tokens, states, epochs, between):
    trained.extend(tuple(row) for row in tokens if epochs[0] == 0)
    return [((), 0.0, float(row.sum()) / 1000) for row in tokens]

  monkeypatch.setattr(ImageCandidates, "start", start)
  monkeypatch.setattr(ImageCandidates, "epoch", epoch)
  config = dataclasses.replace(
    CONFIG,
    encoding=encoding,
    strategy=strategy,
    network=dataclasses.replace(NETWORK, ops=ops),
  )
  best = running.search_images(
    config, workdir=tmp_path / "run", data_dir=tmp_path, devices=1
  )
  assert len(set(trained)) == len(trained) >= 6
  assert best["space"] == space.name
  score = best["validation_accuracy_from_scratch"]
  # Which of two branches comes first does not change the sum.
  assert score == pytest.approx(sum(best["tokens"]) / 1000)
  assert score == pytest.approx(max(map(sum, trained)) / 1000)
