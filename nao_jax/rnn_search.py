"""A search for recurrent cells, from settings to its winner.

Shapes: A architectures, L tokens.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import os

from absl import logging
import jax
import numpy as np
import rich.console
import rich.table

from nao_jax import parallel, ranges, search, search_checks
from nao_jax.data import text
from nao_jax.errors import UserError
from nao_jax.evaluators.scratch import FromScratch
from nao_jax.evaluators.shared_language import SharedLanguage
from nao_jax.evaluators.text_candidates import TextCandidates
from nao_jax.journal import SearchJournal, origin_text
from nao_jax.pool import Pool
from nao_jax.rnn_presets import SearchRnnConfig
from nao_jax.spaces import rnn
from nao_jax.spaces.space import Space
from nao_jax.strategies.uniform import sample_new
from nao_jax.training import language
from nao_jax.training.recurrent import Trainer
from nao_jax.trials import Trials
from nao_jax.workdir import flatten


def run(
  config: SearchRnnConfig,
  *,
  workdir: str | os.PathLike,
  architectures: Sequence[str] = (),
  trials: str | None = None,
  devices: int | None = None,
) -> dict:
  """Searches, compares the best cells with random ones, writes the winner.

  Args:
    config: all settings.
    workdir: of the run; a stopped run goes on, a finished one is reported.
    architectures: what starts in the pool beside random ones; see rnn.resolve.
    trials: with the evaluator `scratch`, the file of trials to share with
      other searches; one in the workdir by default.
    devices: local devices to use; all by default.

  Returns:
    What best.json holds.

  Raises:
    UserError: a setting, the text or the workdir does not allow the search.
      Nothing long has run by then.
  """
  space = rnn.space(config.network.nodes)
  given = _given(space, architectures)
  _check(config, given, devices)
  corpus = text.load(config.text, vocab_size=config.vocab_size)
  config = _fit_to_text(config, corpus)
  journal = SearchJournal(
    workdir,
    flatten(config)
    | _facts(corpus)
    | {"arch": [row.tolist() for row in given]},
    config.search.rounds,
  )
  if best := journal.finished():
    logging.info("%s holds this search, finished; nothing to do", workdir)
    return best
  file = trials or journal.path / "trials.sqlite"
  evaluator = _evaluator(config, space, corpus, file, devices)
  # Whatever ends the run, a live bar must give the terminal back.
  with contextlib.closing(journal.progress):
    search_key, final_key = jax.random.split(jax.random.key(config.seed))
    pool = search.run(
      space,
      evaluator,
      search_checks.strategy(config, space),
      key=search_key,
      config=config.search,
      given=given,
      journal=journal,
    )
    best = _best(config, space, pool) | _compare(
      config, space, corpus, pool, final_key, journal, devices
    )
  journal.finish(best)
  _show(best, journal)
  return best


def _given(space: Space, architectures: Sequence[str]) -> np.ndarray:
  """Architectures from the command line, int32 [G, L]."""
  rows = [rnn.resolve(written) for written in architectures]
  for written, row in zip(architectures, rows, strict=True):
    if len(row) != space.length:
      raise UserError(
        f"--arch={written}: {len(row) // 2} nodes; the search has "
        f"{space.length // 2} (--nodes)"
      )
  given = np.array(rows, np.int32).reshape(-1, space.length)
  if len(set(space.keys(given))) < len(given):
    raise UserError("--arch: the same architecture twice")
  return given


def _check(config: SearchRnnConfig, given: np.ndarray, devices) -> None:
  """What can be wrong before the text is read."""
  language.check(config.network, config.train)
  search_checks.check(config, given, devices)
  ranges.check(
    {
      "count": {
        "final_repeats": config.final.repeats,
        "final_epochs": config.final.epochs,
      },
      "count or none": {
        "final_cells": config.final.cells,
        "score_tokens": config.score_tokens,
      },
    }
  )
  if config.seed < 0:
    raise UserError(f"--seed={config.seed}: allowed: 0 or more")
  parts = parallel.count(devices)
  if config.evaluator == "shared" and config.train.batch % parts:
    raise UserError(
      f"--batch={config.train.batch}: {parts} devices share it (--devices); "
      f"give a multiple of {parts}"
    )


def _fit_to_text(config: SearchRnnConfig, corpus) -> SearchRnnConfig:
  """The settings with the number of words, checked against the text."""
  for part in (corpus.train, corpus.validation, corpus.test):
    text.streams(part, config.train.batch)
  scored = corpus.validation[: config.score_tokens or None]
  if len(scored) < 2 * config.train.batch:
    raise UserError(
      f"--score_tokens={config.score_tokens}: each of {config.train.batch} "
      "streams (--batch) needs two words; give more"
    )
  network = dataclasses.replace(config.network, vocabulary=corpus.vocabulary)
  return dataclasses.replace(config, network=network)


def _facts(corpus: text.Corpus) -> dict:
  """What says that a text is the same one."""
  names = ("train", "validation", "test")
  return {f"{name}_words": len(getattr(corpus, name)) for name in names}


def _evaluator(
  config: SearchRnnConfig, space: Space, corpus, trials, devices
) -> SharedLanguage | FromScratch:
  if config.evaluator == "shared":
    return SharedLanguage(
      Trainer(config.network, config.train, shared=True),
      corpus,
      config.seed,
      config.search.rounds + 1,
      config.score_tokens,
      devices,
    )
  return FromScratch(
    space,
    TextCandidates(
      Trainer(config.network, config.train),
      corpus.train,
      corpus.validation[: config.score_tokens or None],
      config.seed,
      devices,
    ),
    Trials(trials, space.name, _protocol(config, corpus)),
    config.prune,
  )


def _protocol(config: SearchRnnConfig, corpus) -> dict:
  """What determines the score of a candidate, but the candidate."""
  names = ("text", "vocab_size", "seed", "prune", "score_tokens")
  parts = ("network", "train")
  return (
    {name: getattr(config, name) for name in names}
    | {name: flatten(getattr(config, name)) for name in parts}
    | _facts(corpus)
  )


def _best(config: SearchRnnConfig, space: Space, pool: Pool) -> dict:
  round_ = config.search.rounds
  row = pool.ranked(round_)[0]
  how = {"shared": "with_shared_weights", "scratch": "from_scratch"}
  loss = -float(pool.scores[row, round_])
  return {
    "space": space.name,
    "tokens": pool.tokens[row].tolist(),
    "text": rnn.to_text(pool.tokens[row]),
    f"validation_perplexity_{how[config.evaluator]}": float(np.exp(loss)),
    "origin": int(pool.origins[row]),
    "step_size": float(pool.step_sizes[row]),
  }


def _compare(
  config, space, corpus, pool: Pool, key, journal: SearchJournal, devices
) -> dict:
  """Trains the best cells and as many random ones, same budget and seeds."""
  count = config.final.cells
  ranked = pool.ranked(config.search.rounds)[:count]
  known = set(space.keys(pool.tokens))
  groups = {
    "searched": pool.tokens[ranked],
    "random": sample_new(space, key, count, known),
  }
  journal.progress.prefix = "from scratch:"
  done = journal.final_accuracies()
  for name, rows in groups.items():
    for number, tokens in enumerate(rows):
      title = f"{name} cell {number + 1} of {len(rows)}"
      if title in done:
        continue
      done[title] = _train_alone(
        config, corpus, tokens, title, journal.progress, devices
      )
      logging.info("%s: test perplexity %s", title, np.round(done[title], 2))
      journal.save_final(done)
  return {
    "test_perplexity": {
      name: [values for title, values in done.items() if title.startswith(name)]
      for name in groups
    }
  }


def _train_alone(
  config, corpus, tokens, title, progress, devices
) -> list[float]:
  """Test perplexities of one cell, a training each; D of them at a time."""
  final = config.final
  train = dataclasses.replace(config.train, epochs=final.epochs)
  perplexities = []
  for repeat in range(final.repeats):
    candidates = TextCandidates(
      Trainer(config.network, train),
      corpus.train,
      corpus.test,
      # Not the numbers that the search trained with.
      config.seed + 1000 + repeat,
      1,
    )
    state = candidates.start(tokens)
    for epoch in range(final.epochs):
      done = repeat * final.epochs + epoch
      progress(title, done, final.repeats * final.epochs)
      ((state, _, score),) = candidates.epoch([tokens], [state], [epoch])
    perplexities.append(float(np.exp(-score)))
  progress(title, final.repeats * final.epochs, final.repeats * final.epochs)
  return perplexities


def _show(best: dict, journal: SearchJournal) -> None:
  """The result as a table and lines."""
  table = rich.table.Table(
    title="from scratch, same budget and seeds", title_justify="left"
  )
  for heading in ("cells", "trainings", "test perplexity", "deviation"):
    table.add_column(heading)
  for name, rows in best["test_perplexity"].items():
    values = np.array(rows).ravel()
    if len(values):
      table.add_row(
        f"{len(rows)} {name}",
        str(len(values)),
        f"{values.mean():.2f}",
        f"{values.std(ddof=min(1, len(values) - 1)):.2f}",
      )
  console = rich.console.Console()
  if table.rows:
    console.print(table)
  console.print(f"winner: {best['text']}", highlight=False)
  console.print(
    f"it came from {origin_text(best['origin'])}; in"
    f" {journal.path / 'best.json'}",
    highlight=False,
    soft_wrap=True,
  )
