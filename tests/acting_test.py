"""Every flag acts: it changes what is done, or it is refused by its name.

A search takes minutes, so none is run. `_PLANS` has for each driver a generator
of consequences (see acting.py), cheap ones first: data that are loaded, numbers
of steps, steps of the optimiser, programs as jax traces them, what the outer
loop and the strategy do with made-up scores and made-up results of programs.
For each situation (a strategy, an evaluator) each setting gets another value,
and one of four things must hold:

1. the driver's check refuses it, and names it;
2. the plan differs from that of the situation;
3. `_ELSEWHERE` names a test that shows what it changes;
4. for flags that are no settings, `_NO_SETTINGS` names one.
"""

import dataclasses
import functools
import itertools
import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from nao_jax import settings
from nao_jax.data import images, stream, text
from nao_jax.errors import UserError
from nao_jax.evaluators import shared_language
from nao_jax.evaluators.shared import NO_SCORES, SharedState
from nao_jax.evaluators.shared_language import SharedLanguageState
from nao_jax.objectives import CostConstraint
from nao_jax.search import finals, loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import cnn, rnn, slots
from nao_jax.strategies import Observations
from nao_jax.strategies.choice import strategy
from nao_jax.strategies.uniform import Uniform
from nao_jax.studies import comparison, controller_study
from nao_jax.studies.controller_study import StudyConfig
from nao_jax.tasks import (
  image_presets,
  image_training,
  text_presets,
)
from nao_jax.tasks import (
  images as image_task,
)
from nao_jax.tasks import (
  texts as text_task,
)
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.task import Stage
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.tasks.text_training import fit_to_text
from nao_jax.tasks.training import keys
from nao_jax.training import (
  recurrent,
  stand_alone,
  supernet,
  supernet_feeds,
)
from nao_jax.training.language import Batch
from nao_jax.training.recipe import Images
from tests import acting, short_networks

HERE = pathlib.Path(__file__).parent
KEY = jax.random.key(0)
TOY = slots.space("toy", {f"slot {n}": ("a", "b", "c", "d") for n in range(5)})


def _silent(*_):
  """Takes what a search says."""


# -- What each driver would do. ----------------------------------------------


class _Scores:
  """An evaluator of the toy space, with all that an asynchronous one has."""

  def __init__(self):
    self.max_pending = []

  def init(self, key):
    del key
    return ()

  def replicate(self, state):
    return state

  def score(self, state, key, tokens, *_):
    del key
    return state, np.float32(tokens.sum(1))

  def score_async(self, state, key, tokens, *_, max_pending):
    self.max_pending.append(max_pending)
    state, scores = self.score(state, key, tokens)
    return state, np.where(np.arange(len(scores)) < max_pending, np.nan, scores)


@functools.cache
def _loop(config: SearchConfig) -> str:
  scores = _Scores()
  pool = loop.run(TOY, scores, KEY, config, strategy=Uniform(TOY))
  return acting.digest(pool.tokens, pool.scores, scores.max_pending)


@functools.cache
def _digits(home, dataset, fraction, seed, test_split="test"):
  try:
    return images.load(
      dataset,
      data_dir=home / "data",
      validation_fraction=fraction,
      seed=seed,
      test_split=test_split,
    )
  except UserError as error:
    return str(error)


def _proposals(config, constraint):
  """The actions of the strategy in the toy space, with its own costs."""
  chosen = strategy(
    config, TOY, constraint is not None and constraint.uses_cost_gradient
  )
  asked = ()
  if constraint is not None:
    asked = (constraint.limit, constraint.multi_objective, constraint.penalty)
  return _proposed(chosen, config.search.pool_size, *asked)


@functools.cache
def _proposed(chosen, size, *asked) -> list[str]:
  constraint = None
  if asked:
    constraint = CostConstraint(
      "tokens", lambda rows: rows.sum(1) + 1.0, *asked
    )
  tokens = np.asarray(TOY.sample(KEY, size))
  with pytest.MonkeyPatch.context() as patch:
    return acting.proposing(chosen, TOY, tokens, patch, constraint)


