"""Named presets of the settings of a search for convolutional cells.

Presets named after CIFAR-10 are official searches: `cifar10` is NAO_V1 and
`cifar10_v2` NAO_V2, from the code in PyTorch; `cifar10_tf` (shared weights) and
`cifar10_scratch` (training from scratch) are from the code in TensorFlow.
Sizes, schedules and methods are those of the official scripts, except for the
differences below; presets of the digits and of other spaces are ours.

Differences in all of them:

- Every member is scored on the same images: the whole validation part, in
  batches of the training's size. The official code scores each member on one
  batch of 500, drawn for that member. The validation part is a random tenth; in
  the TensorFlow code it is the last tenth.
- Two architectures that differ only by exchanged branches are the same: the
  first pool contains no two of them, and no architecture is proposed that was
  ever in the pool. The official code compares tokens, and only with the current
  pool.
- Every weight takes part in every step: a weight that the architecture did not
  use decays and moves by its momentum. The official PyTorch code leaves it
  unchanged.
- An epoch ends with its last whole batch.
- Decoding yields only legal architectures, also in `triples`, where the
  official code only distinguishes inputs and ops.
- The controller is that of the PyTorch code: dot-product attention, no input
  feeding, initial weights uniform within 1 / sqrt(fan in); Adam is reset in
  each round; gradients are clipped before weight decay is added.
- The random finalists and the final comparison with random cells are additions
  of this project.

Further differences of `cifar10` and `cifar10_v2`:

- Branches of a reduction cell have separate weights; in NAO_V1 a strided
  identity of the second branch uses those of the first branch. With
  `network.ops` "large", average pools do not count padding and 2x2 pools do not
  read zeros.
- Each epoch has its own learning rate; in the official code, where the schedule
  steps before the optimiser, it has the next epoch's.
- Drop-path grows over all epochs; in NAO_V2 it starts again in each round.
- The tenth that NAO_V2 holds out from the controller is chosen once for all
  epochs, and each epoch draws its own swaps; the official code copies the data
  tenfold beforehand.

Further differences of `cifar10_tf` and `cifar10_scratch`:

- Networks are built and initialised as in the PyTorch code: inputs of a cell
  are convolved only if shapes differ; drop-path also drops identities; the
  auxiliary head is on the second reduction cell; initial weights scale with the
  fan-in. With shared weights, operations of a reduction cell have a stride,
  while the official code reduces the input before the cell.
- Dropout is off during scoring; in the official code it stays on.
- Dropout of the encoder's outputs acts in every round; in the official code
  with shared weights it ends after the first. The official dropout of the
  predictor never acts; here it is 0.
- The finalists are those of the PyTorch code; in TensorFlow, the five best
  architectures go to a manual grid search.
- In the official code, the controller's Adam moments persist from round to
  round, and its decoder uses Bahdanau attention with the context in the next
  input.

Of `imagenet` beside the first list and that of `cifar10`:

- For ImageNet, the official code has a stem, the step schedule and label
  smoothing; its learning rate, batch, number of epochs and sizes are not known,
  and those of CIFAR-10 are used instead. Its stem cannot run: a normalisation
  in it has half the channels of its input. Here it is that of the final
  networks.
- Images are cropped and augmented as in the final trainings on ImageNet. The
  images for scoring are not known: here they are 4 in 1,000 of the training
  images, cropped to the middle 224 pixels.
- The finalists train for 10 epochs with one cosine, as on CIFAR-10; there is no
  comparison with random cells (`final.cells`), as it would take longer than the
  search.

Of `mobile_imagenet`, the supernet's sizes, pool and rounds are SemiNAS's, and
the optimiser is that of its final training. Images, finalists and comparison
are as in `imagenet`; all else is ours, and so is `mobile_cifar10`.
`seminas_imagenet` is the same with SemiNAS's controller and proposals. Here
targets are scaled to the pool's range, and random architectures that are in the
pool are not used as seeds a second time. The official script takes the worst
architectures as seeds, by mistake.

The official code has no script for the rounds of a search from scratch: the
size of the pool, the number of rounds and the rule that new architectures join
the pool are the paper's, as far as we know them.
"""

