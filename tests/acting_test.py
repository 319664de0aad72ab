"""Every flag acts: it changes what is done, or it is refused by its name.

A search takes minutes, so none is run. `_PLANS` has for each driver a generator
of consequences (see acting.py), cheap ones first: data that are loaded, numbers
of steps, steps of the optimiser, programs as jax traces them, what the outer
loop and the strategy do with made-up scores and made-up results of programs.
For each situation (a strategy, an evaluator) each setting gets another value,
and one of three things must hold:

1. the driver's check refuses it, and names it;
2. the plan differs from that of the situation;
3. `_ELSEWHERE` names a test that shows what it changes.
"""

import itertools

import numpy as np
import pytest

from nao_jax import settings
from nao_jax.errors import UserError
from nao_jax.studies import comparison, controller_study
from nao_jax.studies.controller_study import StudyConfig
from nao_jax.tasks import image_presets, text_presets
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.training import candidate, stand_alone, supernet
from tests import acting, acting_images, acting_texts, short_networks


def _train_controller(config, monkeypatch, home):
  del home
  table = controller_study.check(config)
  recorder = acting.recording(table.space, monkeypatch)
  found = controller_study.run(config)
  yield from recorder.log
  yield acting.digest(str(found))


def _compare_strategies(config, monkeypatch, home):
  del monkeypatch, home
  curves = comparison.run(config, ["random"], threads=1)["random"]
  yield acting.digest(curves.signal, curves.report, curves.evaluations)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with a text of three parts."""
  home = tmp_path_factory.mktemp("acting")
  words = np.random.default_rng(0).integers(0, 9, 900)
  for part, some in (("train", 900), ("valid", 200), ("test", 200)):
    line = " ".join(f"w{word}" for word in words[:some])
    (home / f"a.{part}.txt").write_text(line + "\n")
  ops = np.int8(list(np.ndindex(*[5] * 6)))
  scores = np.arange(len(ops), dtype=np.float32) / len(ops)
  columns = {"x_valid": scores, "x_test": -scores, "x_cost": scores + 1}
  np.savez(home / "table.npz", ops=ops, **columns)
  return home


_TINY = {
  "controller.embedding": 4,
  "controller.hidden": 4,
  "controller.mlp_layers": 1,
  "controller.mlp_width": 4,
  "controller.mlp_dropout": 0.5,
  "controller.embedding_dropout": 0.0,
  "fit.epochs": 10,
  "fit.batch": 4,
  "nao.top_k": 3,
  "nao.max_step_size": 4,
  "nao.held_out": 0.2,
  "semi.top_k": 3,
  "semi.max_step_size": 4.0,
  "semi.held_out": 0.2,
  "semi.unlabelled": 6,
  "semi.epochs": 10,
  "semi.repeats": 2,
  "plus.members": 2,
  "plus.pretraining": 10,
  "plus.steps": 2,
  "plus.most_steps": 10,
  "plus.labelled": 3,
  "plus.unlabelled": 2,
  "plus.seeds": 3,
  "plus.passes": 2,
  "search.pool_size": 8,
  "search.rounds": 1,
  "search.new_per_round": 3,
  "search.extend": True,
  "train.epochs": 2,
}
_SMALL_CNN = _TINY | {
  "dataset": "digits",
  "validation_fraction": 0.25,
  "network.nodes": 2,
  "network.channels": 2,
  "network.cells_per_stage": 1,
  "network.dropout": 0.1,
  "train.batch": 16,
  "train.label_smoothing": 0.1,
  "finalists": 2,
  "finalist.auxiliary": False,
  "finalist.channels": 2,
  "finalist.cells_per_stage": 1,
  "finalist.batch": 16,
  "finalist.epochs": 3,
  "final.channels": 2,
  "final.cells_per_stage": 1,
  "final.batch": 16,
  "final.epochs": 4,
  "final.cells": 1,
}
_SMALL_RNN = _TINY | {
  "network.nodes": 3,
  "network.width": 4,
  "train.batch": 4,
  "finalists": 2,
  "final.cells": 1,
}
# What the general rule of `acting.changed` does not find.
_OTHER = {
  "dataset": "other",
  "text": "/nowhere",
  "train_cnn arch": "NAONet-A",
  "train_rnn arch": "NAO-WS-RNN",
  "table": "/nowhere.npz",
  "signal": "cost",
  "fidelities": "cost:10,valid:200",
  "epochs_budget": 700,
  "report": "valid",
  "proxies": "parameters",
  "limit": "cost:1.1",
  "test_split": "train",
  "train.epochs": 4,
  "network.channels": 4,
  "final.channels": 4,
  "finalist.channels": 4,
  "architectures_per_step": 2,
  "vocab_size": 5,
  "score_tokens": 60,
  "search.max_pending": 1.0,
  "search.rounds": 0,
  "constraint.limit": "params:10",
  "constraint.objectives": "score,params",
  "constraint.latency_table": "x.csv",
  "stream.size": 64,
  "stream.workers": 0,
  "sgd.clip": 1.0,
  "train.bptt": 7,
  "nao.held_out": 0.7,
  "semi.held_out": 0.7,
  "plus.most_steps": 40,
  "plus.steps": 1,
  "fit.clip": 0.01,
  "plus.pretraining": 20,
}
_LIMIT = {"constraint.limit": "params:1e8"}
_SHARED = {"evaluator": "shared"}
_SCRATCH = {"strategy": "random", "evaluator": "scratch", "finalists": 0}
_ALONE = _SHARED | {"strategy": "random", "finalists": 0, "final.cells": 0}
_STREAM = {"input": "stream", "stream.workers": 0}

# {driver and what is special: changes to the defaults}.
SITUATIONS = {
  **{
    f"{driver} {name}": _SHARED
    | {"strategy": name}
    | (_LIMIT if (driver, name) == ("search_cnn", "nao_plus") else {})
    for name in (
      *("nao", "nao_plus", "seminas", "random", "evolution", "local"),
    )
    for driver in ("search_cnn", "search_rnn")
  },
  "search_cnn scratch": _SCRATCH | {"search.asynchronous": True} | _LIMIT,
  "search_cnn restarts": _SCRATCH
  | {"sgd.schedule": "restarts", "sgd.period": 3}
  | {"final.cells": 0, "train.epochs": 8},
  "search_cnn stream": _ALONE | _STREAM | {"stream.size": 8},
  "search_rnn scratch": _SCRATCH,
  "train_cnn": {},
  "train_cnn step": {"sgd.schedule": "step"},
  "train_cnn stream": {
    "input": "stream",
    "validation_fraction": 0.0,
    "stream.size": 32,
    "network.auxiliary": True,
  },
  "train_rnn": {},
  "train_controller": {},
  "compare_strategies": {"limit": "cost:1.5"},
  "compare_strategies fidelities": {
    "fidelities": "cost:12,valid:200",
    "epochs_budget": 900,
    "budget": 200,
  },
}
_PLANS = {
  "search_cnn": (
    acting_images.search_cnn,
    image_presets.SearchCnnConfig(),
    _SMALL_CNN,
  ),
  "search_rnn": (
    acting_texts.search_rnn,
    text_presets.SearchRnnConfig(),
    _SMALL_RNN,
  ),
  "train_cnn": (
    acting_images.train_cnn,
    TrainCnnConfig(),
    {
      "arch": "0 0 1 4 2 2 0 4 | 0 4 1 2 2 3 1 4",
      "dataset": "digits",
      "validation_fraction": 0.25,
      "network.channels": 2,
      "network.cells_per_stage": 1,
      "network.dropout": 0.1,
      "train.batch": 16,
      "train.epochs": 2,
    },
  ),
  "train_controller": (
    _train_controller,
    StudyConfig(),
    {
      name: value
      for name, value in _TINY.items()
      if name.startswith(("controller", "fit", "nao"))
    }
    | {"dataset": "x", "members": 8, "measured": 6, "best": 2},
  ),
  "compare_strategies": (
    _compare_strategies,
    comparison.CompareConfig(),
    {"dataset": "x", "budget": 12, "trials": 2},
  ),
  "train_rnn": (
    acting_texts.train_rnn,
    TrainRnnConfig(),
    {"network.width": 4, "train.batch": 4, "train.epochs": 2},
  ),
}
# Settings whose consequence another test shows.
_ELSEWHERE = {
  "plus.exploration": (
    "strategies_test.py::"
    "test_candidates_are_ranked_by_mean_and_spread_of_the_ensemble"
  ),
  "score_images": (
    "space_nasbench201_test.py::test_scores_are_of_as_many_images_as_asked"
  ),
  "finalists": "finals_test.py::test_without_finalists_the_best_score_wins",
  "finalist_share": (
    "finals_test.py::test_finalists_are_spread_over_a_share_of_the_pool"
  ),
  "finalist_rounds": (
    "finals_test.py::test_finalists_of_later_rounds_are_proposed_from_trainings"
  ),
  "finalist.by_signals": (
    "finals_test.py::test_signals_rank_finalists_as_much_as_scores_do"
  ),
  "finalist.stages": (
    "finals_test.py::test_the_best_of_each_stage_train_again_for_more_epochs"
  ),
  "final.cells": (
    "finals_test.py::test_without_a_comparison_no_random_cell_is_trained"
  ),
  "final.repeats": (
    "finals_test.py::test_all_cells_have_the_same_seed_and_each_training_another"
  ),
  # It is the random strategy that is compared here, which costs do not steer.
  "limit_penalty": (
    "objectives_test.py::"
    "test_only_a_constraint_with_a_gradient_adds_a_predictor"
  ),
  "prune": (
    "scratch_search_test.py::"
    "test_pruning_stops_what_is_worse_than_half_of_the_pool_before"
  ),
  "patience": "rnn_training_test.py::test_averaging_begins_when_the_paper_says",
  "stream.workers": (
    "data_stream_test.py::test_no_batch_depends_on_the_number_of_workers"
  ),
}
_NOT_FLAGS = {
  *("network.classes", "network.vocabulary", "plus.step_sizes"),
  *("train_rnn network.nodes", "train_controller nao.held_out"),
}


def _base(driver, changes, folder):
  _, config, small = _PLANS[driver]
  if driver.endswith("rnn"):
    small = small | {"text": str(folder)}
  if "table" in settings.names(config):
    small = small | {"table": str(folder / "table.npz")}
  return settings.replace(config, small | changes)


def _refused(config, base, name, monkeypatch) -> bool:
  """True if a driver says by its name that a setting cannot act."""
  said = []

  def say(line, *arguments):
    said.append(line % arguments)

  with monkeypatch.context() as patch:
    patch.setattr(settings.logging, "warning", say)
    try:
      settings.validate(config, base)
    except UserError as error:
      said.append(str(error))
      if f"`{name}" not in str(error):
        raise
  return any(f"`{name}" in line for line in said)


@pytest.fixture(scope="module", autouse=True)
def few_cells():
  """Networks of two cells are traced in a fraction of the time."""
  with short_networks.two_cells(short_networks.FEW_CELLS):
    yield


@pytest.mark.parametrize("kind", [supernet, candidate, stand_alone])
def test_programs_of_networks_differ_in_what_acts_alone(kind):
  """Otherwise any setting would seem to act."""
  config = settings.replace(image_presets.SearchCnnConfig(), _SMALL_CNN)
  given = (config.network, config.train, config.sgd, config.augment, 96)
  cells = (0, 0, 1, 4, 2, 2, 0, 4, 0, 4, 1, 2, 2, 3, 1, 4)
  own = {"tokens": cells} if kind is stand_alone else {}
  base = kind.Trainer(*given, **own)
  rate = settings.replace(base, {"sgd.learning_rate": 0.5})
  channels = settings.replace(base, {"network.channels": 4})
  found, idle, acts = (
    acting_images.network(trainer, (8, 8, 1))
    for trainer in (base, rate, channels)
  )
  assert idle == found != acts


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_setting_changes_what_is_done_or_is_refused_by_name(
  situation, folder, monkeypatch
):
  driver = situation.split()[0]
  base = _base(driver, SITUATIONS[situation], folder)
  settings.validate(base, base)
  plan = _PLANS[driver][0]

  def consequences(config):
    with monkeypatch.context() as patch:
      try:
        yield from plan(config, patch, folder)
      except UserError as error:
        yield str(error)

  expected = list(consequences(base))
  idle = []
  for name, own in settings.names(base).items():
    if {name, f"{driver} {name}"} & {*_NOT_FLAGS, *_ELSEWHERE}:
      continue
    value = settings.get(base, name)
    other = _OTHER.get(name, _OTHER.get(f"{driver} {name}"))
    if other is None or other == value:
      other = acting.changed(value, settings.limits(own))
    assert other is not None, name
    config = settings.replace(base, {name: other})
    if _refused(config, base, name, monkeypatch):
      continue
    if all(
      one == two
      for one, two in itertools.zip_longest(expected, consequences(config))
    ):
      idle.append(name)
  assert not idle
