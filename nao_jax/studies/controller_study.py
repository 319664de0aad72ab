"""Measurement of a controller alone: prediction, reconstruction and ascent.

It is fitted on some architectures of a benchmark table and measured on others,
so only the controller is trained.

Shapes: N architectures, K seeds, S step sizes.
"""

import dataclasses
import math

from absl import logging
import jax
import numpy as np

from nao_jax.controller import ascent, fit, metrics
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig, Params
from nao_jax.data import tables
from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table
from nao_jax.runs.environment import in_32_bits
from nao_jax.settings import LAST_SEED, field, validate
from nao_jax.spaces.known import Known
from nao_jax.strategies.nao import NaoConfig
from nao_jax.strategies.uniform import sample_new


@dataclasses.dataclass(frozen=True)
class StudyConfig:
  """Settings of the controller and its measurement.

  Attributes:
    table: `nas-bench-graph`, a .npz file in the form of NAS-Bench-201, or a
      .npz, .csv or .json file of slots.
    dataset: the data that the architectures were trained on; it is not needed
      where a file of slots has a column of the signal's name alone.
    signal: the measurement to predict.
    members: number of architectures to fit on, drawn at random.
    measured: number of other architectures, which only the measurement uses.
    best: k of the precision at k.
    seed: determines all random numbers.
    controller: sizes of the controller.
    fit: settings of the fit.
    nao: number of seeds and step sizes of the ascent.
  """

  table: str = tables.GRAPH
  dataset: str = "cora"
  signal: str = "valid"
  members: int = field(600, least=1)
  measured: int = field(600, least=2)
  best: int = field(50, least=1)
  seed: int = field(0, least=0, most=LAST_SEED)
  controller: ControllerConfig = ControllerConfig()
  fit: FitConfig = FitConfig()
  nao: NaoConfig = NaoConfig()


@in_32_bits
def run(config: StudyConfig) -> dict:
  """Fits a controller and measures it.

  Returns:
    JSON-like: `ranking` of the held-out architectures, each measure with its
    95 % interval; `reconstruction` of both groups; `steps`, for each step size
    the mean predicted gain, the mean gain of those that the table has (NaN
    without any), and the shares of
    decoded architectures that differ from their seed and that are new.

  Raises:
    UserError: a setting is illegal or does not fit the table.
  """
  table = check(config)
  draw_key, init_key, fit_key, rest = jax.random.split(
    jax.random.key(config.seed), 4
  )
  space = table.space
  total = config.members + config.measured
  tokens = sample_new(space, draw_key, total, set())
  scores = table.lookup(tokens)
  train, held_out = np.split(np.arange(total), [config.members])
  controller = Controller(space, config.controller)
  params = _fit(config, controller, init_key, fit_key, tokens, scores, train)
  rng = np.random.default_rng(np.asarray(jax.random.key_data(rest)))
  return {
    "ranking": _ranking(
      config,
      np.asarray(
        metrics.predict(params, tokens[held_out], controller=controller)[0]
      ),
      scores[held_out],
      rng,
    ),
    "reconstruction": {
      name: _rebuilt(controller, params, tokens[rows])
      for name, rows in (("members", train), ("held_out", held_out))
    },
    "steps": _steps(config, controller, params, table, tokens[train]),
  }


def check(config: StudyConfig) -> Table:
  """Checks the settings; returns the table.

  Raises:
    UserError: the message names the setting.
  """
  validate(config)
  column = tables.load(config.table, config.dataset, config.signal)
  space, scores = column.space, column.scores
  if isinstance(space, Known):
    measured = ~np.isnan(scores)
    space, scores = space.only(measured), scores[measured]
  table, most = Table(space, scores), len(scores)
  if config.members + config.measured > most:
    raise UserError(
      f"`members={config.members}` `measured={config.measured}`: the table has "
      f"{most} functions"
    )
  return table


def _fit(config, controller, init_key, fit_key, tokens, scores, rows) -> Params:
  state = fit.start(controller.init(init_key), config.fit)
  state, losses = fit.fit(
    state,
    fit_key,
    fit.Examples(
      tokens[rows], fit.normalise_targets(scores[rows].astype(np.float32))
    ),
    controller=controller,
    config=config.fit,
  )
  logging.info(
    "fitted on %d architectures: squared error %.5f, cross-entropy %.5f",
    len(rows),
    losses.mse[-1],
    losses.cross_entropy[-1],
  )
  return state.params


def _ranking(config, predictions, scores, rng) -> dict:
  measures = {
    "pairwise_accuracy": metrics.pairwise_accuracy,
    "kendall_tau": metrics.kendall_tau,
    "spearman": metrics.spearman_rho,
    f"precision_at_{config.best}": lambda *x: metrics.precision_at(
      config.best, *x
    ),
  }
  return {
    name: {
      "value": measure(predictions, scores),
      "interval": metrics.interval(measure, predictions, scores, rng),
    }
    for name, measure in measures.items()
  }


def _rebuilt(controller, params, tokens) -> dict:
  """Measures free-running decoding, without the true tokens as input."""
  decoded = metrics.reconstruct(params, tokens, controller=controller)
  return metrics.reconstruction(controller.space, tokens, decoded)._asdict()


def _steps(config, controller, params, table, tokens) -> list[dict]:
  """Measures the gradient step on the best members, by step size."""
  scores = table.lookup(tokens)
  best = np.argsort(-scores, kind="stable")[: config.nao.top_k]
  sizes = config.nao.step_sizes
  moved = ascent.propose(params, tokens[best], sizes, controller=controller)
  known = set(controller.space.keys(tokens))
  seeds = np.array(controller.space.keys(tokens[best]), object)
  rows = []
  for size, decoded, after in zip(
    np.asarray(sizes), np.asarray(moved.tokens), moved.after, strict=True
  ):
    names = controller.space.keys(decoded)
    rows.append(
      {
        "step_size": float(size),
        "predicted_gain": float(np.mean(after - moved.before)),
        "true_gain": _mean_known(table, decoded, scores[best]),
        "changed": float(np.mean(np.array(names, object) != seeds)),
        "new": len(set(names) - known) / len(names),
      }
    )
  return rows


def _mean_known(table: Table, decoded, before) -> float:
  """Returns the mean gain of those that the table has; NaN without any."""
  known = table.space.number(decoded) >= 0
  gains = table.lookup(decoded[known]) - before[known]
  return float(gains.mean()) if len(gains) else math.nan
