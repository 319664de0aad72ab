"""Settings of a final training, and the published ones by name."""

import dataclasses

from nao_jax.data.augment import AugmentConfig
from nao_jax.data.stream import StreamConfig
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import SEMINASNET, SMALL, MobileConfig
from nao_jax.settings import LAST_SEED, Only, field
from nao_jax.spaces import nasbench201
from nao_jax.tasks import image_spaces
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig

INPUTS = ("memory", "stream")
SPACES = ("nao", "nasbench201", "mobile")


@dataclasses.dataclass(frozen=True)
class TrainCnnConfig:
  """Settings of the training of one network.

  Attributes:
    arch: the architecture: a published name, its published notation, tokens,
      or a .json file with `tokens`, such as a search's.
    space: the space of the architecture: `nao`, `nasbench201` or `mobile`.
    dataset: `digits`, or a TFDS data set in the data directory.
    test_split: the split of the data set to report on at the end.
    validation_fraction: share of the training images to hold out and to measure
      after each epoch; no choice depends on it.
    input: `memory`: the data set is kept on the devices and augmented there
      (`augment.padding`, `augment.flip`, `augment.cutout`); or `stream`, for a
      data set that is too large or has images of many sizes, which are made
      `stream.size` pixels wide.
    standardize: normalise each image by its own statistics, not the data set's.
    seed: seed of all random numbers.
    accumulate: number of parts into which a batch is cut to save memory. Each
      part has its own BatchNorm statistics, and each device cuts its own share.
    bfloat16: compute in bfloat16, except for BatchNorm and the classifier.
    network: sizes of the network.
    mobile: with `space=mobile`, the sizes of the network and the blocks.
    train: epochs, batch and regularisation.
    sgd: settings of the optimiser.
    augment: random changes to images in memory.
    stream: random changes to streamed images.
  """

  ACTS_WITH = (
    *image_spaces.ACTS_WITH,
    Only(("train.auxiliary_weight",), "network.auxiliary"),
    Only(("sgd.end_learning_rate",), "sgd.schedule", ("cosine", "restarts")),
    Only(("augment",), "input", ("memory",)),
    Only(("stream",), "input", ("stream",)),
  )

  arch: str = "NAONet-A"
  space: str = field("nao", choices=SPACES, added=True)
  dataset: str = "cifar10"
  test_split: str = "test"
  validation_fraction: float = field(0.0, least=0, below=1)
  input: str = field("memory", choices=INPUTS)
  standardize: bool = False
  seed: int = field(0, least=0, most=LAST_SEED)
  accumulate: int = field(1, least=1)
  bfloat16: bool = False
  network: NetworkConfig = NetworkConfig()
  mobile: MobileConfig = field(MobileConfig(), added=True)
  train: TrainConfig = TrainConfig()
  sgd: SgdConfig = SgdConfig()
  augment: AugmentConfig = AugmentConfig()
  stream: StreamConfig = StreamConfig()

  def check_together(self) -> None:
    """Raises UserError for settings that contradict each other."""
    if self.input == "stream" and self.validation_fraction:
      raise UserError(
        f"`validation_fraction={self.validation_fraction}`: with "
        "`input=stream` nothing is held out; give 0"
      )


_CIFAR = TrainCnnConfig(
  network=NetworkConfig(
    cells_per_stage=6, channels=36, auxiliary=True, dropout=0.4
  ),
  train=TrainConfig(epochs=600, batch=128, drop_path_keep=0.8),
  sgd=SgdConfig(learning_rate=0.025, end_learning_rate=0.0, weight_decay=3e-4),
  augment=AugmentConfig(cutout=16),
)

# The TensorFlow code's recipe, on the macro-structure of the PyTorch code,
# which is the one built here.
_NAONET = dataclasses.replace(
  _CIFAR,
  arch="NAONet",
  standardize=True,
  network=dataclasses.replace(_CIFAR.network, channels=128),
  train=dataclasses.replace(_CIFAR.train, drop_path_keep=0.7),
  sgd=dataclasses.replace(_CIFAR.sgd, learning_rate=0.024, weight_decay=5e-4),
)

