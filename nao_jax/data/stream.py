"""Image classification data too large for memory, decoded while training.

Images are of any size on disk. grain determines their order and the random
numbers of each; worker processes decode and augment them with Pillow. If
several processes train, each makes only its own rows of every batch, and reads
no others.

Shapes: B images per batch, R of them made in this process, of S x S pixels.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import os
import sys

import numpy as np

from nao_jax.data import held_out, images, pixels, prefetch, transforms
from nao_jax.data.augment import check_batch, eval_batches
from nao_jax.data.digest import Digest
from nao_jax.data.images import Examples, Record, Records
from nao_jax.errors import UserError
from nao_jax.settings import field


@dataclasses.dataclass(frozen=True)
class StreamConfig:
  """Settings of image augmentation; the defaults are usual for ImageNet.

  A training image is a random part, resized, mirrored with probability 1/2, and
  changed in colour; a test image is the centre. See `transforms`.

  Attributes:
    size: S, height and width of the network's input, in pixels.
    brightness: largest relative change.
    contrast: largest relative change.
    saturation: largest relative change.
    hue: largest rotation of the colour circle, in turns, up to 0.5.
    workers: number of processes that decode images; 0 for the training's own
      alone. Batches do not depend on it.
  """

  size: int = field(224, least=1)
  brightness: float = field(0.4, least=0)
  contrast: float = field(0.4, least=0)
  saturation: float = field(0.4, least=0)
  hue: float = field(0.2, least=0, most=0.5)
  workers: int = field(4, least=0)


# Held-out images that a worker decodes at a time.
_DECODED_TOGETHER = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """Some examples of a split, by their own numbers from 0; can be pickled.

  Attributes:
    split: all examples of the split.
    numbers: integers [n], the numbers of the examples.
  """

  split: Records
  numbers: np.ndarray

  def __len__(self) -> int:
    return len(self.numbers)

  def __getitem__(self, index: int) -> Record:
    return self.split[int(self.numbers[index])]

  @property
  def digest(self) -> str:
    """Digest of the whole split, held-out records included."""
    return self.split.digest


@dataclasses.dataclass(frozen=True, eq=False)
class ImageStream:
  """An image classification data set on disk.

  Attributes:
    name: the name of the data set in messages.
    classes: number of classes; labels are 0 to classes - 1.
    train: the training examples.
    test: the test examples.
    config: settings of cropping and augmentation.
    held_out: examples held out of the training part, for choices.
    mean: float32 [3], with full intensity 1: ImageNet's mean for any data set.
      Computing a data set's own mean would take a pass over it; this one is
      close enough. None where each image is standardised by itself.
    std: float32 [3], the same for the standard deviation.
  """

  name: str
  classes: int
  train: Records | Part
  test: Records
  config: StreamConfig
  held_out: Records | Part | tuple = ()
  mean: np.ndarray | None = dataclasses.field(
    default_factory=lambda: np.float32([0.485, 0.456, 0.406])
  )
  std: np.ndarray | None = dataclasses.field(
    default_factory=lambda: np.float32([0.229, 0.224, 0.225])
  )

  @property
  def train_examples(self) -> int:
    """Number of training images."""
    return len(self.train)

  @property
  def validation_examples(self) -> int:
    """Number of held-out images."""
    return len(self.held_out)

  @functools.cached_property
  def class_counts(self) -> np.ndarray:
    """Number of training images of each class; reads all records once."""
    numbers = [self.train[n].label for n in range(len(self.train))]
    return np.bincount(numbers, minlength=self.classes)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """The shape of an image, (S, S, 3): grey images become RGB."""
    return self.config.size, self.config.size, 3

  @functools.cached_property
  def validation(self) -> Examples:
    """The held-out examples, cut as test images are: decoded once, and kept.

    Raises:
      UserError: an image is damaged or has a label out of range.
    """
    count = len(self.held_out)
    decoded = np.empty((count, *self.image_shape), np.uint8)
    numbers = np.empty(count, np.int32)
    if count:
      batches = self._in_order(self.held_out, _DECODED_TOGETHER)
      for at, (examples, counted) in enumerate(batches):
        first = at * _DECODED_TOGETHER
        rows = slice(first, first + counted.sum())
        decoded[rows] = examples.images[counted]
        numbers[rows] = examples.labels[counted]
    return Examples(decoded, numbers)

  @functools.cached_property
  def digest(self) -> Digest:
    """Digest of the files, all of which are read once for it."""
    return Digest(self.train.digest, self.test.digest)

  def train_batches(
    self,
    batch: int,
    *,
    seed: int,
    first_step: int = 0,
    rows: Sequence[int] | None = None,
  ) -> Iterator[Examples]:
    """Yields training batches without end.

    Batch number i is a function of the seed and of i alone, whatever the first
    step and the number of workers. So the step, which a checkpoint holds, is
    the position in the data as well: a run resumes after `step` steps with
    `first_step=step`, and no earlier image is read. Each epoch has its own
    order, examples that do not fill a batch are left out, and each image is
    augmented anew each time.

    Args:
      batch: B.
      seed: seed of the order and the augmentation.
      first_step: the number of the first batch, from 0.
      rows: the rows of each batch to make, R numbers from 0 to below B; the
        others are not read. All by default.

    Yields:
      Images uint8 [R, S, S, 3] and labels int32 [R].

    Raises:
      UserError: one batch needs more images than there are, or the seed is out
        of range; during the iteration, an image is damaged or has a label out
        of range.
    """
    check_batch(batch, self.train_examples)
    held_out.check_seed(seed)
    # grain adds the epoch to the seed of the order, so with `seed` itself, seed
    # 1 would begin with the second order of seed 0.
    seeds = np.random.SeedSequence(seed).generate_state(2)
    order_seed, change_seed = map(int, seeds)
    change = functools.partial(_train_example, config=self.config)
    examples = (
      _grain()
      .MapDataset.source(self.train)
      .shuffle(seed=order_seed)
      .random_map(change, seed=change_seed)
    )
    make = functools.partial(_batch, examples, batch, _all(batch, rows))
    numbers = range(first_step, sys.maxsize)
    return prefetch.iterate(make, numbers, self.config.workers)

  def test_batches(
    self, batch: int, rows: Sequence[int] | None = None
  ) -> Iterator[tuple[Examples, np.ndarray]]:
    """Yields the test examples in stored order, the last batch padded.

    Args:
      batch: B.
      rows: see `train_batches`.

    Yields:
      Images uint8 [R, S, S, 3] and labels int32 [R]; and a mask, bool [R], in
      which each example counts once over all rows. See `augment.eval_batches`.

    Raises:
      UserError: an image is damaged or has a label out of range.
    """
    return self._in_order(self.test, batch, rows)

  def _in_order(self, records, batch, rows=None):
    """Yields any examples in the form of `test_batches`."""
    _, counted = eval_batches(len(records), batch)
    cut = functools.partial(_test_example, size=self.config.size)
    examples = _grain().MapDataset.source(records).map(cut).repeat()
    rows = _all(batch, rows)
    make = functools.partial(_batch, examples, batch, rows)
    made = prefetch.iterate(make, range(len(counted)), self.config.workers)
    return zip(made, counted[:, rows], strict=True)


def open_stream(
  name: str,
  *,
  data_dir: str | os.PathLike,
  config: StreamConfig,
  validation_fraction: float = 0.0,
  seed: int = 0,
  test_split: str = "test",
) -> ImageStream:
  """Opens a data set to stream.

  Args:
    name: see `images.load`, but images may be of any size.
    data_dir: the directory of data sets.
    config: settings of cropping and augmentation.
    validation_fraction: share of the training part to hold out, from 0 to
      below 1.
    seed: seed of the random split, which is that of `images.load`.
    test_split: the split that is the test part; for example, ImageNet has
      labels only for `train` and `validation`.

  Raises:
    UserError: the data set is missing, or is not one of images with one label
      each; an argument is out of range; or grain is not installed.
  """
  held_out.check(validation_fraction, seed)
  _grain()
  builder = images.open_builder(name, data_dir, test_split)
  train, test = (Records(builder, split) for split in ("train", test_split))
  # A test part without labels must be noticed before the training, not after.
  _ = train[0], test[0]
  train, validation = (
    Part(train, numbers)
    for numbers in held_out.split(len(train), validation_fraction, seed)
  )
  classes = images.classes(builder)
  return ImageStream(name, classes, train, test, config, validation)


def _grain():
  """Imports grain, which only this module needs."""
  try:
    import grain
  except ImportError as error:
    raise UserError(
      "`input=stream`: needs the package grain; pip install grain"
    ) from error
  return grain


def _train_example(
  record: Record, rng: np.random.Generator, config: StreamConfig
) -> Examples:
  image = pixels.read(record.encoded, record.place).convert("RGB")
  image = transforms.random_resized_crop(image, rng, config.size)
  image = transforms.random_flip(image, rng)
  image = transforms.colour_jitter(
    image,
    rng,
    brightness=config.brightness,
    contrast=config.contrast,
    saturation=config.saturation,
    hue=config.hue,
  )
  return Examples(np.asarray(image), np.int32(record.label))


def _test_example(record: Record, size: int) -> Examples:
  image = pixels.read(record.encoded, record.place).convert("RGB")
  image = transforms.centre_crop(image, size)
  return Examples(np.asarray(image), np.int32(record.label))


def _all(batch: int, rows: Sequence[int] | None) -> Sequence[int]:
  return range(batch) if rows is None else rows


def _batch(examples, batch: int, rows: Sequence[int], number: int) -> Examples:
  """Stacks rows of a batch of a grain.MapDataset, which repeats over epochs."""
  epoch, into = divmod(number, len(examples) // batch)
  start = epoch * len(examples) + into * batch
  made = [examples[start + row] for row in rows]
  return Examples(*map(np.stack, zip(*made, strict=True)))
