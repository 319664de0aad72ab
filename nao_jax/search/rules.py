"""Rules between the settings of a search, for any task.

They name settings as `tasks.image_presets.SearchCnnConfig` and
`tasks.text_presets.SearchRnnConfig` do.
"""

from typing import Any

from nao_jax.errors import UserError
from nao_jax.settings import Only
from nao_jax.strategies.choice import NEED_ALL

# The baseline of a search is the same command with this strategy.
_BASELINE = ("random",)

ACTS_WITH = (
  Only(("nao", "fit"), "strategy", ("nao",), _BASELINE),
  Only(("plus",), "strategy", ("nao_plus",), _BASELINE),
  Only(("controller",), "strategy", ("nao", "nao_plus"), _BASELINE),
  Only(("architectures_per_step",), "evaluator", ("shared",)),
  Only(("finalist",), "finalists"),
)


def check_together(config: Any) -> None:
  """Checks the settings of a search against each other.

  Args:
    config: settings, each within its own limits.

  Raises:
    UserError: two settings do not fit together.
  """
  if config.search.asynchronous and config.evaluator == "shared":
    raise UserError(
      "`search.asynchronous=True`: allowed only with `evaluator=scratch`, "
      "where candidates train alone"
    )
  if config.prune and config.evaluator == "shared":
    raise UserError(
      "`prune=True`: allowed only with `evaluator=scratch`, where candidates "
      "train alone"
    )
  if config.strategy in NEED_ALL and not config.search.extend:
    raise UserError(
      f"`strategy={config.strategy}`: goes by the age of architectures, or by "
      "where it stands among all; add `search.extend=True`, so that none "
      "leaves the pool"
    )
  _check_finals(config)
  if config.strategy == "nao":
    _check_nao(config)
  _check_epochs(config)


def check_trials(config: Any, trials: str | None) -> None:
  """Raises UserError for shared trials that other searches could not use."""
  if config.prune and trials:
    raise UserError(
      f"`prune=True` `trials={trials}`: what is pruned depends on the pool of "
      "this search, so its trials are of no use to others; give only one of "
      "them"
    )


def check_processes(config: Any) -> None:
  """Raises UserError for a search that several processes cannot share."""
  if config.evaluator != "shared":
    raise UserError(
      f"`evaluator={config.evaluator}`: several processes train shared weights "
      "together; give `evaluator=shared`, or start one process"
    )


def _check_finals(config: Any) -> None:
  size, cells = config.search.pool_size, config.final.cells
  # A pool smaller than the default number of finalists is allowed.
  if cells > size:
    raise UserError(
      f"`final.cells={cells}`: there are {size} members (`search.pool_size`)"
    )
  if 0 < config.finalists < cells:
    raise UserError(
      f"`final.cells={cells}`: the cells to compare are the best of "
      f"`finalists={config.finalists}`; give at most so many, more finalists, "
      "or `finalists=0`"
    )


def _check_nao(config: Any) -> None:
  max_pending = config.search.pending_limit
  size, nao = config.search.pool_size - max_pending, config.nao
  if nao.top_k > size:
    without = (
      ", without those that may be `search.max_pending`" if max_pending else ""
    )
    raise UserError(
      f"`nao.top_k={nao.top_k}`: the seeds are scored members of the pool; "
      f"allowed: 1 to {size} (`search.pool_size`{without})"
    )
  if round(nao.held_out * size) == size:
    raise UserError(
      f"`nao.held_out={nao.held_out}`: none of {size} members is left to train "
      "the controller; give less"
    )


def _check_epochs(config: Any) -> None:
  scored = config.search.rounds + 1
  epochs = config.train.epochs
  if config.evaluator == "shared" and (epochs < scored or epochs % scored):
    raise UserError(
      f"`train.epochs={epochs}`: the pool is scored {scored} times "
      "(`search.rounds` and once more), after an equal number of epochs each; "
      f"give a multiple of {scored}"
    )
