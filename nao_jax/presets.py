"""The settings of a search for convolutional cells, and named sets of them."""

import dataclasses

from nao_jax import search_settings
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import V2, ControllerConfig
from nao_jax.data.augment import AugmentConfig
from nao_jax.errors import UserError
from nao_jax.evaluators import EVALUATORS
from nao_jax.evaluators.shared import SAMPLINGS
from nao_jax.networks.macro import NetworkConfig
from nao_jax.objectives import DemandConfig
from nao_jax.search import SearchConfig
from nao_jax.settings import LAST_SEED, Only, field, within
from nao_jax.spaces import cnn
from nao_jax.strategies.choice import STRATEGIES
from nao_jax.strategies.nao import NaoConfig
from nao_jax.strategies.nao_plus import NaoPlusConfig
from nao_jax.training.final import FinalConfig, FinalistConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig


@dataclasses.dataclass(frozen=True)
class SearchCnnConfig:
  """All settings of one search.

  The defaults are the official weight-sharing search in PyTorch (NAO_V1) on
  CIFAR-10, but for two things: the official strategy is `nao`, and `nao_plus`
  needs fewer evaluations (docs/search_quality.md); and the official code gave
  no budget for a comparison with random cells.

  Attributes:
    dataset: `digits`, or a TFDS data set in the data directory.
    validation_fraction: share of the training images to score with.
    seed: decides everything.
    strategy: `nao`, as published; `nao_plus`, with an ensemble of controllers;
      or the baselines `random`, `evolution` and `local`.
    evaluator: `shared`, a supernet whose weights all share; or `scratch`, a
      training of each candidate alone.
    coding: tokens of a branch: `pairs` (input, op), or `triples` (input, type,
      kernel), the paper's, of the large op set.
    sampling: with `shared`, which member of the pool a step trains: `uniform`,
      any is as likely; or `parameters`, in proportion to the parameters of its
      stand-alone network.
    architectures_per_step: with `shared`, how many members each step trains, on
      equal shares of the batch; 1, or a multiple of the devices.
    train_only_new: with `shared` and `extend`, train only the proposals of the
      round before; all members are scored.
    prune: with `scratch`, stop a candidate that after an epoch is worse than
      half of the pool of the round before was.
    network: the supernet, or that of a candidate.
    train: its training.
    sgd: its optimiser.
    augment: its images.
    search: pool and rounds.
    nao: how `nao` proposes.
    plus: how `nao_plus` fits its controllers and proposes.
    controller: sizes of the controller.
    fit: how that of `nao` is fitted.
    finalists: how many of the best by score train from scratch, each measured
      on the whole validation part, before the first of them is the winner; as
      many random cells train beside them. 0: the best score wins.
    finalist: their training.
    final: the comparison of the best cells with random ones.
    demand: what cells may cost, and whether a lower cost is an aim.
  """

  ACTS_WITH = (
    *search_settings.ACTS_WITH,
    Only(("sampling", "train_only_new"), "evaluator", ("shared",)),
  )

  dataset: str = "cifar10"
  validation_fraction: float = field(0.1, least=0, below=1)
  seed: int = field(0, least=0, most=LAST_SEED)
  strategy: str = field("nao_plus", choices=STRATEGIES)
  evaluator: str = field("shared", choices=EVALUATORS)
  coding: str = field("pairs", choices=tuple(cnn.CODINGS))
  sampling: str = field("uniform", choices=SAMPLINGS)
  architectures_per_step: int = field(1, least=1)
  train_only_new: bool = False
  prune: bool = False
  network: NetworkConfig = NetworkConfig()
  train: TrainConfig = TrainConfig()
  sgd: SgdConfig = SgdConfig()
  augment: AugmentConfig = AugmentConfig()
  search: SearchConfig = SearchConfig()
  plus: NaoPlusConfig = NaoPlusConfig()
  nao: NaoConfig = NaoConfig()
  controller: ControllerConfig = ControllerConfig()
  fit: FitConfig = FitConfig()
  finalists: int = field(5, least=0)
  finalist: FinalistConfig = FinalistConfig()
  final: FinalConfig = FinalConfig()
  demand: DemandConfig = DemandConfig()

  def check_together(self) -> None:
    """Raises UserError for settings that do not fit each other."""
    search_settings.check_together(self)
    if self.train_only_new and not self.search.extend:
      raise UserError(
        "`train_only_new=True`: what is new stands at the end of a pool that "
        "none leaves; add `search.extend=True`"
      )
    with within("network", self.network):
      cnn.check_coding(self.coding, self.network.ops)