def _few(data):
  """The first images of each part, so that arrays are small."""
  parts = {
    part: type(getattr(data, part))(*(x[:96] for x in getattr(data, part)))
    for part in ("train", "validation", "test")
  }
  return dataclasses.replace(data, **parts)


def _wider(data, size):
  """The data with images of another size."""
  train = np.zeros((len(data.train.images), size, size, 1), np.uint8)
  return dataclasses.replace(data, train=data.train._replace(images=train))


@functools.cache
def _network(trainer, shape) -> str:
  """The weights, and the gradient's program, of a network."""
  cells = np.zeros((2, trainer.network.nodes, 4), np.int32)
  batch = np.zeros((2, *shape), np.float32), np.zeros(2, np.int32)
  if type(trainer) is supernet.Trainer:
    given = Images(*batch, np.ones(1), np.ones(1))
    state = trainer.init(KEY, given)
    gradients = functools.partial(supernet.gradients, trainer=trainer)
    rest = supernet.Batch(*batch, cells), np.float32(0.5)
    return acting.program(gradients, state.params, KEY, *rest)
  own = () if type(trainer) is stand_alone.Trainer else (cells,)
  state = trainer.init(KEY, shape, *own)
  gradients = functools.partial(stand_alone.gradients, trainer=trainer)
  return acting.program(
    functools.partial(gradients, architecture=own), state, KEY, *batch
  )


def _image_training(trainer, shape):
  yield from acting.training(trainer)
  yield _network(trainer, shape)


def _shared_images(evaluator, monkeypatch):
  """The architectures of two rounds, and the images that they train on."""
  log = []

  def program(*_, **__):
    def steps(state, key, *rest):
      log.append(acting.digest(key, rest))
      # In memory, a call takes some steps; of a stream, it takes one.
      some = np.ndim(rest[-1]) == 0
      count, losses = (int(rest[-1]), np.zeros(25)) if some else (1, 0.0)
      return state._replace(step=state.step + count), losses

    return steps

  def score(params, shares, *_):
    del params
    return np.zeros(shares.shape[:2], np.float32)

  monkeypatch.setattr(supernet_feeds, "program", program)
  evaluator.__dict__["_score_chunk"] = score
  state = supernet.TrainState({}, (), np.int32(0))
  state = SharedState(state, NO_SCORES, np.int32(0))
  network = evaluator.trainer.network
  space = cnn.space(network.nodes, network.ops)
  tokens = np.asarray(space.sample(KEY, 6))
  for round_, count in enumerate((4, 6)):
    state, _ = evaluator.score(state, KEY, tokens[:count], round_, _silent)
  return log


def _search_cnn(config, monkeypatch, home):
  yield acting.digest(config.evaluator == "shared")
  data = _digits(
    home,
    config.dataset,
    config.validation_fraction,
    config.seed,
    config.test_split,
  )
  if isinstance(data, str):
    yield data
    return
  parts = (data.train, data.validation, data.test)
  yield acting.digest([part.labels for part in parts])
  if config.input == "memory":
    few = _few(data)
    monkeypatch.setattr(images, "load", lambda *_, **__: few)
  try:
    task = image_task.Images(home / "data").open(config, 1)
  except UserError as error:
    yield str(error)
    return
  config, data = task.config, task.data
  yield acting.digest(type(data).__name__)
  if config.input == "stream":
    yield _coloured(data.config, monkeypatch)
  yield acting.digest(data.mean, data.std)
  yield _loop(config.search)
  shape = data.image_shape
  if config.evaluator == "shared":
    evaluator = task.shared()
    yield from _image_training(evaluator.trainer, shape)
    yield from _shared_images(evaluator, monkeypatch)
  else:
    candidates, _ = task.candidates()
    yield from _image_training(candidates.trainer, shape)
  for candidates in _retrained(task):
    yield from _image_training(candidates.trainer, shape)
  space = cnn.space(config.network.nodes, config.network.ops, config.encoding)
  yield acting.digest(space.choices)
  tokens = np.asarray(space.sample(KEY, config.search.pool_size))
  constraint = loop._of_plain_tokens(task.constraint, space)
  if constraint is not None:
    seen = Observations(tokens, np.arange(len(tokens)), set(), constraint)
    yield acting.digest(
      constraint.costs(tokens), seen.allows(tokens), seen.order
    )
  yield from _proposals(config, constraint)


