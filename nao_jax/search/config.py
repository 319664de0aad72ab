"""Settings of every search, independent of the task."""

import dataclasses
import math

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.errors import UserError
from nao_jax.evaluators import EVALUATORS
from nao_jax.settings import LAST_SEED, Only, field, numbered
from nao_jax.strategies.choice import NEED_ALL, STRATEGIES, WITH_CONTROLLER
from nao_jax.strategies.nao import NaoConfig
from nao_jax.strategies.nao_plus import NaoPlusConfig
from nao_jax.strategies.seminas import SemiNasConfig

# With this strategy, settings of others only give a warning, so that one
# command, with another strategy, makes the baseline.
_BASELINE = ("random",)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """Settings of the pool and the rounds; defaults are the official search's.

  Attributes:
    pool_size: number of architectures in the first pool.
    rounds: number of rounds in which proposals enter the pool; after them the
      pool is scored once more.
    new_per_round: the most proposals in a round.
    extend: add new architectures to the pool; otherwise they replace the worst
      members.
    asynchronous: propose before all architectures of a round have scores, so
      that no device waits for the slowest training; pending architectures join
      the next round. The result then depends on the speed of trainings.
    max_pending: with `asynchronous`, the most pending architectures when a
      round closes, as a share of `new_per_round`; it should be at least the
      number of workers, so that none idles.
    random_per_round: number of random architectures that enter the pool beside
      the proposals of each round.
  """

  ACTS_WITH = (Only(("max_pending",), "asynchronous"),)

  pool_size: int = field(600, least=2)
  rounds: int = field(4, least=0)
  new_per_round: int = field(300, least=1)
  extend: bool = False
  asynchronous: bool = False
  max_pending: float = field(0.5, above=0)
  random_per_round: int = field(0, least=0)

  @property
  def pending_limit(self) -> int:
    """The most architectures that may be pending when a round closes."""
    if not self.asynchronous:
      return 0
    return max(1, round(self.max_pending * self.new_per_round))

  @property
  def _entering(self) -> int:
    """The most architectures that enter the pool in a round."""
    return self.new_per_round + self.random_per_round

  def check_together(self) -> None:
    """Raises UserError for sizes that do not fit together."""
    if not self.extend and self._entering >= self.pool_size:
      random = f" `random_per_round={self.random_per_round}`"
      raise UserError(
        f"`new_per_round={self.new_per_round}`"
        + (random if self.random_per_round else "")
        + f": some of the members (`pool_size={self.pool_size}`) must stay; "
        "give a smaller number, or `extend=True`"
      )
    if not self.asynchronous:
      return
    # Members that are pending at the end of a round cannot be replaced.
    least = 2 if self.extend else 1 + self._entering
    spare = self.pool_size - least
    if self.pending_limit > spare:
      most = math.floor(1000 * spare / self.new_per_round) / 1000
      advice = f"at most {most}, or a larger pool" if most else "a larger pool"
      raise UserError(
        f"`max_pending={self.max_pending}`: of `pool_size={self.pool_size}` "
        f"members {least} must have a score when a round closes; give {advice}"
      )


@dataclasses.dataclass(frozen=True)
class FinalistConfig:
  """Settings of a finalist's training; all others are those of the search.

  Attributes:
    epochs: passes over the training data.
    stages: further trainings of the best, each from scratch with a schedule of
      its own, such as 8:20,3:60: the best 8 are trained for 20 epochs, and the
      best 3 of them for 60; as many random cells are, too. Each stage has fewer
      cells and more epochs than the one before. A cell ranks by the last stage
      in which it did not diverge, then by its result there.
  """

  epochs: int = field(10, least=1)
  stages: str = field("", added=True)

  @property
  def later(self) -> list[tuple[int, int]]:
    """The stages after the first: pairs of cells and epochs."""
    found = numbered("stages", self.stages)
    if not all(cells.isdecimal() and int(cells) for cells, _ in found):
      raise UserError(
        f"`stages={self.stages}`: give numbers of cells and of epochs, such as "
        "8:20,3:60"
      )
    return [(int(cells), epochs) for cells, epochs in found]

  def check_together(self) -> None:
    """Raises UserError for stages in another order."""
    cells, before = math.inf, self.epochs
    for count, epochs in self.later:
      if count >= cells or epochs <= before:
        raise UserError(
          f"`stages={self.stages}`: {count}:{epochs} must have fewer cells and "
          f"more epochs than the stage before it; the first has "
          f"`epochs={self.epochs}`"
        )
      cells, before = count, epochs


