"""A complete search for a recurrent cell, from settings to its winner.

Shapes: A architectures, L tokens.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os

from absl import logging
import jax
import numpy as np

from nao_jax import parallel, settings
from nao_jax.data import text
from nao_jax.distributed.evaluator import EvaluatorHelper, TeamEvaluator
from nao_jax.distributed.processes import Team, leading
from nao_jax.drawing import recurrent
from nao_jax.errors import UserError
from nao_jax.evaluators import executors
from nao_jax.evaluators.executors import LOCAL, ExecutorConfig
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.evaluators.shared import check_each_step
from nao_jax.evaluators.shared_language import SharedLanguage
from nao_jax.evaluators.text_candidates import TextCandidates
from nao_jax.metrics import PERPLEXITY
from nao_jax.report import search_page
from nao_jax.runs import streams
from nao_jax.runs.checkpoint import DEFAULT, CheckpointConfig
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.trials import Trials
from nao_jax.runs.workdir import flatten
from nao_jax.search import finals, loop, rules
from nao_jax.search.journal import SearchJournal
from nao_jax.spaces import rnn
from nao_jax.spaces.space import Space
from nao_jax.strategies.choice import strategy
from nao_jax.tasks.text_presets import SearchRnnConfig
from nao_jax.training import memory_check
from nao_jax.training.recurrent import Trainer


@in_32_bits
def run(
  config: SearchRnnConfig,
  *,
  workdir: str | os.PathLike,
  architectures: Sequence[str] = (),
  trials: str | None = None,
  devices: int | None = None,
  checkpoints: CheckpointConfig = DEFAULT,
  plain: bool = False,
  executor: ExecutorConfig = LOCAL,
  team: Team | None = None,
) -> dict | None:
  """Searches, compares the best cells with random ones, and writes the winner.

  Args:
    config: all settings.
    workdir: the workdir of the run; a stopped run is resumed, a finished run is
      reported.
    architectures: architectures that start in the pool beside random ones; see
      `rnn.resolve`.
    trials: with the evaluator `scratch`, the file of trials to share with other
      searches; a file in the workdir by default.
    devices: number of devices of each process to use; all by default.
    checkpoints: when the state within a round is saved.
    plain: whether to show progress as plain lines on a terminal, too.
    executor: with the evaluator `scratch`, the place where candidates train.
    team: the processes that train shared weights together; the first process
      searches, and only it needs a workdir.

  Returns:
    The content of best.json; None in a helper process.

  Raises:
    UserError: a setting, the text or the workdir does not allow the search. It
      is raised before anything long runs.
    Stopped: a signal stopped the run; the same call resumes it.
  """
  settings.validate(config)
  space = rnn.space(config.network.nodes)
  given = _given(space, architectures)
  _check(config, given, devices, trials)
  executor.check(config.evaluator)
  if team is not None:
    rules.check_processes(config)
  corpus = text.load(config.text, vocab_size=config.vocab_size)
  config = _fit_to_text(config, corpus)
  if executor.executor == "local":
    shared = config.evaluator == "shared"
    memory_check.check_text(
      Trainer(config.network, config.train, shared),
      words=len(corpus.train),
      devices=devices if shared else 1,
    )
  if team is not None:
    team.compare({"`text`": corpus.digest})
    if not team.first:
      shared = _shared(config, corpus, devices)
      return team.help(EvaluatorHelper(shared, team, "search").handlers)
  with (
    leading(team),
    SearchJournal(
      workdir,
      flatten(config)
      | {"corpus": corpus.digest, "arch": [row.tolist() for row in given]},
      config.search.rounds,
      PERPLEXITY,
      checkpoints,
      plain=plain,
    ) as journal,
  ):
    if best := journal.finished():
      logging.info("%s holds this search, finished; nothing to do", workdir)
      return best
    file = trials or journal.path / "trials.sqlite"
    evaluator = _evaluator(config, space, corpus, file, devices, executor, team)
    search_key, final_key = jax.random.split(jax.random.key(config.seed))
    with evaluator as opened:
      pool = loop.run(
        space,
        opened,
        search_key,
        config.search,
        strategy=strategy(config, space),
        given=given,
        journal=journal,
      )
    trainings = _trainings(config, space, corpus, file, devices, executor)
    # Each device trains a cell of its own, without help from other processes.
    with parallel.alone():
      best = finals.run(trainings, pool, config, final_key, journal)
    journal.finish(best)
    _show(best, journal)
    search_page.try_to_write(journal.path)
  return best


def _show(best: dict, journal: SearchJournal) -> None:
  """Shows the result as a table and a drawing."""
  finals.show(best, PERPLEXITY, digits=2)
  pictures = [
    journal.path / f"best.{suffix}" for suffix in ("png", "svg", "pdf")
  ]
  recurrent.draw_cell(best["tokens"], pictures, title="best cell")
  streams.console().print(f"drawn in {pictures[0]}", highlight=False)


def _given(space: Space, architectures: Sequence[str]) -> np.ndarray:
  """Parses the user's architectures to int32 [G, L]."""
  rows = [rnn.resolve(written, "architectures") for written in architectures]
  for said in filter(None, map(rnn.numbering, architectures)):
    logging.warning("%s", said)
  for written, row in zip(architectures, rows, strict=True):
    if len(row) != space.length:
      raise UserError(
        f"`architectures={written}`: {len(row) // 2} nodes; the search has "
        f"{space.length // 2} (`network.nodes`)"
      )
  given = np.array(rows, np.int32).reshape(-1, space.length)
  if len(set(space.keys(given))) < len(given):
    raise UserError("`architectures`: the same architecture twice")
  return given


