"""Consequences of the settings of drivers on texts, cheap ones first."""

import functools

import jax
import numpy as np

from nao_jax.data import text
from nao_jax.errors import UserError
from nao_jax.evaluators import shared_language
from nao_jax.evaluators.shared import NO_SCORES
from nao_jax.evaluators.shared_language import SharedLanguageState
from nao_jax.spaces import rnn
from nao_jax.tasks import texts as text_task
from nao_jax.tasks.text_training import fit_to_text
from nao_jax.tasks.training import keys
from nao_jax.training import recurrent
from nao_jax.training.language import Batch
from tests import acting
from tests.acting_searches import KEY, loop_of, proposals, retrained
from tests.stand_ins import nothing


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
    state, _ = evaluator.score(state, KEY, tokens, round_, nothing)
  return log


def search_rnn(config, monkeypatch, home):
  corpus = _text(config.text, config.vocab_size)
  if isinstance(corpus, str):
    yield corpus
    return
  yield corpus.digest
  config = text_task._fit_to_text(config, corpus)
  task = text_task.OpenTexts(config, corpus, 1)
  yield loop_of(config.search)
  space = rnn.space(config.network.nodes)
  yield acting.digest(space.choices, config.evaluator == "shared")
  shared = config.evaluator == "shared"
  yield _language(recurrent.Trainer(config.network, config.train, shared))
  if shared:
    yield from _shared_text(task.shared(), monkeypatch)
  else:
    yield from _candidates(task.candidates()[0])
  for candidates in retrained(task):
    yield from _candidates(candidates)
  yield from proposals(config, None)


def _candidates(candidates):
  """The length, the numbers and the texts of the candidates' trainings."""
  yield acting.digest(candidates.epochs, candidates._keys)
  yield acting.digest(candidates.train, candidates.measured)
  yield acting.digest(candidates.start(None))


def train_rnn(config, monkeypatch, home):
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