_IMAGENET = TrainCnnConfig(
  dataset="imagenet2012",
  test_split="validation",
  input="stream",
  network=NetworkConfig(
    cells_per_stage=4, channels=42, stem="imagenet", auxiliary=True
  ),
  train=TrainConfig(
    epochs=250, batch=128, drop_path_keep=1.0, label_smoothing=0.1
  ),
  sgd=SgdConfig(
    schedule="step", learning_rate=0.1, decay=0.97, weight_decay=3e-5
  ),
)


def _changed(config: TrainCnnConfig, **changes) -> TrainCnnConfig:
  """Returns the settings with changes; a dict changes a nested setting."""
  return dataclasses.replace(
    config,
    **{
      name: dataclasses.replace(getattr(config, name), **value)
      if isinstance(value, dict)
      else value
      for name, value in changes.items()
    },
  )


# Real digits, in under a minute on two cores.
_DIGITS = TrainCnnConfig(
  arch="NAONet-B",
  dataset="digits",
  network=NetworkConfig(cells_per_stage=1, channels=8),
  train=TrainConfig(epochs=12, batch=64, drop_path_keep=1.0),
  sgd=SgdConfig(learning_rate=0.1),
  augment=AugmentConfig(padding=1, flip=False),
)

RECIPES = {
  "digits": _DIGITS,
  # For what `make search` finds; all convolutions, until --arch is given.
  "digits_nasbench201": dataclasses.replace(
    _DIGITS,
    arch=nasbench201.to_text(nasbench201.to_tokens([3] * 6)),
    space="nasbench201",
  ),
  "naonet_cifar10": _NAONET,
  "naonet_cifar100": _changed(
    _NAONET,
    dataset="cifar100",
    network={"dropout": 0.2},
    train={"drop_path_keep": 0.6},
  ),
  "nao_ws_cifar10": _changed(
    _CIFAR,
    arch="NAO-WS",
    network={"cells_per_stage": 5, "dropout": 0.2},
    train={"epochs": 630, "batch": 144, "drop_path_keep": 0.6},
    sgd={
      "schedule": "restarts",
      "learning_rate": 0.05,
      "end_learning_rate": 1e-4,
      "nesterov": True,
      # The code adds 2e-4 |w|^2 to the loss, whose gradient has twice that
      # factor.
      "weight_decay": 4e-4,
    },
    augment={"cutout": 0},
  ),
  "naonet_a_36_cifar10": _CIFAR,
  "naonet_b_36_cifar10": _changed(_CIFAR, arch="NAONet-B"),
  "naonet_a_128_cifar10": _changed(
    _CIFAR,
    network={"channels": 128},
    train={"drop_path_keep": 0.7},
    sgd={"weight_decay": 5e-4},
  ),
  "naonet_v2_36_cifar10": _changed(
    _CIFAR, arch="NAONet-V2", sgd={"weight_decay": 5e-4}
  ),
  # No recipe was published for this width on CIFAR-100; this is CIFAR-10's.
  "naonet_a_36_cifar100": _changed(_CIFAR, dataset="cifar100"),
  "naonet_a_imagenet": _IMAGENET,
  "naonet_v2_imagenet": _changed(
    _IMAGENET, arch="NAONet-V2", network={"channels": 52}
  ),
  # As published, on 4 GPUs with 256 images each, and .05 for each 256 images.
  "seminasnet_imagenet": TrainCnnConfig(
    arch="SemiNASNet",
    space="mobile",
    dataset="imagenet2012",
    test_split="validation",
    input="stream",
    network=NetworkConfig(dropout=0.3),
    mobile=SEMINASNET,
    train=TrainConfig(
      epochs=300, batch=1024, drop_path_keep=1.0, label_smoothing=0.1
    ),
    sgd=SgdConfig(
      learning_rate=0.2,
      end_learning_rate=0.0,
      nesterov=True,
      weight_decay=4e-5,
      decay_batch_norm=False,
      clip=1e9,
    ),
  ),
  # The same for images of 32x32 pixels; ours.
  "mobile_cifar10": TrainCnnConfig(
    arch="2 2 2 2 2 2 2 2",
    space="mobile",
    network=NetworkConfig(dropout=0.2),
    mobile=SMALL,
    train=TrainConfig(
      epochs=300, batch=128, drop_path_keep=1.0, label_smoothing=0.1
    ),
    sgd=SgdConfig(
      learning_rate=0.1,
      end_learning_rate=0.0,
      nesterov=True,
      decay_batch_norm=False,
    ),
    augment=AugmentConfig(cutout=16),
  ),
}
