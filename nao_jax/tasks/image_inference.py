"""Inference with a trained network: measuring its error, and exporting it."""

from collections.abc import Callable
import dataclasses
import importlib.util
import os
import pathlib

from absl import logging
import jax
import numpy as np

from nao_jax import parallel, settings
from nao_jax.data.digest import TEST_PART, Digest
from nao_jax.errors import UserError
from nao_jax.networks import onnx_graph
from nao_jax.runs import paths
from nao_jax.runs.config_file import read_settings
from nao_jax.runs.environment import in_32_bits
from nao_jax.runs.files import write_bytes
from nao_jax.settings import unflatten
from nao_jax.spaces import cnn
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.image_training import Training, open_data
from nao_jax.tasks.training import restore
from nao_jax.training.stand_alone import TrainState, classify

# Platforms that an exported network runs on.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def load(workdir: str | os.PathLike) -> tuple[Training, TrainState]:
  """Loads a training's settings and its newest state.

  Args:
    workdir: the workdir of `final_training.run`, which may not have finished.

  Raises:
    UserError: there is no training, or it has no checkpoint yet.
  """
  path = paths.expanded(workdir)
  training = _training(path)
  # The template of the state is a whole network, so it is built only if needed.
  there = os.path.exists(path / "checkpoints")
  state = restore(training, path / "checkpoints") if there else None
  if state is None:
    raise UserError(
      f"`workdir={workdir}`: no checkpoint there yet; train first"
    )
  logging.info(
    "%s: step %d of %d", path, int(state.step), training.trainer.steps
  )
  return training, state


def _training(workdir: pathlib.Path) -> Training:
  """Reads a training's settings from config.json, checked like flags."""
  place = f"`workdir={workdir}`: its config.json"
  try:
    # Older versions stored no digests, only the name of the data set.
    unknown = {"data.train": "", "data.test": ""}
    training = unflatten(Training, unknown | read_settings(workdir))
  except KeyError as error:
    raise UserError(
      f"{place} has no {error}; give the workdir of a training "
      "(experiments.train_cnn), not of a search"
    ) from error
  except TypeError as error:
    raise UserError(
      f"{place} is damaged: {error}; give another workdir"
    ) from error
  try:
    settings.validate(training.config)
    if whole := _is_whole(training):
      training.network.check(training.image_shape[0])
  except UserError as error:
    raise UserError(f"{place} is damaged: {error}") from error
  if not whole:
    raise UserError(
      f"{place} is damaged: its images, its network and its architecture do "
      "not belong together; give another workdir"
    )
  return training


def _is_whole(training: Training) -> bool:
  """Returns whether the values set by data and architecture are consistent."""
  shape, network = training.image_shape, training.config.network
  return (
    _fits(training)
    and len(shape) == 3
    and shape[0] == shape[1]
    and min(*shape, network.classes, training.config.train.batch) >= 1
    and training.examples >= training.config.train.batch
    and len(training.mean) == len(training.std) == shape[2]
    and len(training.class_weights) in (0, network.classes)
  )


def _fits(training: Training) -> bool:
  """Returns whether the architecture is of the network's space."""
  config, network = training.config, training.config.network
  if config.space != "nao":
    return training.network.space.accepts(training.tokens)
  found = cnn.resolve(config.arch, ops=network.ops)
  return (found.ops, found.nodes) == (network.ops, network.nodes)


@in_32_bits
def evaluate(
  workdir: str | os.PathLike,
  *,
  data_dir: str | os.PathLike,
  dataset: str | None = None,
  split: str | None = None,
  devices: int | None = None,
) -> dict:
  """Measures the error of a trained network.

  Args:
    workdir: see `load`.
    data_dir: the directory of TFDS data sets.
    dataset: the data set; that of the training by default.
    split: the split to measure on; the training's test split by default.
    devices: local devices to use; all by default.

  Returns:
    `examples`, `error`, `top_5_error` in [0, 1], `loss` in nats.

  Raises:
    UserError: see `load`; or the data do not fit the network.
  """
  parallel.check(devices)
  training, state = load(workdir)
  config = dataclasses.replace(
    training.config,
    dataset=dataset or training.config.dataset,
    test_split=split or training.config.test_split,
  )
  data = open_data(config, data_dir)
  for what, found, wanted in (
    ("images of", data.image_shape, training.image_shape),
    ("classes:", data.classes, config.network.classes),
  ):
    if found != wanted:
      raise UserError(
        f"`dataset={config.dataset}`: {what} {found}, but the network in "
        f"`workdir={workdir}` was trained on {wanted}"
      )
  _warn_of_other_data(training, config, data.digest)
  return training.feed(data, devices).measure(state, "test")


