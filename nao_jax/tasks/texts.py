"""The task of recurrent cells on a text.

Shapes: A architectures, L tokens.
"""

import dataclasses
from typing import Any

from absl import logging

from nao_jax import parallel
from nao_jax.data import text
from nao_jax.data.text import Corpus
from nao_jax.errors import UserError
from nao_jax.evaluators.shared import check_each_step
from nao_jax.evaluators.shared_language import SharedLanguage
from nao_jax.evaluators.text_candidates import TextCandidates
from nao_jax.settings import flatten
from nao_jax.spaces import rnn
from nao_jax.tasks.task import OpenTask, Stage
from nao_jax.tasks.text_cells import TextCells
from nao_jax.tasks.text_presets import SearchRnnConfig
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.tasks.text_training import fit_to_text
from nao_jax.tasks.training import FinalTraining
from nao_jax.training import memory_check
from nao_jax.training.feeds import Feed
from nao_jax.training.recurrent import Trainer


@dataclasses.dataclass(frozen=True)
class Texts:
  """Recurrent cells of language models; implements `task.Task`.

  The text is one of the settings.
  """

  def cells(self, settings: dict[str, Any]) -> TextCells:
    """Implements `Task.cells`."""
    return TextCells(settings)

  def open(self, config: SearchRnnConfig, devices: int | None) -> "OpenTexts":
    """Implements `Task.open`."""
    _check(config, devices)
    corpus = text.load(config.text, vocab_size=config.vocab_size)
    return OpenTexts(_fit_to_text(config, corpus), corpus, devices)

  def open_training(
    self, config: TrainRnnConfig, devices: int | None
  ) -> tuple[FinalTraining, Feed]:
    """Implements `Task.open_training`."""
    rnn.resolve(config.arch)
    if note := rnn.ambiguity_note(config.arch):
      logging.warning("%s", note)
    corpus = text.load(config.text, vocab_size=config.vocab_size)
    training = fit_to_text(config, corpus)
    parallel.check_batch(config.train.batch, devices)
    memory_check.check_text(
      training.trainer, words=training.train_words, devices=devices
    )
    return training, training.reader(corpus, devices)


@dataclasses.dataclass(frozen=True)
class OpenTexts(OpenTask):
  """A text and the settings of a search on it; every cell costs the same.

  Attributes:
    config: the settings, with the number of words.
    corpus: the text.
    devices: number of devices of each process to use; all by default.
  """

  config: SearchRnnConfig
  corpus: Corpus
  devices: int | None = None

  @property
  def identity(self) -> dict[str, Any]:
    """Implements `OpenTask.identity`."""
    return {"corpus": self.corpus.digest}

  def check_memory(self) -> None:
    """Implements `OpenTask.check_memory`."""
    config, shared = self.config, self.config.evaluator == "shared"
    memory_check.check_text(
      Trainer(config.network, config.train, shared),
      words=len(self.corpus.train),
      devices=self.devices if shared else 1,
    )

  def shared(self) -> SharedLanguage:
    """Implements `OpenTask.shared`."""
    config = self.config
    return SharedLanguage(
      Trainer(config.network, config.train, shared=True),
      self.corpus,
      config.seed,
      config.search.rounds + 1,
      config.score_tokens,
      self.devices,
      config.architectures_per_step,
    )

  def candidates(self) -> tuple[TextCandidates, dict[str, Any]]:
    """Implements `OpenTask.candidates`."""
    config, corpus = self.config, self.corpus
    candidates = TextCandidates(
      Trainer(config.network, config.train),
      corpus.train,
      corpus.validation[: config.score_tokens or None],
      config.seed,
      self.devices,
      averaged=config.averaged,
    )
    return candidates, _protocol(config, corpus)

  def retrained(self, stage: Stage) -> tuple[TextCandidates, dict[str, Any]]:
    """Implements `OpenTask.retrained`."""
    epochs = stage.budget.epochs
    config = dataclasses.replace(
      self.config,
      seed=stage.seed,
      train=dataclasses.replace(self.config.train, epochs=epochs),
      prune=False,
      averaged=False,
      score_tokens=0,
    )
    candidates = TextCandidates(
      Trainer(config.network, config.train),
      self.corpus.train,
      getattr(self.corpus, stage.part),
      stage.seed,
      self.devices,
      stage.last_only,
    )
    measured = {"part": stage.part, "last_only": stage.last_only}
    return candidates, _protocol(config, self.corpus) | measured


def _check(config: SearchRnnConfig, devices: int | None) -> None:
  """Checks the settings that can be checked before the text is read."""
  if config.evaluator == "scratch":
    return
  check_each_step(
    config.architectures_per_step,
    config.train.batch,
    config.search.pool_size,
    devices,
  )
  parallel.check_batch(config.train.batch, devices)


def _fit_to_text(config: SearchRnnConfig, corpus: Corpus) -> SearchRnnConfig:
  """Returns the settings with the number of words, checked against the text."""
  for part in (corpus.train, corpus.validation, corpus.test):
    text.streams(part, config.train.batch)
  scored = corpus.validation[: config.score_tokens or None]
  if len(scored) < 2 * config.train.batch:
    raise UserError(
      f"`score_tokens={config.score_tokens}`: each of {config.train.batch} "
      "streams (`train.batch`) needs two words; give more"
    )
  network = dataclasses.replace(config.network, vocabulary=corpus.vocabulary)
  return dataclasses.replace(config, network=network)


def _protocol(config: SearchRnnConfig, corpus: Corpus) -> dict[str, Any]:
  """Returns the settings that determine a candidate's score, but for tokens."""
  names = ("seed", "prune", "averaged", "score_tokens")
  parts = ("network", "train")
  return (
    {name: getattr(config, name) for name in names}
    | {name: flatten(getattr(config, name)) for name in parts}
    | {"corpus": corpus.digest}
  )
