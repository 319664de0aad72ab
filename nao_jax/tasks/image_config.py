"""Settings of a search for convolutional cells."""

import dataclasses

from nao_jax.data.augment import AugmentConfig
from nao_jax.data.stream import StreamConfig
from nao_jax.errors import UserError
from nao_jax.evaluators.shared import SAMPLINGS
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileConfig
from nao_jax.objectives import ConstraintConfig
from nao_jax.search.config import ExperimentConfig
from nao_jax.settings import Only, field, within
from nao_jax.spaces import cnn
from nao_jax.strategies.choice import WITH_CONTROLLER
from nao_jax.tasks import image_spaces
from nao_jax.tasks.image_finals import ImageFinalConfig, ImageFinalistConfig
from nao_jax.tasks.image_recipes import INPUTS
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig


@dataclasses.dataclass(frozen=True)
class SearchCnnConfig(ExperimentConfig):
  """Settings of one search for a convolutional cell.

  The defaults are the official weight-sharing search in PyTorch (NAO_V1) on
  CIFAR-10; image_presets.py lists the differences.

  Attributes:
    dataset: `digits`, or a TFDS data set in the data directory.
    test_split: split of the data set on which the found cells are compared.
    validation_fraction: share of the training images that is held out for
      scoring, and kept in memory.
    input: `memory`, the data set lives on the devices and is augmented there
      (`augment.padding`, `augment.flip`, `augment.cutout`); or `stream`, for
      one that is too large or has images of many sizes, which become
      `stream.size` pixels wide.
    standardize: normalise each image by its own statistics, not the data set's.
    space: the cells to search: `nao`, a normal and a reduction cell; or
      `nasbench201`, one cell of six edges (Dong and Yang 2020); or `mobile`, a
      chain of mobile blocks (Luo et al. 2020); or, in Python, `own`.
    encoding: tokens of a branch: `pairs` (input, op), or `triples` (input,
      type, kernel), the paper's encoding of the large op set.
    sampling: with `shared`, how the member of the pool that a step trains is
      drawn: `uniform`; or `parameters`, in proportion to the number of
      parameters of its stand-alone network, to the power `sampling_power`.
    sampling_power: the power; above 1, large networks train still more often.
    score_images: with `shared`, number of validation images to score with; 0
      for all. Finalists are measured on all of them.
    supernet_affine: with `shared` and sums of edges, whether BatchNorm in the
      supernet's operations has a learnt scale and offset; networks of one
      architecture have them.
    train_only_new: with `shared` and `extend`, train only the proposals of the
      previous round; all members are scored.
    bfloat16: compute in bfloat16, except for BatchNorm and the classifier, in
      every training and score of the search.
    network: sizes of the supernet, or of a candidate's network.
    mobile: with `space=mobile`, the sizes of these networks and the blocks.
    train: training of that network.
    sgd: optimiser of that network.
    augment: augmentation of training images in memory.
    stream: augmentation of streamed training images.
    constraint: limits on the costs of cells, and whether a lower cost is an
      objective.
    proxies: signals that choose the first pool among ten times as many random
      architectures, by their mean rank, with commas between them: `parameters`
      and `multiply_adds` of the search's network, and of this network at its
      first weights `gradient_norm`, `synaptic_flow` and `jacobian_covariance`;
      all random if empty. With `nao_plus` the first two also correct the
      predictions of the controllers.
  """

  ACTS_WITH = (
    *ExperimentConfig.ACTS_WITH,
    Only(
      ("sampling", "score_images", "supernet_affine", "train_only_new"),
      "evaluator",
      ("shared",),
    ),
    Only(("supernet_affine",), "space", ("nasbench201", "own")),
    Only(("sampling_power",), "sampling", ("parameters",)),
    Only(("augment",), "input", ("memory",)),
    *image_spaces.ACTS_WITH,
    Only(("stream",), "input", ("stream",)),
    # It acts on the search's network, or on finalists with such a head.
    Only(
      ("train.auxiliary_weight",),
      "network.auxiliary",
      alternatives=(("finalist.auxiliary", ()),),
    ),
    Only(
      ("train.auxiliary_weight",),
      "network.auxiliary",
      alternatives=(("finalists", ()),),
    ),
    # Trainings after the search have a cosine, whatever its schedule is.
    Only(
      ("sgd.end_learning_rate",),
      "sgd.schedule",
      ("cosine", "restarts"),
      alternatives=(("finalists", ()), ("final.cells", ())),
    ),
    # Costs are those of the network of the final comparison.
    Only(
      ("final.channels", "final.cells_per_stage"),
      "final.cells",
      alternatives=(
        ("constraint.limit", ()),
        ("constraint.objectives", ("score,params", "score,multiply_adds")),
      ),
    ),
    Only(("constraint.limit_penalty",), "constraint.limit"),
    Only(("constraint.limit_penalty",), "strategy", WITH_CONTROLLER),
  )

  dataset: str = "cifar10"
  test_split: str = "test"
  validation_fraction: float = field(0.1, least=0, below=1)
  input: str = field("memory", choices=INPUTS)
  standardize: bool = False
  space: str = field("nao", choices=image_spaces.SPACES)
  encoding: str = field("pairs", choices=tuple(cnn.ENCODINGS))
  sampling: str = field("uniform", choices=SAMPLINGS)
  sampling_power: float = field(1.0, least=0, most=20, added=True)
  score_images: int = field(0, least=0, added=True)
  supernet_affine: bool = field(True, added=True)
  train_only_new: bool = False
  bfloat16: bool = field(False, added=True)
  network: NetworkConfig = NetworkConfig()
  mobile: MobileConfig = field(MobileConfig(), added=True)
  train: TrainConfig = TrainConfig()
  sgd: SgdConfig = SgdConfig()
  augment: AugmentConfig = AugmentConfig()
  stream: StreamConfig = StreamConfig()
  finalist: ImageFinalistConfig = ImageFinalistConfig()
  final: ImageFinalConfig = ImageFinalConfig()
  constraint: ConstraintConfig = ConstraintConfig()
  proxies: str = field("", added=True)

  def check_together(self) -> None:
    """Raises UserError for settings that contradict each other."""
    super().check_together()
    self.check_epochs(self.train.epochs)
    edges = self.space in ("nasbench201", "own")
    if edges and self.network.stem != "cifar":
      raise UserError(
        f"`space={self.space}` `network.stem={self.network.stem}`: these "
        "networks have the stem of small images alone; give another preset, or "
        "`space=nao`"
      )
    if self.train_only_new and not self.search.extend:
      raise UserError(
        "`train_only_new=True`: needs a pool from which no member is removed; "
        "add `search.extend=True`"
      )
    with within("network", self.network):
      cnn.check_encoding(self.encoding, self.network.ops)
