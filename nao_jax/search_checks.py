"""What every search's settings must be, and the strategy that they choose."""

from typing import Any

import numpy as np

from nao_jax import parallel, ranges
from nao_jax.controller.model import Controller
from nao_jax.errors import UserError
from nao_jax.spaces.space import Space
from nao_jax.strategies import Strategy
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus
from nao_jax.strategies.uniform import Uniform

STRATEGIES = ("nao", "nao_plus", "random", "evolution", "local")
_NEED_ALL = ("evolution", "local")


def strategy(
  config: Any, space: Space, estimates_cost: bool = False
) -> Strategy:
  """Where proposals come from.

  Args:
    config: has `strategy`, `controller`, `fit`, `nao` and `plus`.
    space: the architectures.
    estimates_cost: whether costs steer the ascent; see `Demand.steers`.
  """
  controller = Controller(space, config.controller, estimates_cost)
  strategies = {
    "nao": Nao(controller, config.fit, config.nao),
    "nao_plus": NaoPlus(controller, config.plus),
    "random": Uniform(space),
    "evolution": Evolution(space),
    "local": Local(space),
  }
  return strategies[config.strategy]


def check(
  config: Any, given: np.ndarray, devices: int | None, trials: str | None
) -> None:
  """What can be wrong before the data are known, whatever is searched.

  Args:
    config: the settings of a search, `presets.SearchCnnConfig` for example.
    given: [G, L], architectures that start in the pool.
    devices: how many local devices to use; all by default.
    trials: the file of trials, if one was named.

  Raises:
    UserError: the message names the flag.
  """
  config.search.check()
  if config.prune and trials:
    raise UserError(
      f"--prune --trials={trials}: what is pruned depends on the pool of this "
      "search, so its trials are of no use to others; give only one of them"
    )
  ranges.check(_ranges(config))
  check_controller(config)
  _check_choices(config)
  _check_pool(config, len(given))
  _check_epochs(config)
  parallel.check(devices)


def check_together(config: Any) -> None:
  """Raises UserError for a search that several processes cannot share."""
  if config.evaluator != "shared":
    raise UserError(
      f"--evaluator={config.evaluator}: several processes train shared weights "
      "together; add --evaluator=shared, or start one process"
    )


def check_controller(config: Any) -> None:
  """What can be wrong with a controller, its fit and its steps.

  Args:
    config: has `controller`, `fit` and `nao`.

  Raises:
    UserError: the message names the flag.
  """
  controller, fit, nao = config.controller, config.fit, config.nao
  ranges.check(
    {
      "count": {
        "step_size": nao.step_size,
        "max_step_size": nao.max_step_size,
        "controller_embedding": controller.embedding,
        "controller_hidden": controller.hidden,
        "controller_mlp_width": controller.mlp_width,
        "controller_epochs": fit.epochs,
        "controller_batch": fit.batch,
      },
      "count or none": {"controller_mlp_layers": controller.mlp_layers},
      "weight": {"controller_weight_decay": fit.weight_decay},
      "rate": {
        "controller_learning_rate": fit.learning_rate,
        "controller_clip": fit.clip,
      },
      "dropped": {
        "held_out": nao.held_out,
        "controller_mlp_dropout": controller.mlp_dropout,
        "controller_embedding_dropout": controller.embedding_dropout,
      },
      "share": {"controller_trade_off": fit.trade_off},
    }
  )
  if nao.step_size > nao.max_step_size:
    raise UserError(
      f"--step_size={nao.step_size}: allowed: 1 to {nao.max_step_size} "
      "(--max_step_size)"
    )


def _ranges(config) -> dict[str, dict]:
  """What the numbers of a search must be; see `ranges.check`."""
  plus = config.plus
  return {
    "count": {
      "pool_size": config.search.pool_size,
      "new_per_round": config.search.new_per_round,
      "plus_members": plus.members,
      "plus_steps": plus.steps,
      "plus_most_steps": plus.most_steps,
      "plus_labelled": plus.labelled,
      "plus_seeds": plus.seeds,
      "plus_passes": plus.passes,
    },
    "count or none": {
      "rounds": config.search.rounds,
      "plus_pretraining": plus.pretraining,
      "plus_unlabelled": plus.unlabelled,
    },
    "weight": {
      "plus_weight_decay": plus.weight_decay,
      "plus_noise": plus.noise,
    },
    "rate": {"plus_learning_rate": plus.learning_rate, "plus_clip": plus.clip},
    "share": {
      "plus_trade_off": plus.trade_off,
      "plus_greedy": plus.greedy,
    },
  }


def _check_choices(config) -> None:
  if config.strategy not in STRATEGIES:
    raise UserError(
      f"--strategy={config.strategy}: unknown; allowed: {', '.join(STRATEGIES)}"
    )
  if config.evaluator not in ("shared", "scratch"):
    raise UserError(
      f"--evaluator={config.evaluator}: unknown; allowed: shared, scratch"
    )
  if config.search.asynchronous and config.evaluator == "shared":
    raise UserError(
      "--asynchronous: allowed only with --evaluator=scratch, where candidates "
      "train alone"
    )
  if config.prune and config.evaluator == "shared":
    raise UserError(
      "--prune: allowed only with --evaluator=scratch, where candidates train "
      "alone"
    )
  if config.strategy in _NEED_ALL and not config.search.extend:
    raise UserError(
      f"--strategy={config.strategy}: goes by the age of architectures, or by "
      "where it stands among all; add --extend, so that none leaves the pool"
    )


def _check_pool(config, given: int) -> None:
  size = config.search.pool_size
  if config.strategy == "nao":
    _check_nao(config.nao, size, config.search.most_late)
  if config.final.cells > size:
    raise UserError(
      f"--final_cells={config.final.cells}: there are {size} members "
      "(--pool_size)"
    )
  if given > size:
    raise UserError(
      f"--arch: {given} architectures do not fit --pool_size={size}"
    )


def _check_nao(nao: NaoConfig, pool_size: int, late: int) -> None:
  size = pool_size - late
  if not 1 <= nao.top_k <= size:
    raise UserError(
      f"--top_k={nao.top_k}: the seeds are scored members of the pool; "
      f"allowed: 1 to {size} (--pool_size"
      + (", without those that may be --late)" if late else ")")
    )
  if round(nao.held_out * size) == size:
    raise UserError(
      f"--held_out={nao.held_out}: none of {size} members is left to train the "
      "controller; give less"
    )


def _check_epochs(config) -> None:
  scored = config.search.rounds + 1
  epochs = config.train.epochs
  if config.evaluator == "shared" and (epochs < scored or epochs % scored):
    raise UserError(
      f"--epochs={epochs}: the pool is scored {scored} times "
      "(--rounds and once more), after an equal number of epochs each; give a "
      f"multiple of {scored}"
    )