import dataclasses

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import SEMI, V2, ControllerConfig
from nao_jax.data.augment import AugmentConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import SMALL
from nao_jax.search.config import SearchConfig
from nao_jax.strategies.nao import NaoConfig
from nao_jax.strategies.seminas import SemiNasConfig
from nao_jax.tasks.image_config import SearchCnnConfig
from nao_jax.tasks.image_finals import ImageFinalConfig, ImageFinalistConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig

# A training of a second or two on two cores; finalists and the final comparison
# train alike, and so share their program.
_DIGITS_FINALIST = ImageFinalistConfig(
  epochs=12,
  channels=8,
  cells_per_stage=1,
  drop_path_keep=1.0,
  dropout=0.0,
  auxiliary=False,
)

# As it was measured: without dropout, which the ensemble did not have.
_SMALL = ControllerConfig(
  embedding=24, hidden=48, mlp_width=64, mlp_dropout=0.0
)

_MOBILE_SGD = SgdConfig(
  learning_rate=0.05,
  end_learning_rate=0.0,
  nesterov=True,
  weight_decay=4e-5,
  decay_batch_norm=False,
)
_MOBILE_TRAIN = TrainConfig(
  epochs=120, batch=256, drop_path_keep=1.0, label_smoothing=0.1
)
_MOBILE_SEARCH = SearchConfig(
  pool_size=100, rounds=3, new_per_round=100, extend=True
)
_MOBILE_FINALIST = ImageFinalistConfig(
  drop_path_keep=1.0, dropout=0.2, auxiliary=False
)

_MOBILE_IMAGENET = SearchCnnConfig(
  dataset="imagenet2012",
  test_split="validation",
  validation_fraction=0.004,
  input="stream",
  space="mobile",
  train=_MOBILE_TRAIN,
  sgd=_MOBILE_SGD,
  search=_MOBILE_SEARCH,
  finalist=_MOBILE_FINALIST,
  final=ImageFinalConfig(cells=0),
)

# Real digits, in a few minutes on two cores.
_DIGITS = SearchCnnConfig(
  dataset="digits",
  validation_fraction=0.25,
  strategy="nao_plus",
  network=NetworkConfig(cells_per_stage=1, channels=8),
  train=TrainConfig(epochs=40, batch=64, drop_path_keep=1.0),
  sgd=SgdConfig(learning_rate=0.1),
  augment=AugmentConfig(padding=1, flip=False),
  search=SearchConfig(pool_size=60, rounds=3, new_per_round=20),
  nao=NaoConfig(top_k=15, max_step_size=30, held_out=0.2),
  controller=_SMALL,
  fit=FitConfig(epochs=600, batch=50),
  finalist=_DIGITS_FINALIST,
  final=ImageFinalConfig(epochs=12, channels=8, cells_per_stage=1),
)

