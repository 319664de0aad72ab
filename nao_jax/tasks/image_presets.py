"""The settings of a search for convolutional cells, and named sets of them.

Presets with the name of CIFAR-10 are official searches: `cifar10` NAO_V1 and
`cifar10_v2` NAO_V2, of the code in PyTorch; `cifar10_tf` and `cifar10_scratch`
with shared weights and from scratch, of the code in TensorFlow. Sizes,
schedules and methods are the official scripts' but for what follows; presets
with the name of the digits are ours.

In all of them:

- Every member is scored on the same images, all of the validation part, in
  batches of the training's size. The official code scores each member on one
  batch of 500, drawn for it. The validation part is a random tenth; that of the
  code in TensorFlow is the last tenth.
- Two architectures that differ by exchanged branches are one: the first pool
  has no two of them, and nothing is proposed that ever was in the pool. The
  official code compares tokens, with the pool as it stands.
- Every weight takes part in every step: one that the architecture did not use
  decays and coasts on its momentum. The official code in PyTorch leaves it.
- An epoch ends with its last whole batch.
- Decoding yields legal architectures only, in `triples`, too, where the
  official code tells inputs from ops alone.
- The controller is that of the code in PyTorch: attention by products, without
  input feeding, first weights uniform within 1 / sqrt(fan in); Adam starts
  afresh in each round; gradients are clipped before weight decay is added.
- The random finalists are ours, and so is the comparison with random cells at
  the end.

Of `cifar10` and `cifar10_v2` beside that:

- Branches of a reduction cell have weights of their own; in NAO_V1 a strided
  identity of the second branch uses those of the first. With --ops=large,
  average pools do not count padding and 2x2 pools do not see zeros.
- The learning rate of an epoch is not that of the next, as it is where the
  schedule steps before the optimiser.
- Drop-path grows over all epochs; in NAO_V2 it starts again in each round.
- The tenth that NAO_V2 holds out of the controller is chosen once for all, and
  each epoch draws its swaps; there the data are copied tenfold beforehand.

Of `cifar10_tf` and `cifar10_scratch` beside the first list:

- Networks are built and initialised as those in PyTorch: inputs of a cell are
  convolved only where shapes differ; drop-path strikes identities, too; the
  auxiliary head stands on the second reduction cell; first weights go by the
  fan in. With shared weights, operations of a reduction cell have a stride,
  where there the input is reduced before the cell.
- Dropout is off while scoring, where there it stays on.
- Dropout of the encoder's outputs acts in every round; there it ends with the
  first with shared weights. That of the predictor never acts there; here it
  is 0.
- The finalists are those of the code in PyTorch; in TensorFlow, the five best
  go to a grid search by hand.
- The Adam moments of the controller there live from round to round, and its
  decoder attends as Bahdanau's, with its context in the next input.

The official code has no script for the rounds of a search from scratch: size
of the pool, their number and that what is new joins the pool are the paper's,
as far as we know them.
"""

import dataclasses

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import V2, ControllerConfig
from nao_jax.data.augment import AugmentConfig
from nao_jax.errors import UserError
from nao_jax.evaluators import EVALUATORS
from nao_jax.evaluators.shared import SAMPLINGS
from nao_jax.networks.macro import NetworkConfig
from nao_jax.objectives import DemandConfig
from nao_jax.search import rules
from nao_jax.search.loop import SearchConfig
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
  CIFAR-10; the module's description says what differs.

  Attributes:
    dataset: `digits`, or a TFDS data set in the data directory.
    validation_fraction: share of the training images to score with.
    seed: decides everything.
    standardize: normalise each image by itself, not by the data set.
    strategy: `nao`, as published; `nao_plus`, ours, with an ensemble of
      controllers, for few evaluations; or the baselines `random`, `evolution`
      and `local`.
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
      many random cells train beside them. A smaller pool has fewer; 0: the
      best score wins.
    finalist: their training.
    final: the comparison of the best cells with random ones.
    demand: what cells may cost, and whether a lower cost is an aim.
  """

  ACTS_WITH = (
    *rules.ACTS_WITH,
    Only(("sampling", "train_only_new"), "evaluator", ("shared",)),
  )

  dataset: str = "cifar10"
  validation_fraction: float = field(0.1, least=0, below=1)
  seed: int = field(0, least=0, most=LAST_SEED)
  standardize: bool = False
  strategy: str = field("nao", choices=STRATEGIES)
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
    rules.check_together(self)
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
    strategy="nao_plus",
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
  # The search of the code in TensorFlow with shared weights.
  "cifar10_tf": SearchCnnConfig(
    network=NetworkConfig(cells_per_stage=2, auxiliary=True, dropout=0.1),
    # Drop-path is a flag of the script that the shared weights never see.
    train=TrainConfig(epochs=150, batch=160, drop_path_keep=1.0),
    sgd=SgdConfig(
      schedule="restarts",
      learning_rate=0.05,
      end_learning_rate=0.0005,
      nesterov=True,
      # The code adds 1e-4 |w|^2 to the loss, whose gradient is twice that.
      weight_decay=2e-4,
      # It computes clipped gradients and applies the others.
      clip=1e9,
    ),
    search=SearchConfig(
      pool_size=1000, rounds=4, new_per_round=500, random_per_round=50
    ),
    nao=NaoConfig(max_step_size=101),
    controller=ControllerConfig(
      mlp_width=100, mlp_dropout=0.0, output_dropout=0.1
    ),
  ),
  # The search of the paper; a thousand trainings of 25 epochs.
  "cifar10_scratch": SearchCnnConfig(
    standardize=True,
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
    controller=ControllerConfig(
      embedding=32, mlp_layers=0, mlp_dropout=0.0, output_dropout=0.1
    ),
    fit=FitConfig(batch=50, swap=False),
  ),
  # Real digits, a minute a candidate or less.
  "digits_scratch": SearchCnnConfig(
    dataset="digits",
    validation_fraction=0.25,
    strategy="nao_plus",
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
