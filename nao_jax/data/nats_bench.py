"""Reads the official files of NAS-Bench-201, published by NATS-Bench.

The files are pickles. The package nats-bench would execute them, so they are
unpickled here as plain data, and the package only interprets it.

Shapes: A architectures.
"""

import bz2
from collections.abc import Callable
import dataclasses
import importlib
import pathlib

from absl import logging
import numpy as np

from nao_jax.data import restricted_unpickler
from nao_jax.data.images import Examples, ImageData
from nao_jax.errors import UserError
from nao_jax.runs import json_file, paths
from nao_jax.spaces import nasbench201

_EPOCHS = ("12", "200")  # Each architecture was trained with both budgets.
# Data set and part of each measurement, as the benchmark names them. Searches
# use `cifar10-valid`, which was trained without the validation images.
_MEASUREMENTS = {
  "cifar10_valid": ("cifar10-valid", "x-valid"),
  "cifar10_test": ("cifar10", "ori-test"),
  "cifar100_valid": ("cifar100", "x-valid"),
  "cifar100_test": ("cifar100", "x-test"),
  "imagenet16_valid": ("ImageNet16-120", "x-valid"),
  "imagenet16_test": ("ImageNet16-120", "x-test"),
}
_SUFFIX = ".pickle.pbz2"


def read(
  folder: str,
  progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> dict[str, np.ndarray]:
  """Averages the last epoch of all trainings of each architecture.

  Args:
    folder: the benchmark's folder, such as NATS-tss-v1_0-3ffb9-simple.
    progress: called with the phase, the number of architectures read, and their
      total.

  Returns:
    `ops` int8 [A, 6] and `op_names`, and columns float32 [A] in per cent, such
    as `cifar10_valid12`; columns that are incomplete are left out.

  Raises:
    UserError: the package or a file is missing, or a file is damaged or holds
      anything but data; the message names it.
  """
  results_class = _results_class()
  texts = _meta(folder)
  ops = [_ops(text, folder) for text in texts]
  names = [name + epochs for name in _MEASUREMENTS for epochs in _EPOCHS]
  columns = {name: np.full(len(texts), np.nan, np.float32) for name in names}
  for number in range(len(texts)):
    progress("read architectures", number, len(texts))
    file = paths.expanded(folder) / f"{number:06d}{_SUFFIX}"
    for name, value in _accuracies(file, results_class).items():
      columns[name][number] = value
  progress("read architectures", len(texts), len(texts))
  return {
    "ops": np.array(ops, np.int8),
    "op_names": np.array(nasbench201.OPS),
    **_complete(columns),
  }


def split(data: ImageData, file: str) -> ImageData:
  """Returns a data set with the benchmark's split of the training images.

  Args:
    data: the data set without a validation part, in the official order.
    file: JSON of the benchmark, with lists of numbers `train` and `valid`, such
      as cifar-split.txt.

  Raises:
    UserError: the file has another form, or numbers of images that the data set
      does not have.
  """
  place = f"`split={file}`"
  found = json_file.read(
    file, place=place, wanted="a split", advice="give the benchmark's file"
  )
  parts = []
  for name in ("train", "valid"):
    try:
      rows = np.array(found[name][1], np.int64)
    except (KeyError, IndexError, TypeError, ValueError) as error:
      raise UserError(
        f'{place}: no numbers of images at "{name}", which should be like '
        '["int", ["0", "5", ..]]'
      ) from error
    count = len(data.train.labels)
    if not len(rows) or rows.min() < 0 or rows.max() >= count:
      raise UserError(
        f'{place}: "{name}" must be numbers from 0 to {count - 1}, of the '
        f"training images of {data.name}"
      )
    parts.append(Examples(data.train.images[rows], data.train.labels[rows]))
  return dataclasses.replace(data, train=parts[0], validation=parts[1])


def _results_class() -> type:
  try:
    return importlib.import_module("nats_bench").ArchResults
  except ModuleNotFoundError as error:
    raise UserError(
      "`nats_bench`: needs the package nats-bench; pip install "
      "'nao_jax[tables]'"
    ) from error


def _meta(folder: str) -> list[str]:
  file = paths.expanded(folder) / f"meta{_SUFFIX}"
  meta = _load(file)
  texts = meta.get("meta_archs") if isinstance(meta, dict) else None
  if not isinstance(texts, list) or not texts:
    raise UserError(f"{file}: no list `meta_archs` of architectures")
  return texts


def _ops(text: str, folder: str) -> np.ndarray:
  place = f"`nats_bench={folder}`: architecture {text}"
  return nasbench201.to_ops(nasbench201.parse(str(text), place))


def _accuracies(file: pathlib.Path, results_class: type) -> dict[str, float]:
  """Returns the value of every column that a file contains."""
  trainings = _load(file)
  accuracies = {}
  try:
    for epochs in _EPOCHS:
      result = results_class.create_from_state_dict(trainings[epochs])
      for name, (dataset, part) in _MEASUREMENTS.items():
        if dataset in result.dataset_seed:
          mean = result.get_metrics(dataset, part)["accuracy"]
          accuracies[name + epochs] = float(mean)
  except Exception as error:  # The package does not check what it is given.
    raise UserError(
      f"{file}: not results of NATS-Bench's topology space ({error!r})"
    ) from error
  return accuracies


def _load(file: pathlib.Path):
  try:
    with bz2.open(file) as opened:
      return restricted_unpickler.load(opened)
  except FileNotFoundError as error:
    raise UserError(
      f"{file}: no such file; `nats_bench` takes the folder of the benchmark's "
      "topology space, such as NATS-tss-v1_0-3ffb9-simple"
    ) from error
  except Exception as error:  # Damaged files raise nearly anything.
    raise UserError(f"{file}: not a pickle of data: {error}") from error


def _complete(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  kept = {k: v for k, v in columns.items() if np.isfinite(v).all()}
  for name in sorted(set(columns) - set(kept)):
    missing = np.sum(~np.isfinite(columns[name]))
    logging.warning(
      "column %s is left out: %d architectures have no value", name, missing
    )
  return kept