@dataclasses.dataclass(frozen=True)
class FinalConfig:
  """Settings of the final comparison of the best cells with random ones.

  The comparison is not part of the published method. Each cell is trained from
  scratch; all other settings are those of the search.

  Attributes:
    cells: number of best cells, and number of random cells; 0 for no
      comparison.
    repeats: number of trainings of each cell, with different random numbers.
    epochs: passes over the training data.
  """

  ACTS_WITH = (Only(("repeats", "epochs"), "cells"),)

  cells: int = field(3, least=0)
  repeats: int = field(3, least=1)
  epochs: int = field(10, least=1)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
  """Settings of a search, of its finalists and of the final comparison.

  The settings of a task extend this class by data, networks and trainings.

  Attributes:
    seed: seed of all random numbers.
    strategy: `nao`, as published; `seminas`, its authors' next one;
      `nao_plus`, ours, with an ensemble of controllers, for few evaluations; or
      a baseline: `random`, `evolution` or `local`.
    evaluator: `shared`, a network whose weights all architectures share; or
      `scratch`, a separate training of each candidate.
    architectures_per_step: with `shared`, number of members that each step
      trains, on equal shares of the batch; 1, or a multiple of the number of
      devices.
    prune: with `scratch`, stop a candidate whose score after an epoch is below
      the previous round's median at that epoch.
    search: the pool and the rounds.
    plus: settings of the fit and the proposals of `nao_plus`.
    nao: settings of the proposals of `nao`.
    semi: settings of the pseudo-labels and the proposals of `seminas`.
    controller: sizes of the controller.
    fit: settings of the fit of `nao`'s controller, and of `seminas`'s.
    finalists: number of best members that are trained from scratch and measured
      on the whole validation part; the best of them wins. With 0, the best
      score wins. As many random cells are trained unless `final.cells` is 0. A
      smaller pool has fewer finalists.
    finalist_share: share of the pool, from its best member on, over which the
      first finalists are spread evenly; with 0 they are the best members.
      Shared weights prefer some kinds of good cells to others, so the best
      members are alike, and little is learnt from their trainings.
    finalist_rounds: number of rounds after the first finalists, in which the
      strategy learns from their trainings, too, and proposes `finalists` more;
      as many more random cells are trained unless `final.cells` is 0.
    finalist: training of the finalists.
    final: comparison of the best cells with random ones.
  """

  ACTS_WITH = (
    Only(("nao",), "strategy", ("nao",), _BASELINE),
    Only(("fit",), "strategy", ("nao", "seminas"), _BASELINE),
    Only(("semi",), "strategy", ("seminas",), _BASELINE),
    Only(("plus",), "strategy", ("nao_plus",), _BASELINE),
    Only(("controller",), "strategy", WITH_CONTROLLER, _BASELINE),
    Only(("architectures_per_step",), "evaluator", ("shared",)),
    Only(("finalist", "finalist_rounds", "finalist_share"), "finalists"),
  )

  seed: int = field(0, least=0, most=LAST_SEED)
  strategy: str = field("nao", choices=STRATEGIES)
  evaluator: str = field("shared", choices=EVALUATORS)
  architectures_per_step: int = field(1, least=1)
  prune: bool = False
  search: SearchConfig = SearchConfig()
  plus: NaoPlusConfig = NaoPlusConfig()
  nao: NaoConfig = NaoConfig()
  semi: SemiNasConfig = field(SemiNasConfig(), added=True)
  controller: ControllerConfig = ControllerConfig()
  fit: FitConfig = FitConfig()
  finalists: int = field(5, least=0)
  finalist_share: float = field(0.0, least=0, most=1, added=True)
  finalist_rounds: int = field(0, least=0, added=True)
  finalist: FinalistConfig = FinalistConfig()
  final: FinalConfig = FinalConfig()

  def check_together(self) -> None:
    """Raises UserError for settings that contradict each other."""
    for name, value in (
      ("search.asynchronous", self.search.asynchronous),
      ("prune", self.prune),
    ):
      if value and self.evaluator == "shared":
        raise UserError(
          f"`{name}=True`: allowed only with `evaluator=scratch`, where "
          "candidates train alone"
        )
    if self.strategy in NEED_ALL and not self.search.extend:
      raise UserError(
        f"`strategy={self.strategy}`: needs all architectures that were ever "
        "scored, or their age; add `search.extend=True`, so that none leaves "
        "the pool"
      )
    self._check_finals()
    if self.strategy == "nao":
      self._check_nao()
    if self.strategy in ("nao", "seminas"):
      self._check_held_out()

  def check_epochs(self, epochs: int) -> None:
    """Raises UserError if the rounds cannot share the epochs evenly.

    Args:
      epochs: number of epochs of the shared weights, `train.epochs`.
    """
    scored = self.search.rounds + 1
    if self.evaluator == "shared" and epochs % scored:
      raise UserError(
        f"`train.epochs={epochs}`: the pool is scored {scored} times "
        "(`search.rounds` and once more), after an equal number of epochs "
        f"each; give a multiple of {scored}"
      )

  def _check_finals(self) -> None:
    size, cells = self.search.pool_size, self.final.cells
    # A pool smaller than the default number of finalists is allowed.
    if cells > size:
      raise UserError(
        f"`final.cells={cells}`: the pool has only {size} members "
        "(`search.pool_size`)"
      )
    if 0 < self.finalists < cells:
      raise UserError(
        f"`final.cells={cells}`: the cells to compare are the best of "
        f"`finalists={self.finalists}`; give at most that many, more "
        "finalists, or `finalists=0`"
      )
    spread = round(self.finalist_share * size)
    if self.finalists and self.finalist_share and spread <= self.finalists:
      raise UserError(
        f"`finalist_share={self.finalist_share}`: of `search.pool_size={size}` "
        f"that is {spread}, and `finalists={self.finalists}` cannot be spread "
        "over them; give more, or 0"
      )
    trained = self.finalists * (1 + self.finalist_rounds)
    for first, _ in self.finalist.later[:1] if trained else ():
      if first >= trained:
        raise UserError(
          f"`finalist.stages={self.finalist.stages}`: {first} cells are not "
          f"fewer than those of the first stage, {trained} "
          f"(`finalists={self.finalists}` in each round); give fewer"
        )

  def _check_nao(self) -> None:
    pending = self.search.pending_limit
    size, nao = self.search.pool_size - pending, self.nao
    if nao.top_k > size:
      without = ", without those that may be `search.max_pending`"
      raise UserError(
        f"`nao.top_k={nao.top_k}`: the seeds are scored members of the pool; "
        f"allowed: 1 to {size} (`search.pool_size`{without if pending else ''})"
      )

  def _check_held_out(self) -> None:
    size = self.search.pool_size - self.search.pending_limit
    own = self.nao if self.strategy == "nao" else self.semi
    if round(own.held_out * size) == size:
      raise UserError(
        f"`{own.NAME}.held_out={own.held_out}`: none of {size} members is left "
        "to train the controller; give less"
      )