# A training of a second or two on two cores; its finalists and the comparison
# train alike, and so share their program.
_DIGITS_FINALIST = FinalistConfig(
  epochs=12,
  channels=8,
  cells_per_stage=1,
  drop_path_keep=1.0,
  dropout=0.0,
  auxiliary=False,
)

PRESETS = {
  # `make search`: real digits, a few minutes on two cores.
  "digits": SearchCnnConfig(
    dataset="digits",
    validation_fraction=0.25,
    network=NetworkConfig(cells_per_stage=1, channels=8),
    train=TrainConfig(epochs=40, batch=64, drop_path_keep=1.0),
    sgd=SgdConfig(learning_rate=0.1),
    augment=AugmentConfig(padding=1, flip=False),
    search=SearchConfig(pool_size=60, rounds=3, new_per_round=20),
    nao=NaoConfig(top_k=15, max_step_size=30, held_out=0.2),
    controller=ControllerConfig(embedding=24, hidden=48, mlp_width=64),
    fit=FitConfig(epochs=600, batch=50),
    finalist=_DIGITS_FINALIST,
    final=FinalConfig(epochs=12, channels=8, cells_per_stage=1),
  ),
  "cifar10": SearchCnnConfig(),
  # The search of the follow-up, "Balanced NAO" (Luo et al. 2019), NAO_V2; its
  # other op set is `middle`.
  "cifar10_v2": SearchCnnConfig(
    sampling="parameters",
    train_only_new=True,
    train=TrainConfig(epochs=200),
    # A cosine for the 50 epochs of each round.
    sgd=SgdConfig(schedule="restarts", period=50, period_factor=1),
    search=SearchConfig(
      pool_size=1000, rounds=3, new_per_round=300, extend=True
    ),
    nao=NaoConfig(held_out=0.1),
    controller=V2,
    # 1000 epochs over tenfold data. A copy is a random swap, and here an
    # epoch draws other swaps, so ten epochs are one of them.
    fit=FitConfig(epochs=10_000, weight_decay=0.0),
  ),
  # The search of the paper; a thousand trainings of 25 epochs.
  "cifar10_scratch": SearchCnnConfig(
    evaluator="scratch",
    finalists=0,  # Scores are those of trainings from scratch.
    coding="triples",
    network=NetworkConfig(ops="large", channels=32, auxiliary=True),
    train=TrainConfig(epochs=25, batch=128, drop_path_keep=0.7),
    sgd=SgdConfig(
      # The official schedule is made for 100 epochs, of which 25 are run.
      schedule="restarts",
      period=100,
      learning_rate=0.024,
      end_learning_rate=0.0,
      weight_decay=5e-4,
    ),
    search=SearchConfig(pool_size=600, rounds=3, extend=True),
    nao=NaoConfig(step_size=10, max_step_size=30),
    controller=ControllerConfig(embedding=32, mlp_layers=0),
    fit=FitConfig(batch=50),
  ),
  # Real digits, a minute a candidate or less.
  "digits_scratch": SearchCnnConfig(
    dataset="digits",
    validation_fraction=0.25,
    evaluator="scratch",
    finalists=0,
    network=NetworkConfig(cells_per_stage=1, channels=8),
    train=TrainConfig(epochs=6, batch=64, drop_path_keep=1.0),
    sgd=SgdConfig(learning_rate=0.1),
    augment=AugmentConfig(padding=1, flip=False),
    search=SearchConfig(pool_size=40, rounds=2, new_per_round=15, extend=True),
    nao=NaoConfig(top_k=15, max_step_size=30, held_out=0.2),
    controller=ControllerConfig(embedding=24, hidden=48, mlp_width=64),
    fit=FitConfig(epochs=600, batch=50),
    finalist=_DIGITS_FINALIST,
    final=FinalConfig(cells=2, epochs=12, channels=8, cells_per_stage=1),
  ),
}