@functools.cache
def _text(source, vocab_size):
  try:
    return text.load(source, vocab_size=vocab_size)
  except UserError as error:
    return str(error)


@functools.cache
def _language(trainer) -> str:
  """The program of a step of a language model."""
  weights = jax.eval_shape(trainer.init, KEY)
  nodes, batch = trainer.model.nodes, trainer.train.batch
  step = functools.partial(recurrent.update, trainer=trainer)
  return acting.program(
    step,
    recurrent.State(
      weights, np.zeros((batch, trainer.model.width), np.float32)
    ),
    KEY,
    np.int32(0),
    np.zeros((nodes, 2), np.int32),
    Batch(np.zeros((11, batch), np.int32), np.int32(10)),
  )


def _shared_text(evaluator, monkeypatch):
  """The architectures, the windows that they train on, and their scoring."""
  log = []

  def update(state, key, number, cells, batch):
    log.append(acting.digest(key, number, cells, batch))
    return state, np.zeros(1)

  def score(weights, shares, windows):
    del weights
    log.append(acting.digest(windows))
    return np.zeros(shares.shape[:2], np.float32)

  monkeypatch.setattr(shared_language, "programs", lambda *_: (update, score))
  train, width = evaluator.trainer.train, evaluator.trainer.model.width
  zero = np.int32(0)
  state = SharedLanguageState(
    {}, np.zeros((1, train.batch, width), np.float32), zero, zero, NO_SCORES
  )
  space = rnn.space(evaluator.trainer.model.nodes)
  tokens = np.asarray(space.sample(KEY, 4))
  for round_ in range(2):
    state, _ = evaluator.score(state, KEY, tokens, round_, _silent)
  return log


def _search_rnn(config, monkeypatch, home):
  corpus = _text(config.text, config.vocab_size)
  if isinstance(corpus, str):
    yield corpus
    return
  yield corpus.digest
  config = text_task._fit_to_text(config, corpus)
  task = text_task.OpenTexts(config, corpus, 1)
  yield _loop(config.search)
  space = rnn.space(config.network.nodes)
  yield acting.digest(space.choices, config.evaluator == "shared")
  shared = config.evaluator == "shared"
  yield _language(recurrent.Trainer(config.network, config.train, shared))
  if shared:
    yield from _shared_text(task.shared(), monkeypatch)
  else:
    yield from _candidates(task.candidates()[0])
  for candidates in _retrained(task):
    yield from _candidates(candidates)
  yield from _proposals(config, None)


def _retrained(task):
  """Yields the candidates of the stages after a search that there are."""
  for budget, part, wanted in (
    ("finalist", "validation", task.config.finalists),
    ("final", "test", task.config.final.cells),
  ):
    if wanted:
      seed = finals.seed(task.config.seed, 0)
      yield task.retrained(Stage(budget, seed, part, False))[0]


def _candidates(candidates):
  """The length, the numbers and the texts of the candidates' trainings."""
  yield acting.digest(candidates.epochs, candidates._keys)
  yield acting.digest(candidates.train, candidates.measured)
  yield acting.digest(candidates.start(None))


def _train_cnn(config, monkeypatch, home):
  yield acting.digest(config.input == "stream")
  data = _digits(
    home,
    config.dataset,
    config.validation_fraction,
    config.seed,
    config.test_split,
  )
  if isinstance(data, str):
    yield data
    return
  parts = (data.train, data.validation, data.test)
  yield acting.digest([part.labels for part in parts])
  data = _few(data)
  if config.input == "stream":
    data = _wider(data, config.stream.size)
  training = image_training.fit_to_data(config, data)
  yield acting.digest(training.tokens, training.normaliser, keys(config.seed))
  yield from _image_training(training.trainer, data.image_shape)
  if config.input == "memory":
    return
  yield _coloured(config.stream, monkeypatch)