def _warn_of_other_data(
  training: Training, config: TrainCnnConfig, found: Digest
) -> None:
  """Warns if the data of `config` are not those of the network's training."""
  if not training.data.train:
    logging.warning(
      "%s: the training kept no digest of its data, so they cannot be compared "
      "with these",
      config.dataset,
    )
    return
  changed = training.data.changes(found)
  if config.dataset != training.config.dataset:
    if changed:
      logging.warning(
        "%s: not the data set that the network was trained on, which is %s",
        config.dataset,
        training.config.dataset,
      )
    return
  if config.test_split != training.config.test_split:
    # Another split is expected to differ; the same split of other data is not.
    changed = [part for part in changed if part != TEST_PART]
  if changed:
    logging.warning(
      "%s: not the data that the network was trained on: the %s changed since; "
      "the measurement cannot be compared with the training's own result",
      config.dataset,
      " and the ".join(changed),
    )


@in_32_bits
def export(workdir: str | os.PathLike, file: str | os.PathLike) -> None:
  """Writes a trained network to a file that other programs can run.

  The file holds a function from images uint8 [B, H, W, C], any B, not
  normalised, to logits float32 [B, classes], including the weights. Its ending
  says what it is for: `.jax` for jax and flatbuffers (`jax.export`), `.onnx`
  for runtimes of ONNX, of which onnxruntime compares its logits first.

  Args:
    workdir: see `load`.
    file: the file to write; its folder is created, and an existing file is
      not replaced.

  Raises:
    UserError: see `load`; the ending is another one, a package is missing, an
      operation cannot be exported, or the file exists or cannot be written.
  """
  path = paths.expanded(file)
  serialise = _FORMATS.get(path.suffix)
  if serialise is None:
    raise UserError(
      f"`file={file}`: no known ending; allowed: {', '.join(_FORMATS)}"
    )
  if os.path.exists(path):
    raise UserError(f"`file={file}`: exists; give another name")
  for package in _PACKAGES[path.suffix]:
    if importlib.util.find_spec(package) is None:
      raise UserError(
        f"`file={file}`: needs the package {package}; pip install {package}"
      )
  training, state = load(workdir)
  mean, std = training.normaliser
  logits = jax.jit(
    lambda images: classify(state, images, mean, std, trainer=training.trainer)
  )
  try:
    content = serialise(logits, training.image_shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    logging.info("wrote %s, %d bytes", path, len(content))
  except OSError as error:
    raise UserError(f"`file={file}`: {error.strerror}") from error


def _for_jax(logits: Callable, shape: tuple[int, ...]) -> bytes:
  (batch,) = jax.export.symbolic_shape("batch")
  images = jax.ShapeDtypeStruct((batch, *shape), "uint8")
  exported = jax.export.export(logits, platforms=PLATFORMS)(images)
  return bytes(exported.serialize())


def _for_onnx(logits: Callable, shape: tuple[int, ...]) -> bytes:
  import onnxruntime

  names = "images", "logits"
  example = jax.ShapeDtypeStruct(shape, "uint8")
  try:
    content = onnx_graph.translate(logits, example, names)
  except onnx_graph.Untranslatable as error:
    raise UserError(
      f"`file`: ONNX export does not know these operations of the network: "
      f"{error}; export to a file that ends in .jax"
    ) from error
  images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
  session = onnxruntime.InferenceSession(
    content, providers=["CPUExecutionProvider"]
  )
  (found,) = session.run(None, {names[0]: images})
  expected = np.asarray(logits(images))
  difference = float(np.abs(found - expected).max())
  logging.info("logits differ from those of jax by %.1g at most", difference)
  if not difference <= _LOGITS_APART * max(1.0, float(np.abs(expected).max())):
    raise UserError(
      f"`file`: onnxruntime's logits differ from those of jax by {difference:g}"
      "; export to a file that ends in .jax, and report it"
    )
  return content


_FORMATS = {".jax": _for_jax, ".onnx": _for_onnx}
_PACKAGES = {".jax": ("flatbuffers",), ".onnx": ("onnx", "onnxruntime")}
# Of logits that are at most 1; the two add in another order.
_LOGITS_APART = 1e-4
