"""Parts shared by every training of an image classifier.

Shapes: B images per step, D devices.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from nao_jax import parallel
from nao_jax.data.augment import AugmentConfig, augment
from nao_jax.errors import UserError
from nao_jax.networks.build import Network
from nao_jax.networks.macro import Outputs, drop_path_masks
from nao_jax.settings import field
from nao_jax.training.optimisers import SgdConfig, sgd


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Settings of a classifier's training; defaults from the official search.

  Attributes:
    epochs: passes over the training images; in a search, of all rounds
      together.
    batch: B, over all devices. A search uses it for scoring too: BatchNorm
      takes each batch's statistics, so the batch size is part of the score.
    drop_path_keep: final probability that the last cell keeps a branch.
    label_smoothing: share of a label's weight that is spread over all classes.
    auxiliary_weight: weight of the auxiliary head's loss.
    class_balance: how far the loss makes up for unequal classes: an image
      counts in proportion to one over its class's share of the training
      images, to this power. With 0 all images count alike, with 1 all classes.
  """

  epochs: int = field(150, least=1)
  batch: int = field(64, least=1)
  drop_path_keep: float = field(0.9, above=0, most=1)
  label_smoothing: float = field(0.0, least=0, most=1)
  auxiliary_weight: float = field(0.4, least=0)
  class_balance: float = field(0.0, least=0, most=1, added=True)


class Images(NamedTuple):
  """Examples on the device, and the statistics that normalise them.

  Attributes:
    images: uint8 [n, H, W, C].
    labels: int32 [n].
    mean: float32 [C].
    std: float32 [C].
  """

  images: jax.Array
  labels: jax.Array
  mean: jax.Array
  std: jax.Array


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Settings of a training run; hashable.

  Attributes:
    network: sizes of the network.
    train: epochs, batch and regularisation.
    sgd: the optimiser.
    augment: random changes to the images.
    examples: number of training images.
    class_weights: weight of each class's images in the loss, see
      `labels.class_weights`; if empty, all count alike.
    bfloat16: compute in bfloat16, except for BatchNorm and the classifier; the
      weights stay in float32.
  """

  network: Network
  train: TrainConfig
  sgd: SgdConfig
  augment: AugmentConfig
  examples: int
  class_weights: tuple[float, ...] = dataclasses.field(default=(), kw_only=True)
  bfloat16: bool = dataclasses.field(default=False, kw_only=True)

  @property
  def steps_per_epoch(self) -> int:
    """Number of full batches; the rest of an epoch's random order is unused."""
    return self.examples // self.train.batch

  @property
  def steps(self) -> int:
    """Number of steps of the whole training."""
    return self.train.epochs * self.steps_per_epoch

  def progress(self, step: jax.Array) -> jax.Array:
    """Returns the share of the training that is done, for drop-path."""
    return jnp.minimum(step / self.steps, 1)

  @property
  def optimiser(self) -> optax.GradientTransformation:
    """The optimiser with its schedule."""
    return sgd(
      self.sgd, epochs=self.train.epochs, steps_per_epoch=self.steps_per_epoch
    )

  def masks(
    self,
    key: jax.Array,
    own: int,
    progress: float | jax.Array,
    axis_name: str | None,
  ) -> jax.Array | None:
    """Draws the drop-path factors of the whole batch; returns this device's.

    Args:
      key: consumed.
      own: number of this device's images, B / D.
      progress: share of the training that is done.
      axis_name: the mapped axis over the devices.

    Returns:
      [cells, 2 nodes, B / D]; None without drop-path, and for networks that
      have no branches.
    """
    keep = self.train.drop_path_keep
    if keep == 1 or not self.network.branches:
      return None
    batch = own * parallel.size(axis_name)
    masks = drop_path_masks(key, self.network, batch, keep, progress)
    return parallel.own_part(masks, 2, axis_name)

  def loss(self, outputs: Outputs, labels: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy, that of the auxiliary head included.

    Images are weighted by `class_weights`.

    Args:
      outputs: logits [B, classes], and those of the auxiliary head or None.
      labels: int32 [B].
    """
    logits, auxiliary = outputs
    entropy = functools.partial(
      cross_entropy,
      labels=labels,
      smoothing=self.train.label_smoothing,
      class_weights=self.class_weights,
    )
    total = entropy(logits)
    if auxiliary is not None:
      total += self.train.auxiliary_weight * entropy(auxiliary)
    return total

  def check(
    self, devices: int | None = None, where: str = "train.batch"
  ) -> None:
    """Raises UserError if the batch does not fit the devices or the data."""
    parallel.check_batch(self.train.batch, devices, where)
    if not 1 <= self.train.batch <= self.examples:
      raise UserError(
        f"`{where}={self.train.batch}`: there are {self.examples} training "
        "images; give a batch from 1 to that"
      )


def cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  smoothing: float = 0.0,
  class_weights: tuple[float, ...] = (),
) -> jax.Array:
  """Returns the mean cross-entropy over the batch, in nats.

  Args:
    logits: [B, classes].
    labels: int32 [B].
    smoothing: share of a label's weight that is spread over all classes.
    class_weights: factors of the entropy of each class's images; 1 if empty.
  """
  targets = optax.smooth_labels(
    jax.nn.one_hot(labels, logits.shape[-1]), smoothing
  )
  entropy = optax.softmax_cross_entropy(logits, targets)
  if class_weights:
    entropy *= jnp.array(class_weights, entropy.dtype)[labels]
  return jnp.mean(entropy)


def to_bfloat16(tree: Any) -> Any:
  """Casts all floats except those of BatchNorm and the classifiers."""

  def cast(path, leaf):
    name = jax.tree_util.keystr(path)
    exact = ("scale", "offset", "classifier")
    kept = leaf.dtype != jnp.float32 or any(part in name for part in exact)
    return leaf if kept else leaf.astype(jnp.bfloat16)

  return jax.tree.map_with_path(cast, tree)


def augmented(
  key: jax.Array,
  data: Images,
  indices: jax.Array,
  config: AugmentConfig,
  axis_name: str | None,
) -> jax.Array:
  """Returns augmented images, each with a key by its place in the batch."""
  count = len(indices)
  first = 0 if axis_name is None else lax.axis_index(axis_name) * count
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))
  change = functools.partial(
    augment, mean=data.mean, std=data.std, config=config
  )
  return jax.vmap(lambda key, image: change(key, image[None])[0])(
    keys, data.images[indices]
  )


def repeat_steps(
  step: Callable, state: Any, rows: Any, count: jax.Array | None
) -> tuple[Any, jax.Array]:
  """Scans `step` over the first `count` rows; one program serves any count.

  Args:
    step: a function of the state and a row that returns the new state and a
      loss.
    state: the state before the first step.
    rows: a tree of arrays [steps, ...].
    count: int32 [], rows to use; all if None.

  Returns:
    The state after those rows, and the losses, float32 [steps]; 0 for the other
    rows.
  """

  def body(number, carry):
    state, losses = carry
    state, loss = step(state, jax.tree.map(lambda x: x[number], rows))
    return state, losses.at[number].set(loss)

  steps = len(jax.tree.leaves(rows)[0])
  losses = jnp.zeros(steps)
  count = steps if count is None else count
  return lax.fori_loop(0, count, body, (state, losses))


def padded(rows: np.ndarray, length: int) -> np.ndarray:
  """Returns rows for `repeat_steps`, padded to a fixed number by repetition."""
  return np.resize(rows, (length, *rows.shape[1:]))
