"""Refuses a training that does not fit the memory, before anything long runs.

Devices that say how much they may use are believed. A CPU does not say; its
devices share the machine's memory.
"""

import functools
import os

import jax

from nao_jax import parallel
from nao_jax.errors import UserError
from nao_jax.training import (
  candidate,
  language,
  memory,
  recurrent,
  stand_alone,
  stand_alone_language,
  supernet,
)
from nao_jax.training.memory import Memory

_GIB = 2**30
# No branch keeps as many maps of the first stage's size.
_MAPS = 30


def limit(device: jax.Device) -> int | None:
  """The bytes that one device may use; None if nobody knows."""
  known = (device.memory_stats() or {}).get("bytes_limit")
  if known is None and device.platform == "cpu":
    try:
      known = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # No such system.
      return None
  return known


def room(devices: int | None = None) -> int | None:
  """The bytes for each of this process's devices; None if nobody knows.

  Args:
    devices: how many are used; all by default.
  """
  used = parallel.local(devices)
  known = limit(used[0])
  shared = len(used) if used[0].platform == "cpu" else 1
  return None if known is None else known // shared


def check_network(
  trainer: stand_alone.Trainer,
  image_shape: tuple[int, ...],
  *,
  held: int,
  devices: int | None = None,
) -> None:
  """Raises UserError if the training of a network does not fit.

  Args:
    trainer: the settings.
    image_shape: (H, W, C).
    held: images that live on each device.
    devices: how many of this process are used; all by default.
  """
  sizes = {"held": held, "devices": parallel.count(devices)}
  found = room(devices)
  images = trainer.train.batch // (sizes["devices"] * trainer.accumulate)
  if _small(trainer.network, image_shape, images, found):
    return
  needed = memory.of_network(trainer, image_shape, **sizes)
  if needed.total > found:
    parts = memory.least_accumulate(trainer, image_shape, found, **sizes)
    raise _refused(
      needed,
      found,
      f"give `accumulate={parts}`"
      if parts
      else "no `accumulate` is enough: give a smaller `network.channels` or "
      "`train.batch`",
    )


def check_search(
  trainer: supernet.Trainer | candidate.Trainer,
  image_shape: tuple[int, ...],
  *,
  each: int = 1,
  devices: int | None = None,
) -> None:
  """Raises UserError if a step of a search does not fit.

  Args:
    trainer: of shared weights, on all devices; or of candidates, one on each.
    image_shape: (H, W, C).
    each: architectures that a step of shared weights trains.
    devices: how many of this process are used; all by default.
  """
  found, held = room(devices), trainer.examples
  if isinstance(trainer, candidate.Trainer):
    images = trainer.train.batch
    count = functools.partial(memory.of_network, held=held)
  else:
    parts = parallel.count(devices)
    images = trainer.train.batch // max(parts, each)
    count = functools.partial(
      memory.of_supernet, held=held, devices=parts, each=each
    )
  if _small(trainer.network, image_shape, images, found):
    return
  needed = count(trainer, image_shape)
  if needed.total > found:
    raise _refused(
      needed, found, "give a smaller `network.channels` or `train.batch`"
    )


def check_text(
  trainer: stand_alone_language.Trainer | recurrent.Trainer,
  *,
  words: int,
  devices: int | None = None,
) -> None:
  """Raises UserError if the training of a language model does not fit.

  Args:
    trainer: the settings.
    words: of the text that lives on each device.
    devices: how many of this process are used; all by default.
  """
  found, steps = room(devices), trainer
  if isinstance(trainer, stand_alone_language.Trainer):
    steps = trainer.steps
  model = steps.model
  each = model.vocabulary + _MAPS * model.nodes * model.width
  rows = language.longest(steps.train) * steps.train.batch
  if found is None or 8 * 4 * rows * each < found / 2:
    return
  needed = memory.of_text(trainer, words=words, devices=parallel.count(devices))
  if needed.total > found:
    raise _refused(
      needed,
      found,
      "give a smaller `network.width`, `train.batch` or `train.bptt`",
    )


def _small(network, image_shape, images: int, room: int | None) -> bool:
  """Whether a look is enough, which saves most runs some seconds."""
  height, width, _ = image_shape
  pixels = height * width / (64 if network.stem == "imagenet" else 1)
  maps = _MAPS * 2 * network.nodes * len(network.cells)
  bytes_ = 4 * maps * network.channels * pixels * images
  return room is None or bytes_ < room / 2


def _refused(needed: Memory, room: int, remedy: str) -> UserError:
  return UserError(
    f"a training step needs about {needed.total / _GIB:.1f} GiB of memory, "
    f"{needed.kept / _GIB:.1f} of them between its forward and backward pass; "
    f"each device may use {room / _GIB:.1f}: {remedy}"
  )