def _coloured(config, monkeypatch) -> str:
  """A training image of a stream, made from one with colours."""
  image = Image.fromarray(
    np.arange(3 * 40 * 50, dtype=np.uint8).reshape(40, 50, 3)
  )
  with monkeypatch.context() as patch:
    patch.setattr(stream.pixels, "read", lambda encoded, _: encoded)
    cut = stream._train_example(
      _Record(image), np.random.default_rng(0), config
    )
  return acting.digest(np.asarray(cut.images))


class _Record:
  """An image as a stream reads it."""

  def __init__(self, image):
    self.place, self.label, self.encoded = "here", 0, image


def _train_rnn(config, monkeypatch, home):
  del monkeypatch, home
  corpus = _text(config.text, config.vocab_size)
  if isinstance(corpus, str):
    yield corpus
    return
  yield corpus.digest
  training = fit_to_text(config, corpus)
  yield acting.digest(training.tokens, keys(config.seed))
  trainer = training.trainer
  yield _language(trainer.steps)
  state = jax.eval_shape(trainer.init, KEY)
  yield acting.digest(str(state.validation), str(state.hidden))
  reader = training.reader(corpus, 1)
  state = state._replace(roll_backs=np.int32(0), epoch=np.int32(0))
  yield acting.digest(reader._windows(state), reader._parts)


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


# -- Situations, and other values. -------------------------------------------


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
  "report": "valid",
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
  "plus.most_steps": 40,
  "plus.steps": 1,
  "fit.clip": 0.01,
  "plus.pretraining": 20,
}
_SHARED = {"evaluator": "shared"}
_SCRATCH = {"evaluator": "scratch", "finalists": 0}


def _situations():
  """{name: (driver, changes to the defaults)}."""
  found = {}
  limit = {"constraint.limit": "params:1e8"}
  for name in ("nao", "nao_plus", "random", "evolution", "local"):
    cnn = {"strategy": name} | _SHARED
    cnn |= limit if name == "nao_plus" else {}
    found[f"search_cnn {name}"] = "search_cnn", cnn
    found[f"search_rnn {name}"] = "search_rnn", {"strategy": name} | _SHARED
  scratch = {"strategy": "random"} | _SCRATCH
  found["search_cnn scratch"] = (
    "search_cnn",
    scratch | {"search.asynchronous": True} | limit,
  )
  found["search_cnn restarts"] = (
    "search_cnn",
    scratch
    | {
      "sgd.schedule": "restarts",
      "final.cells": 0,
      "sgd.period": 3,
      "train.epochs": 8,
    },
  )
  streamed = {"input": "stream", "stream.size": 8, "stream.workers": 0}
  found["search_cnn stream"] = (
    "search_cnn",
    {"strategy": "random", "finalists": 0, "final.cells": 0}
    | _SHARED
    | streamed,
  )
  found["search_rnn scratch"] = "search_rnn", scratch
  found["train_cnn"] = "train_cnn", {}
  found["train_cnn step"] = "train_cnn", {"sgd.schedule": "step"}
  streamed = {
    "input": "stream",
    "validation_fraction": 0.0,
    "stream.size": 32,
    "network.auxiliary": True,
  }
  found["train_cnn stream"] = "train_cnn", streamed
  found["train_rnn"] = "train_rnn", {}
  found["train_controller"] = "train_controller", {}
  found["compare_strategies"] = "compare_strategies", {"limit": "cost:1.5"}
  return found


SITUATIONS = _situations()
_PLANS = {
  "search_cnn": (_search_cnn, image_presets.SearchCnnConfig(), _SMALL_CNN),
  "search_rnn": (_search_rnn, text_presets.SearchRnnConfig(), _SMALL_RNN),
  "train_cnn": (
    _train_cnn,
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
    _train_rnn,
    TrainRnnConfig(),
    {"network.width": 4, "train.batch": 4, "train.epochs": 2},
  ),
}
# Settings whose consequence another test shows.
_ELSEWHERE = {
  "finalists": "finals_test.py::test_without_finalists_the_best_score_wins",
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


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_setting_changes_what_is_done_or_is_refused_by_name(
  situation, folder, monkeypatch
):
  driver, changes = SITUATIONS[situation]
  base = _base(driver, changes, folder)
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