def _check(config: SearchRnnConfig, given: np.ndarray, devices, trials) -> None:
  """Checks the settings that can be checked before the text is read."""
  rules.check_trials(config, trials)
  if len(given) > config.search.pool_size:
    raise UserError(
      f"`architectures`: {len(given)} of them do not fit "
      f"`search.pool_size={config.search.pool_size}`"
    )
  parallel.check(devices)
  if config.evaluator == "scratch":
    return
  check_each_step(
    config.architectures_per_step,
    config.train.batch,
    config.search.pool_size,
    devices,
  )
  parts = parallel.count(devices)
  if config.train.batch % parts:
    raise UserError(
      f"`train.batch={config.train.batch}`: {parts} `devices` share it; "
      f"give a multiple of {parts}"
    )


def _fit_to_text(config: SearchRnnConfig, corpus) -> SearchRnnConfig:
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


def _shared(config: SearchRnnConfig, corpus, devices) -> SharedLanguage:
  return SharedLanguage(
    Trainer(config.network, config.train, shared=True),
    corpus,
    config.seed,
    config.search.rounds + 1,
    config.score_tokens,
    devices,
    config.architectures_per_step,
  )


@contextlib.contextmanager
def _evaluator(
  config: SearchRnnConfig,
  space: Space,
  corpus,
  trials,
  devices,
  executor: ExecutorConfig,
  team: Team | None,
) -> Iterator[SharedLanguage | FromScratch | TeamEvaluator]:
  """Yields the evaluator; its workers end with the context."""
  if config.evaluator == "shared":
    shared = _shared(config, corpus, devices)
    yield shared if team is None else TeamEvaluator(shared, team, "search")
    return
  candidates = TextCandidates(
    Trainer(config.network, config.train),
    corpus.train,
    corpus.validation[: config.score_tokens or None],
    config.seed,
    devices,
    averaged=config.averaged,
  )
  known = Trials(trials, space.name, _protocol(config, corpus))
  with executors.from_scratch(
    executor, candidates, space, known, prune=config.prune, measure=PERPLEXITY
  ) as evaluator:
    yield evaluator


def _protocol(config: SearchRnnConfig, corpus) -> dict:
  """Returns the settings that determine a candidate's score, but for tokens."""
  names = ("seed", "prune", "averaged", "score_tokens")
  parts = ("network", "train")
  return (
    {name: getattr(config, name) for name in names}
    | {name: flatten(getattr(config, name)) for name in parts}
    | {"corpus": corpus.digest}
  )


def _trainings(
  config: SearchRnnConfig,
  space: Space,
  corpus,
  trials,
  devices,
  executor: ExecutorConfig,
) -> finals.Trainings:
  """Returns how cells train after the search; see `finals.Trainings`."""

  def opened(epochs, number, part, last_only):
    own = dataclasses.replace(
      config,
      seed=finals.seed(config.seed, number),
      train=dataclasses.replace(config.train, epochs=epochs),
      prune=False,
      averaged=False,
      score_tokens=0,
    )
    candidates = TextCandidates(
      Trainer(own.network, own.train),
      corpus.train,
      getattr(corpus, part),
      own.seed,
      devices,
      last_only,
    )
    measured = {"part": part, "last_only": last_only}
    known = Trials(trials, space.name, _protocol(own, corpus) | measured)
    return executors.from_scratch(
      executor, candidates, space, known, measure=PERPLEXITY
    )

  return finals.Trainings(
    space,
    rnn.to_text,
    PERPLEXITY,
    lambda: opened(config.finalist.epochs, 0, "validation", False),
    lambda number: opened(config.final.epochs, number, "test", True),
  )