PRESETS = {
  # `make search`. With few training images, cells of this space differ much
  # more than by chance, so that a search can show what it is worth. The images
  # left over make scores precise.
  "digits_nasbench201": dataclasses.replace(
    _DIGITS,
    space="nasbench201",
    validation_fraction=0.8,
    sampling="parameters",
    sampling_power=2.0,
    train=dataclasses.replace(_DIGITS.train, epochs=400),
    finalist=dataclasses.replace(_DIGITS_FINALIST, epochs=10),
    final=dataclasses.replace(_DIGITS.final, epochs=10),
  ),
  "digits": _DIGITS,
  "cifar10": SearchCnnConfig(),
  # Cells of NAS-Bench-201 by a small supernet. The first pool is the tenth of
  # random cells with the most parameters; the supernet draws large members more
  # often, since uniformly drawn ones without convolutions train faster and
  # score above the others. Finalists are deep, as only there the best cells
  # stand out. They train briefly, which favours small cells, so parameters
  # count as much as scores. Figures are in docs/ranking.md.
  "cifar10_nasbench201": SearchCnnConfig(
    space="nasbench201",
    strategy="nao_plus",
    validation_fraction=0.5,
    sampling="parameters",
    sampling_power=6.0,
    supernet_affine=False,
    score_images=1000,
    network=NetworkConfig(cells_per_stage=2, channels=8),
    proxies="parameters",
    train=TrainConfig(epochs=10, batch=64, drop_path_keep=1.0),
    sgd=SgdConfig(learning_rate=0.1, nesterov=True, weight_decay=5e-4),
    search=SearchConfig(pool_size=400, rounds=0, new_per_round=20),
    nao=NaoConfig(top_k=15, max_step_size=30, held_out=0.2),
    controller=_SMALL,
    fit=FitConfig(epochs=600, batch=50),
    finalists=8,
    finalist_share=0.4,
    finalist_rounds=3,
    finalist=dataclasses.replace(
      _DIGITS_FINALIST,
      cells_per_stage=5,
      epochs=1,
      stages="3:4",
      by_signals=True,
    ),
    final=ImageFinalConfig(epochs=12, channels=8, cells_per_stage=2),
  ),
  # NAO_V2, the search of the follow-up "Balanced NAO" (Luo et al. 2019); its
  # other op set is `middle`.
  "cifar10_v2": SearchCnnConfig(
    sampling="parameters",
    train_only_new=True,
    train=TrainConfig(epochs=200),
    # A cosine over the 50 epochs of each round.
    sgd=SgdConfig(schedule="restarts", period=50, period_factor=1),
    search=SearchConfig(
      pool_size=1000, rounds=3, new_per_round=300, extend=True
    ),
    nao=NaoConfig(held_out=0.1),
    controller=V2,
    # The official 1000 epochs are over tenfold data. A copy there is a random
    # swap, and each epoch here draws new swaps, so ten epochs here equal one
    # there.
    fit=FitConfig(epochs=10_000, weight_decay=0.0),
  ),
  # The search of the TensorFlow code with shared weights.
  "cifar10_tf": SearchCnnConfig(
    network=NetworkConfig(cells_per_stage=2, auxiliary=True, dropout=0.1),
    # The script has a drop-path flag, but it never reaches the shared weights.
    train=TrainConfig(epochs=150, batch=160, drop_path_keep=1.0),
    sgd=SgdConfig(
      schedule="restarts",
      learning_rate=0.05,
      end_learning_rate=0.0005,
      nesterov=True,
      # The code adds 1e-4 |w|^2 to the loss, whose gradient has twice that
      # factor.
      weight_decay=2e-4,
      # The code computes clipped gradients, but applies the unclipped ones.
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
  # The official search in PyTorch (NAO_V1) on ImageNet, as far as it is known.
  "imagenet": SearchCnnConfig(
    dataset="imagenet2012",
    test_split="validation",
    # 5,125 images, as many as score on CIFAR-10.
    validation_fraction=0.004,
    input="stream",
    network=NetworkConfig(stem="imagenet"),
    train=TrainConfig(label_smoothing=0.1),
    sgd=SgdConfig(schedule="step", decay=0.97),
    final=ImageFinalConfig(cells=0),
  ),
  # The space of SemiNAS on ImageNet.
  "mobile_imagenet": _MOBILE_IMAGENET,
  # The search of SemiNAS on ImageNet: three rounds of 100.
  "seminas_imagenet": dataclasses.replace(
    _MOBILE_IMAGENET,
    strategy="seminas",
    semi=SemiNasConfig(step_size=0.1, max_step_size=10.0, unlabelled=4000),
    controller=SEMI,
    fit=FitConfig(epochs=10_000),
  ),
  # Mobile blocks for images of 32x32 pixels, with 8 places and 3 choices.
  "mobile_cifar10": SearchCnnConfig(
    space="mobile",
    strategy="nao_plus",
    mobile=SMALL,
    train=_MOBILE_TRAIN,
    sgd=_MOBILE_SGD,
    search=_MOBILE_SEARCH,
    finalist=_MOBILE_FINALIST,
  ),
  # The search of the paper: a thousand trainings of 25 epochs.
  "cifar10_scratch": SearchCnnConfig(
    standardize=True,
    evaluator="scratch",
    finalists=0,  # Scores are those of trainings from scratch.
    encoding="triples",
    network=NetworkConfig(ops="large", channels=32, auxiliary=True),
    train=TrainConfig(epochs=25, batch=128, drop_path_keep=0.7),
    sgd=SgdConfig(
      # The official schedule spans 100 epochs, of which 25 are run.
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
  # Real digits, at most a minute per candidate.
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
    controller=_SMALL,
    fit=FitConfig(epochs=600, batch=50),
    finalist=_DIGITS_FINALIST,
    final=ImageFinalConfig(cells=2, epochs=12, channels=8, cells_per_stage=1),
  ),
}
