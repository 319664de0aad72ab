"""Checks before any long computation whether a training fits in memory.

The limit that a device reports is trusted. A CPU reports none; its devices
share the machine's memory.
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
# Upper bound on the maps that a node of a recurrent cell keeps.
_MAPS = 30


def limit(device: jax.Device) -> int | None:
  """Returns the bytes that one device may use; None if unknown."""
  known = (device.memory_stats() or {}).get("bytes_limit")
  if known is None and device.platform == "cpu":
    try:
      known = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # No such system.
      return None
  return known


def room(devices: int | None = None) -> int | None:
  """Returns the bytes for each of this process's devices; None if unknown."""
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
    held: number of images that are kept on each device.
    devices: number of this process's devices used; all by default.
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
      else "no `accumulate` is enough: give a smaller "
      f"`{trainer.network.narrower}` or `train.batch`",
    )


def check_search(
  trainer: supernet.Trainer | candidate.Trainer,
  image_shape: tuple[int, ...],
  *,
  each: int = 1,
  held: int | None = None,
  devices: int | None = None,
  stage: str | None = None,
) -> None:
  """Raises UserError if a step of a search does not fit.

  Args:
    trainer: settings of a supernet, on all devices; or of candidates, one on
      each device.
    image_shape: (H, W, C).
    each: architectures that a supernet's step trains.
    held: images that are kept on each device; the training images by default.
    devices: number of this process's devices used; all by default.
    stage: the stage after the search that the step is of, if it is of one; its
      settings have this name.
  """
  found = room(devices)
  held = trainer.examples if held is None else held
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
    narrower = trainer.network.narrower
    if stage:
      narrower = narrower.replace("network", stage)
    batch = f"{stage or 'train'}.batch"
    raise _refused(needed, found, f"give a smaller `{narrower}` or `{batch}`")


def check_text(
  trainer: stand_alone_language.Trainer | recurrent.Trainer,
  *,
  words: int,
  devices: int | None = None,
) -> None:
  """Raises UserError if the training of a language model does not fit.

  Args:
    trainer: the settings.
    words: number of words of text that are kept on each device.
    devices: number of this process's devices used; all by default.
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
  """Returns whether a rough estimate is enough, which saves some seconds."""
  if room is None:
    return True
  return 4 * network.most_kept(max(image_shape[:2])) * images < room / 2


def _refused(needed: Memory, room: int, remedy: str) -> UserError:
  return UserError(
    f"a training step needs about {needed.total / _GIB:.1f} GiB of memory, "
    f"{needed.kept / _GIB:.1f} of them between its forward and backward pass; "
    f"each device may use {room / _GIB:.1f}: {remedy}"
  )
